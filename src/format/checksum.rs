use super::alphabet::BASE62;

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

    /// Whether `sum` is what this checksum makes of `text`.
    pub(crate) fn matches(self, text: &[u8], sum: &[u8]) -> bool {
        match self {
            Self::None => sum.is_empty(),
            Self::Crc32 => crc32(text) == sum,
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

/// 62^6 exceeds 2^32, so six characters hold any CRC-32.
const CRC32_CHARACTERS: usize = 6;

fn crc32(text: &[u8]) -> [u8; CRC32_CHARACTERS] {
    let mut rest = crc32fast::hash(text);
    let mut characters = [0; CRC32_CHARACTERS];
    for character in characters.iter_mut().rev() {
        *character = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    characters
}
