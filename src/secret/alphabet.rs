/// The characters that the body of a secret is drawn from.
///
/// Exhaustive on purpose: each alphabet is a power of two or is drawn by rejection, so that no
/// character is likelier than another, and a host cannot add one that breaks that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alphabet {
    /// `0-9A-Za-z`: 5.95 bits a character, and a double click selects the whole secret.
    Base62,
    /// `0-9a-f`: 4 bits a character.
    Hex,
    /// `A-Za-z0-9-_`: 6 bits a character.
    Base64Url,
}

impl Alphabet {
    pub(crate) const fn characters(self) -> &'static [u8] {
        match self {
            Self::Base62 => BASE62,
            Self::Hex => b"0123456789abcdef",
            Self::Base64Url => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
        }
    }

    /// The smallest all-ones mask that covers every index into [`Alphabet::characters`].
    pub(crate) const fn mask(self) -> u8 {
        match self {
            Self::Hex => 0x0f,
            Self::Base62 | Self::Base64Url => 0x3f,
        }
    }

    /// As it is written inside the brackets of a regular expression.
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Base62 => "0-9A-Za-z",
            Self::Hex => "0-9a-f",
            Self::Base64Url => "0-9A-Za-z_-",
        }
    }

    pub(crate) fn bits_per_character(self) -> f64 {
        (self.characters().len() as f64).log2()
    }

    #[inline]
    pub(crate) fn contains(self, byte: u8) -> bool {
        let alphanumeric = is_digit(byte) | ((byte | LOWER).wrapping_sub(b'a') < 26);
        match self {
            Self::Base62 => alphanumeric,
            Self::Hex => is_digit(byte) | (byte.wrapping_sub(b'a') < 6),
            Self::Base64Url => alphanumeric | (byte == b'-') | (byte == b'_'),
        }
    }

    /// Whether all of a text is in the alphabet.
    #[inline]
    pub(crate) fn has_all(self, text: &[u8]) -> bool {
        // One loop each, so that the compiler makes vectors of all of them.
        match self {
            Self::Base62 => all(text, |byte| Self::Base62.contains(byte)),
            Self::Hex => all_apart(text, |byte| Self::Hex.contains(byte)),
            Self::Base64Url => all_apart(text, |byte| Self::Base64Url.contains(byte)),
        }
    }
}

/// Of the rarer alphabets: inlined, the check of every other text would have to make room for them.
#[inline(never)]
fn all_apart(text: &[u8], right: impl Fn(u8) -> bool) -> bool {
    all(text, right)
}

/// Sixteen bytes at a time and without a branch for each: nearly always all of them are right. What of
/// the last sixteen is among those before, too, is looked at twice.
#[inline]
fn all(text: &[u8], right: impl Fn(u8) -> bool) -> bool {
    let (Some(first), Some(last)) = (text.first_chunk::<16>(), text.last_chunk::<16>()) else {
        return text.iter().fold(true, |all, &byte| all & right(byte));
    };
    let mut all = [true; 16];
    // Nearly all bodies are as short as this, and need no loop.
    if text.len() <= 32 {
        for ((all, &a), &b) in all.iter_mut().zip(first).zip(last) {
            *all = right(a) & right(b);
        }
        return all == [true; 16];
    }
    for chunk in text.as_chunks().0.iter().chain([last]) {
        for (all, &byte) in all.iter_mut().zip(chunk) {
            *all &= right(byte);
        }
    }
    all == [true; 16]
}

#[inline]
fn is_digit(byte: u8) -> bool {
    byte.wrapping_sub(b'0') < 10
}

/// What a small letter has that a capital has not.
const LOWER: u8 = 0x20;

pub(crate) const BASE62: &[u8; 62] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_in_an_alphabet_if_each_of_its_bytes_is_one_of_its_characters() {
        for alphabet in [Alphabet::Base62, Alphabet::Hex, Alphabet::Base64Url] {
            for byte in 0..=u8::MAX {
                let right = alphabet.characters().contains(&byte);
                assert_eq!(alphabet.contains(byte), right, "{alphabet:?} {byte}");
                for len in 1..=50 {
                    for place in 0..len {
                        let mut text = vec![b'a'; len];
                        text[place] = byte;
                        assert_eq!(alphabet.has_all(&text), right, "{alphabet:?} {byte} {len}");
                    }
                }
            }
            assert!(alphabet.has_all(b""));
        }
    }
}
