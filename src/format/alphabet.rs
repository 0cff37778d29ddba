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
        MEMBERS[byte as usize] & self.flag() != 0
    }

    const fn flag(self) -> u8 {
        match self {
            Self::Base62 => 1,
            Self::Hex => 2,
            Self::Base64Url => 4,
        }
    }
}

pub(crate) const BASE62: &[u8; 62] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// For each byte, the alphabets it belongs to: one load per character on the hot path.
static MEMBERS: [u8; 256] = {
    let alphabets = [Alphabet::Base62, Alphabet::Hex, Alphabet::Base64Url];
    let mut members = [0u8; 256];
    let mut a = 0;
    while a < alphabets.len() {
        let characters = alphabets[a].characters();
        let mut c = 0;
        while c < characters.len() {
            members[characters[c] as usize] |= alphabets[a].flag();
            c += 1;
        }
        a += 1;
    }
    members
};
