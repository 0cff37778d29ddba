use totp_rs::Builder;
use zeroize::Zeroizing;

use crate::{
    model::Invalid,
    secret::Secret,
    system::{EntropyError, random},
};

/// What an authenticator app and the service share. Shown once by [`Totp::setup`](super::Totp::setup),
/// and stored by the host, encrypted.
///
/// As a [`Secret`] it has no `Display`, `Serialize` or `PartialEq`, `Debug` shows nothing of it, and the
/// memory is wiped when it is dropped.
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
#[must_use = "a secret that is not stored is of no use"]
pub struct TotpSecret(Secret);

impl TotpSecret {
    /// 160 bits from the operating system's generator, as RFC 4226 recommends.
    ///
    /// # Errors
    /// If the generator fails: there is no weaker fallback.
    pub fn generate() -> Result<Self, EntropyError> {
        Self::generate_from(random::fill)
    }

    /// Private: a generator supplied from outside could be seeded, cloned or shared.
    fn generate_from(
        fill: fn(&mut [u8]) -> Result<(), EntropyError>,
    ) -> Result<Self, EntropyError> {
        let mut random = Zeroizing::new([0; 20]);
        fill(random.as_mut_slice())?;
        Ok(Self::of(&totp_rs::Secret::new_stack(*random)))
    }

    /// Reads back what [`expose`](TotpSecret::expose) gave, or a secret of another system: base32, in
    /// either case, with or without padding and spaces.
    ///
    /// # Errors
    /// If it is no base32, or not of 16 to 64 bytes: fewer can be guessed.
    pub fn from_base32(text: &str) -> Result<Self, Invalid> {
        // The full capacity at once: a growing string would leave parts of the secret behind.
        let mut plain = Zeroizing::new(String::with_capacity(text.len()));
        let digits = text.chars().filter(|c| !c.is_whitespace() && *c != '=');
        plain.extend(digits.map(|c| c.to_ascii_uppercase()));
        let secret = totp_rs::Secret::try_from_base32(plain.as_str())
            .map_err(|_| Invalid::new("TOTP secret", "it is not base32"))?;
        if !(MIN_LEN..=MAX_LEN).contains(&secret.as_bytes().len()) {
            return Err(Invalid::new("TOTP secret", "it is not 16 to 64 bytes"));
        }
        Ok(Self::of(&secret))
    }

    /// The secret in base32, as it is stored and as people type it who cannot scan a picture. Every
    /// call is a place to look at when a secret must not leak.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    fn of(secret: &totp_rs::Secret) -> Self {
        Self(Secret::from(secret.to_base32()))
    }

    /// What makes codes as all apps do: SHA-1, six digits, 30 seconds, one step before and after.
    pub(super) fn codes(&self) -> totp_rs::Totp {
        let secret = totp_rs::Secret::try_from_base32(self.expose());
        let secret = secret.expect("it was written as base32 in `of`, the one place that makes it");
        Builder::new().with_secret(secret).build_noncompliant()
    }
}

const MIN_LEN: usize = 16;
const MAX_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_generator_is_an_error_and_never_a_weak_secret() {
        let error = TotpSecret::generate_from(random::fail).unwrap_err();
        assert!(error.to_string().contains("random generator failed"));
    }

    #[test]
    fn all_160_bits_come_from_the_generator() {
        let ones = |random: &mut [u8]| {
            random.fill(0xff);
            Ok(())
        };
        assert_eq!(TotpSecret::generate_from(ones).unwrap().expose(), "7".repeat(32));
    }

    /// Appendix B of RFC 6238, of whose eight digits the apps show the last six.
    #[test]
    fn codes_are_those_of_rfc_6238() {
        let secret = totp_rs::Secret::new_stack(*b"12345678901234567890");
        let codes = TotpSecret::of(&secret).codes();
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
