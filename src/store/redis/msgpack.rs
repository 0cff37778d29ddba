//! Records are MessagePack arrays of strings, which Lua reads with `cmsgpack`.

use crate::store::StoreError;

/// Reads the fields of an array in their order.
pub(super) struct FieldReader<'a> {
    rest: &'a [u8],
    fields_left: usize,
}

/// Packs fields without nil.
pub(super) fn pack<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    pack_options(fields.into_iter().map(Some))
}

/// Packs fields. A missing field becomes nil.
pub(super) fn pack_options<'a>(fields: impl IntoIterator<Item = Option<&'a [u8]>>) -> Vec<u8> {
    let (mut body, mut count) = (Vec::new(), 0u16);
    for field in fields {
        count += 1;
        match field {
            None => body.push(NIL),
            Some(bytes) => {
                // Fields are far smaller than 4 GiB: all user input is bounded.
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

impl<'a> FieldReader<'a> {
    pub(super) fn new(packed: &'a [u8]) -> Result<Self, StoreError> {
        match packed {
            [head, rest @ ..] if head & 0xf0 == FIX_ARRAY => {
                Ok(Self { rest, fields_left: usize::from(head & 0x0f) })
            }
            [ARRAY_16, high, low, rest @ ..] => {
                Ok(Self { rest, fields_left: usize::from(u16::from_be_bytes([*high, *low])) })
            }
            _ => Err(damaged_record()),
        }
    }

    /// Reads the next field, which may be nil.
    pub(super) fn optional_bytes(&mut self) -> Result<Option<&'a [u8]>, StoreError> {
        self.fields_left = self.fields_left.checked_sub(1).ok_or_else(damaged_record)?;
        let head = self.take(1)?[0];
        let len = match head {
            NIL => return Ok(None),
            _ if head & 0xe0 == FIX_TEXT => usize::from(head & 0x1f),
            TEXT_8 => self.length(1)?,
            TEXT_16 => self.length(2)?,
            TEXT_32 => self.length(4)?,
            _ => return Err(damaged_record()),
        };
        self.take(len).map(Some)
    }

    /// Reads the next field, which must not be nil.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], StoreError> {
        self.optional_bytes()?.ok_or_else(damaged_record)
    }

    fn length(&mut self, bytes: usize) -> Result<usize, StoreError> {
        Ok(self.take(bytes)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or_else(damaged_record)?;
        self.rest = rest;
        Ok(taken)
    }
}

pub(super) fn damaged_record() -> StoreError {
    StoreError::corrupt("a record in Redis is damaged, or was written by a newer version")
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
    fn packed_fields_are_read_back() {
        let texts = [0, 1, 31, 32, 255, 256, 65_535, 65_536].map(|len| vec![0xff; len]);
        for count in [1, 15, 16, 40] {
            let texts = texts.iter().cycle().take(count - 1).cloned();
            let fields: Vec<_> = texts.map(Some).chain([None]).collect();
            let packed = pack_options(fields.iter().map(Option::as_deref));
            let mut read = FieldReader::new(&packed).unwrap();
            for field in &fields {
                assert_eq!(read.optional_bytes().unwrap(), field.as_deref());
            }
            assert!(read.optional_bytes().is_err(), "no field is left");
        }
    }

    #[test]
    fn a_truncated_record_is_damaged() {
        let packed = pack([&b"abc"[..], &[7; 40]]);
        for len in 0..packed.len() {
            let read = |packed| {
                let mut fields = FieldReader::new(packed)?;
                fields.bytes()?;
                fields.bytes().map(drop)
            };
            assert!(read(&packed[..len]).is_err(), "{len} bytes of {}", packed.len());
        }
    }
}
