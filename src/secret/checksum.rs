use std::sync::LazyLock;

use crc32fast::Hasher;

use crate::secret::alphabet::BASE62;

/// What ends a secret, so that a typing error is noticed without a look-up.
///
/// A checksum is not a protection: anyone can compute it. It catches typos and truncation offline,
/// and lets a scanner tell a leaked key from a text that merely looks like one.
///
/// Exhaustive on purpose: the scanners of the world know only these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// The secret ends with its body.
    None,
    /// Six base62 characters of CRC-32 over everything before them.
    Crc32,
}

impl Checksum {
    pub(crate) const fn len(self) -> usize {
        match self {
            Self::None => 0,
            Self::Crc32 => CRC32_CHARACTERS,
        }
    }

    /// Whether `sum` is what this checksum makes of `text`, which begins as `begun` was told.
    #[inline]
    pub(crate) fn matches(self, begun: Begun, text: &[u8], sum: &[u8]) -> bool {
        match self {
            Self::None => sum.is_empty(),
            Self::Crc32 => {
                let whole = crc32_of(&text[begun.len..]) ^ begun.sum;
                number(sum) == Some(u64::from(whole))
            }
        }
    }

    pub(crate) fn append_to(self, text: &mut String) {
        if self == Self::Crc32 {
            for character in crc32(text.as_bytes()) {
                text.push(char::from(character));
            }
        }
    }
}

/// The part of a sum that is the same for all texts which begin alike and are equally long.
///
/// A CRC is linear: what the beginning adds to the sum of the rest depends on nothing else. As much
/// counts as beginning as leaves whole sixteens, which a processor sums up at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    len: usize,
    sum: u32,
}

impl Begun {
    /// For texts that begin with `lead`, and have so many bytes before the checksum.
    pub(crate) fn with(lead: &str, text_len: usize) -> Self {
        let len = text_len % 16;
        let len = if len <= lead.len() { len } else { 0 };
        let mut text = vec![0; text_len];
        let of_rest = crc32_of(&text[len..]);
        text[..len].copy_from_slice(&lead.as_bytes()[..len]);
        Self { len, sum: crc32_of(&text) ^ of_rest }
    }
}

/// 62^6 exceeds 2^32, so six characters hold any CRC-32.
const CRC32_CHARACTERS: usize = 6;

/// The number that these characters write: reading it takes half as long as writing the right one,
/// because no step of it waits for the one before.
#[inline]
fn number(sum: &[u8]) -> Option<u64> {
    let sum: &[u8; CRC32_CHARACTERS] = sum.try_into().ok()?;
    let [a, b, c, d, e, f] = sum.map(|character| DIGITS[usize::from(character)]);
    Some(a * 62u64.pow(5) + b * 62u64.pow(4) + c * 62u64.pow(3) + d * 62u64.pow(2) + e * 62 + f)
}

#[inline]
fn crc32_of(text: &[u8]) -> u32 {
    // To find out what the processor can do costs a third of the sum.
    static DETECTED: LazyLock<Hasher> = LazyLock::new(Hasher::new);
    let mut hasher = DETECTED.clone();
    hasher.update(text);
    hasher.finalize()
}

fn crc32(text: &[u8]) -> [u8; CRC32_CHARACTERS] {
    let mut rest = crc32_of(text);
    let mut characters = [0; CRC32_CHARACTERS];
    for character in characters.iter_mut().rev() {
        *character = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    characters
}

/// What each base62 character stands for; any other, for more than a CRC-32 ever is.
static DIGITS: [u64; 256] = {
    let mut digits = [1 << 33; 256];
    let mut digit = 0;
    while digit < 62 {
        digits[BASE62[digit] as usize] = digit as u64;
        digit += 1;
    }
    digits
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_that_of_the_whole_text_whatever_it_begins_with() {
        let word = "lnos_live_0123456789abcdefghijklmnopq_";
        for lead in (0..=word.len()).map(|len| &word[..len]) {
            for len in lead.len()..lead.len() + 40 {
                let mut text: Vec<u8> = lead.bytes().chain(b'A'..).take(len).collect();
                let (begun, sum) = (Begun::with(lead, len), crc32(&text));
                assert!(Checksum::Crc32.matches(begun, &text, &sum), "{lead} {len}");
                for place in lead.len()..len {
                    text[place] ^= 1;
                    assert!(!Checksum::Crc32.matches(begun, &text, &sum), "{lead} {len} {place}");
                    text[place] ^= 1;
                }
            }
        }
    }

    #[test]
    fn what_is_no_base62_carries_over_into_no_sum() {
        for text in [b"lc_10", b"lc_15"] {
            let right = crc32(text);
            let wanted = number(&right);
            for (p, q) in (0..5).flat_map(|p| (p + 1..6).map(move |q| (p, q))) {
                for (x, y) in (0..=u8::MAX).flat_map(|x| (0..=u8::MAX).map(move |y| (x, y))) {
                    let mut sum = right;
                    (sum[p], sum[q]) = (x, y);
                    assert_eq!(number(&sum) == wanted, sum == right, "{sum:?}");
                }
            }
        }
    }
}
