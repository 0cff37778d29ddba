//! The format of secrets, and what a store keeps of them.
//!
//! - [`KeyFormat`] describes a product's secrets: prefix, random body, checksum. It is validated once, when it is
//!   built. [`Formats`] is the current format together with older ones that are still accepted.
//! - [`Secret`] is the text that a client presents. [`Parsed`] is a presented text with a valid form.
//! - A store keeps only a `SecretDigest`, tagged with the `Hasher` that made it (feature `server`).

mod checksum;
mod format;
mod parse;

#[cfg(feature = "server")]
mod hashers;

use zeroize::Zeroizing;

#[cfg(feature = "server")]
pub use self::hashers::{
    Candidates, Hasher, HasherTag, Hashers, HmacSha256Hasher, ImportHashError, Pepper, PepperError,
    SecretDigest, Sha256Hasher, Sha512Hasher,
};
pub use self::{
    checksum::{Alphabet, Checksum},
    format::{FormatError, GithubPattern, KeyFormat, KeyFormatBuilder, ScannerRules},
    parse::{Formats, Malformed, Parsed},
};
use crate::system::{EntropyError, fill_random};

/// The text that a client presents. It is shown once and never stored.
///
/// It implements neither `Display` nor `Serialize` nor `PartialEq`, its `Debug` output is redacted, and
/// its memory is wiped when it is dropped. [`expose`](Secret::expose) is the only access to the text.
#[derive(Clone)]
#[must_use = "a secret cannot be shown again"]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Returns the text. Review every call when checking that no secret leaks.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

impl KeyFormat {
    /// Generates a new secret from the operating system's random generator.
    ///
    /// # Errors
    /// If the generator fails: there is no weaker fallback.
    pub fn generate(&self) -> Result<Secret, EntropyError> {
        self.generate_from(fill_random)
    }

    /// Private: a generator supplied by the caller could be seeded, cloned or shared.
    fn generate_from(
        &self,
        fill: fn(&mut [u8]) -> Result<(), EntropyError>,
    ) -> Result<Secret, EntropyError> {
        // Allocated once: a string that grows would leave copies of the secret in freed memory.
        let mut text = String::with_capacity(self.total_len());
        text.push_str(self.secret_prefix());
        let end = text.len() + self.body_len;
        // Bytes beyond the alphabet are rejected. A modulus would make some characters more likely than others.
        let characters = self.alphabet.characters();
        let mask = characters.len().next_power_of_two() - 1;
        let mut random = Zeroizing::new([0u8; 64]);
        while text.len() < end {
            fill(random.as_mut_slice())?;
            let drawn = random.iter().filter_map(|&byte| characters.get(usize::from(byte) & mask));
            let missing = end - text.len();
            text.extend(drawn.take(missing).map(|&character| char::from(character)));
        }
        self.checksum.append_to(&mut text);
        Ok(Secret::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::fail_random;

    #[test]
    fn a_failing_generator_is_an_error_and_never_a_weak_key() {
        let format = KeyFormat::builder("lc").build().unwrap();
        let error = format.generate_from(fail_random).unwrap_err();
        assert!(error.to_string().contains("random generator failed"));
    }
}
