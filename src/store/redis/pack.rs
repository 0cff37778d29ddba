//! Records as Redis holds them: a MessagePack array of raw text, which Lua reads with `cmsgpack`.

use crate::store::StoreError;

/// The fields of an array, in their order; `None` for nil.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    left: usize,
}

/// Packs fields, none of them nil.
pub(super) fn pack<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    pack_options(fields.into_iter().map(Some))
}

/// Packs fields of which some may be nil.
pub(super) fn pack_options<'a>(fields: impl IntoIterator<Item = Option<&'a [u8]>>) -> Vec<u8> {
    let (mut body, mut count) = (Vec::new(), 0u16);
    for field in fields {
        count += 1;
        match field {
            None => body.push(NIL),
            Some(bytes) => {
                // No field comes near four gigabytes: whatever people choose is bounded.
                let len = bytes.len() as u32;
                match len {
                    0..=31 => body.push(FIX_TEXT | len as u8),
                    32..=0xff => body.extend([TEXT_8, len as u8]),
                    0x100..=0xffff => {
                        body.push(TEXT_16);
                        body.extend((len as u16).to_be_bytes());
                    }
                    _ => {
                        body.push(TEXT_32);
                        body.extend(len.to_be_bytes());
                    }
                }
                body.extend(bytes);
            }
        }
    }
    let mut packed = match count {
        0..=15 => vec![FIX_ARRAY | count as u8],
        _ => [&[ARRAY_16][..], &count.to_be_bytes()].concat(),
    };
    packed.append(&mut body);
    packed
}

impl<'a> Fields<'a> {
    /// Begins to read an array.
    pub(super) fn of(packed: &'a [u8]) -> Result<Self, StoreError> {
        match packed {
            [head, rest @ ..] if head & 0xf0 == FIX_ARRAY => {
                Ok(Self { rest, left: usize::from(head & 0x0f) })
            }
            [ARRAY_16, high, low, rest @ ..] => {
                Ok(Self { rest, left: usize::from(u16::from_be_bytes([*high, *low])) })
            }
            _ => Err(damaged()),
        }
    }

    /// The next field, which may be nil.
    pub(super) fn option(&mut self) -> Result<Option<&'a [u8]>, StoreError> {
        self.left = self.left.checked_sub(1).ok_or_else(damaged)?;
        let head = self.take(1)?[0];
        let len = match head {
            NIL => return Ok(None),
            _ if head & 0xe0 == FIX_TEXT => usize::from(head & 0x1f),
            TEXT_8 => self.number(1)?,
            TEXT_16 => self.number(2)?,
            TEXT_32 => self.number(4)?,
            _ => return Err(damaged()),
        };
        self.take(len).map(Some)
    }

    /// The next field, which is there.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], StoreError> {
        self.option()?.ok_or_else(damaged)
    }

    fn number(&mut self, bytes: usize) -> Result<usize, StoreError> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or_else(damaged)?;
        self.rest = rest;
        Ok(taken)
    }
}

pub(super) fn damaged() -> StoreError {
    StoreError::corrupt("a record in Redis is not what this version writes")
}

const NIL: u8 = 0xc0;
const FIX_ARRAY: u8 = 0x90;
const ARRAY_16: u8 = 0xdc;
const FIX_TEXT: u8 = 0xa0;
const TEXT_8: u8 = 0xd9;
const TEXT_16: u8 = 0xda;
const TEXT_32: u8 = 0xdb;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let texts = [0, 1, 31, 32, 255, 256, 65_535, 65_536].map(|len| vec![0xff; len]);
        for count in [1, 15, 16, 40] {
            let texts = texts.iter().cycle().take(count - 1).cloned();
            let fields: Vec<_> = texts.map(Some).chain([None]).collect();
            let packed = pack_options(fields.iter().map(Option::as_deref));
            let mut read = Fields::of(&packed).unwrap();
            for field in &fields {
                assert_eq!(read.option().unwrap(), field.as_deref());
            }
            assert!(read.option().is_err(), "there are no more");
        }
    }

    #[test]
    fn what_is_cut_off_is_damaged() {
        let packed = pack([&b"abc"[..], &[7; 40]]);
        for len in 0..packed.len() {
            let read = |packed| {
                let mut fields = Fields::of(packed)?;
                fields.bytes()?;
                fields.bytes().map(drop)
            };
            assert!(read(&packed[..len]).is_err(), "{len} bytes of {}", packed.len());
        }
    }
}
