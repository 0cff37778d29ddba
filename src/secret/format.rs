//! What a secret looks like: made from the operating system's generator, told from other text offline.
//!
//! A [`KeyFormat`] is built once and checked when built. A secret is a fixed lead (`lnos_live_`), a
//! random body of fixed length, and a checksum; parsing never splits at a separator, so a body may
//! contain any character of its alphabet.

use crate::secret::{Alphabet, Checksum};
use crate::secret::{checksum::Begun, prefix::Lead};

/// The form of a product's secrets: prefix, environment, body, checksum, hint.
///
/// # Examples
/// ```
/// use keyward::KeyFormat;
///
/// let format = KeyFormat::builder("lc").build()?;
/// let secret = format.generate()?;
/// let parsed = format.parse(secret.expose()).unwrap();
/// assert_eq!(parsed.hint().len(), "lc_".len() + 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFormat {
    pub(crate) lead: Lead,
    pub(crate) alphabet: Alphabet,
    body_len: usize,
    pub(crate) checksum: Checksum,
    pub(crate) begun: Begun,
    hint_len: usize,
}

impl KeyFormat {
    pub(crate) fn from_parts(
        lead: Lead,
        alphabet: Alphabet,
        body_len: usize,
        checksum: Checksum,
        hint_len: usize,
    ) -> Self {
        let begun = Begun::with(lead.as_str(), lead.as_str().len() + body_len);
        Self { lead, alphabet, body_len, checksum, begun, hint_len }
    }

    /// What every secret begins with: `lnos_live_`.
    pub fn lead(&self) -> &str {
        self.lead.as_str()
    }

    /// How many characters a secret has.
    pub fn total_len(&self) -> usize {
        self.lead().len() + self.body_len + self.checksum.len()
    }

    /// How many random bits a secret has; never fewer than 128.
    pub fn bits(&self) -> u32 {
        (self.body_len as f64 * self.alphabet.bits_per_character()) as u32
    }

    pub(crate) fn alphabet(&self) -> Alphabet {
        self.alphabet
    }

    pub(crate) fn body_len(&self) -> usize {
        self.body_len
    }

    pub(crate) fn checksum(&self) -> Checksum {
        self.checksum
    }

    pub(crate) fn hint_len(&self) -> usize {
        self.hint_len
    }
}

impl std::fmt::Display for KeyFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let alphabet = match self.alphabet {
            Alphabet::Base62 => "base62",
            Alphabet::Hex => "hex",
            Alphabet::Base64Url => "base64url",
        };
        write!(f, "{}{{{} {alphabet}}}", self.lead(), self.body_len)?;
        match self.checksum {
            Checksum::None => Ok(()),
            Checksum::Crc32 => f.write_str("{6 CRC-32}"),
        }
    }
}
