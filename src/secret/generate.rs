use zeroize::Zeroizing;

use crate::secret::secret::Secret;
use crate::secret::{alphabet::Alphabet, format::KeyFormat};
use crate::system::{EntropyError, random};

impl KeyFormat {
    /// Makes a new secret of this format from the operating system's random generator.
    ///
    /// # Errors
    /// If the generator fails: there is no weaker fallback.
    ///
    /// # Examples
    /// ```
    /// let format = keyward::secret::KeyFormat::builder("lc").build()?;
    /// let secret = format.generate()?;
    /// assert!(secret.expose().starts_with("lc_"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generate(&self) -> Result<Secret, EntropyError> {
        self.generate_from(random::fill)
    }

    /// Private: a generator supplied from outside could be seeded, cloned or shared.
    fn generate_from(
        &self,
        fill: fn(&mut [u8]) -> Result<(), EntropyError>,
    ) -> Result<Secret, EntropyError> {
        // The full capacity at once: a growing string would leave parts of the secret behind.
        let mut text = String::with_capacity(self.total_len());
        text.push_str(self.lead());
        let end = text.len() + self.body_len();
        let mut random = Zeroizing::new([0u8; 64]);
        while text.len() < end {
            fill(random.as_mut_slice())?;
            let wanted = end - text.len();
            for character in unbiased(self.alphabet(), random.as_slice()).take(wanted) {
                text.push(character);
            }
        }
        self.checksum().append_to(&mut text);
        Ok(Secret::from(text))
    }
}

/// Rejection instead of a modulus: every character stays equally likely.
fn unbiased(alphabet: Alphabet, random: &[u8]) -> impl Iterator<Item = char> + '_ {
    let characters = alphabet.characters();
    random
        .iter()
        .filter_map(move |byte| characters.get(usize::from(byte & alphabet.mask())))
        .map(|&character| char::from(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_generator_is_an_error_and_never_a_weak_key() {
        let format = KeyFormat::builder("lc").build().unwrap();
        let error = format.generate_from(random::fail).unwrap_err();
        assert!(error.to_string().contains("random generator failed"));
    }

    #[test]
    fn every_character_is_equally_likely() {
        for alphabet in [Alphabet::Base62, Alphabet::Hex, Alphabet::Base64Url] {
            let all: Vec<u8> = (0..=255).collect();
            let mut counts = std::collections::BTreeMap::new();
            for character in unbiased(alphabet, &all) {
                *counts.entry(character).or_insert(0) += 1;
            }
            assert_eq!(counts.len(), alphabet.characters().len());
            let first = counts.values().next().unwrap();
            assert!(counts.values().all(|count| count == first), "{alphabet:?}: {counts:?}");
        }
    }
}
