use totp_rs::Builder;
use zeroize::Zeroizing;

use crate::{
    model::Invalid,
    secret::Secret,
    system::{EntropyError, fill_random},
};

/// The secret that an authenticator app and the service share. [`Totp::setup`](super::Totp::setup) shows it
/// once; the host stores it, encrypted.
///
/// Like [`Secret`], it does not implement `Display`, `Serialize` or `PartialEq`, its `Debug` output is
/// redacted, and its memory is zeroed on drop.
///
/// # Examples
/// ```
/// use keyward::totp::TotpSecret;
///
/// let secret = TotpSecret::generate()?;
/// let stored = secret.expose().to_owned(); // encrypt this
/// assert_eq!(TotpSecret::from_base32(&stored)?.expose(), stored);
/// assert_eq!(format!("{secret:?}"), "TotpSecret(Secret([redacted]))");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "codes can be checked only if the secret is stored"]
pub struct TotpSecret(Secret);

impl TotpSecret {
    /// Generates a secret of 160 random bits, as RFC 4226 recommends.
    ///
    /// # Errors
    /// If the operating system's random generator fails. There is no weaker fallback.
    pub fn generate() -> Result<Self, EntropyError> {
        Self::generate_from(fill_random)
    }

    /// Private, because a generator supplied from outside could be seeded, cloned or shared.
    fn generate_from(
        fill: fn(&mut [u8]) -> Result<(), EntropyError>,
    ) -> Result<Self, EntropyError> {
        let mut random = Zeroizing::new([0; 20]);
        fill(random.as_mut_slice())?;
        Ok(Self::from_secret(&totp_rs::Secret::new_stack(*random)))
    }

    /// Parses a stored secret, or one that another system generated: base32 in upper or lower case, with
    /// optional padding and spaces.
    ///
    /// # Errors
    /// If the text is not base32, or does not encode 16 to 64 bytes. Shorter secrets could be guessed.
    pub fn from_base32(text: &str) -> Result<Self, Invalid> {
        // Allocates once: a string that grows would leave unzeroed copies of the secret in memory.
        let mut plain = Zeroizing::new(String::with_capacity(text.len()));
        let digits = text.chars().filter(|c| !c.is_whitespace() && *c != '=');
        plain.extend(digits.map(|c| c.to_ascii_uppercase()));
        let secret = totp_rs::Secret::try_from_base32(plain.as_str())
            .map_err(|_| Invalid::new("TOTP secret", "not valid base32"))?;
        if !(MIN_LEN..=MAX_LEN).contains(&secret.as_bytes().len()) {
            return Err(Invalid::new("TOTP secret", "must encode 16 to 64 bytes"));
        }
        Ok(Self::from_secret(&secret))
    }

    /// Returns the secret in base32, for storage and for users who cannot scan a QR code. Review each call:
    /// it is where the secret could leak.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    fn from_secret(secret: &totp_rs::Secret) -> Self {
        Self(Secret::from(secret.to_base32()))
    }

    /// Returns the code generator with the parameters that all apps support: SHA-1, six digits, 30 seconds.
    /// It accepts one step before and after.
    pub(super) fn codes(&self) -> totp_rs::Totp {
        let secret = totp_rs::Secret::try_from_base32(self.expose());
        let secret = secret.expect("`from_secret`, the only constructor, writes base32");
        Builder::new().with_secret(secret).build_noncompliant()
    }
}

const MIN_LEN: usize = 16;
const MAX_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::fail_random;

    #[test]
    fn a_failing_generator_is_an_error_and_never_a_weak_secret() {
        let error = TotpSecret::generate_from(fail_random).unwrap_err();
        assert!(error.to_string().contains("random generator failed"));
    }

    #[test]
    fn all_160_bits_come_from_the_random_generator() {
        let ones = |random: &mut [u8]| {
            random.fill(0xff);
            Ok(())
        };
        assert_eq!(TotpSecret::generate_from(ones).unwrap().expose(), "7".repeat(32));
    }

    /// The test vectors have eight digits. Apps show the last six.
    #[test]
    fn codes_match_the_test_vectors_of_rfc_6238_appendix_b() {
        let secret = totp_rs::Secret::new_stack(*b"12345678901234567890");
        let codes = TotpSecret::from_secret(&secret).codes();
        for (time, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(codes.generate(time).to_string(), code, "at {time}");
        }
    }
}
