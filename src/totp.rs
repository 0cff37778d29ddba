//! Codes of authenticator apps as a second factor: six digits that change every 30 seconds (TOTP, RFC 6238).
//!
//! The host generates a [`TotpSecret`] for an account and stores it. [`Totp::setup`] shows it to the user once, as a QR
//! code and as text; the first code that [`Totp::check`] accepts proves that the app has it. `check` returns the time
//! for [`Actor::second_factor_at`]; a [`StepUp`](crate::accounts::StepUp) policy may require a recent one.
//!
//! # What the host must do
//! - Store [`TotpSecret::expose`] with the account, **encrypted** under a key that is kept elsewhere. The
//!   secret is needed to check codes, so it cannot be hashed.
//! - Treat a secret as active only after its first accepted code, and keep the previous one until then.
//! - Require a recent second factor before a secret is replaced or removed. Otherwise a stolen session is enough to do so.
//! - Provide a recovery method for users who lost their device.
//!
//! # Security of six-digit codes
//! - A code is accepted during its own 30 seconds and during the 30 seconds before and after, to tolerate
//!   clock drift. Three of a million codes are valid at a time.
//! - An account has [5](Totp::check) wrong codes per 15 minutes and 20 per day. They are counted in the store,
//!   exactly, for all nodes and any number of concurrent requests. An attacker who uses all of them every day
//!   has a chance of 6 in 100,000 per day, or 1 in 2 after 31 years. Correct codes are not counted.
//! - When the limit is reached, no code is checked until the 15 minutes or the day (UTC) ends. An attacker
//!   needs a session of the account to lock its owner out in this way, and it is visible in the audit log.
//! - A code is accepted once, on one node. Codes older than an accepted one are rejected.
//!
//! A remaining limitation: a phishing page can use a code within seconds. Passkeys do not have this weakness.

use std::{fmt::Write as _, time::Duration};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use qrcodegen::{QrCode, QrCodeEcc};
use zeroize::Zeroizing;

use crate::{
    api::ApiKeys,
    audit::EventKind,
    enroll::parse_code,
    error::Error,
    model::{Actor, DAY, Invalid, Owner, Period, Timestamp, one_line},
    secret::{Hasher as _, Secret, SecretDigest, Sha256Hasher},
    store::{ChargeOutcome, CounterCharge, CounterKey},
    system::{EntropyError, fill_random},
    verify::seconds_to_wait,
};

/// Sets up authenticator apps and checks their codes. Cheap to clone.
///
/// # Examples
/// ```
/// use keyward::{Actor, Owner, totp::{Totp, TotpError, TotpSecret}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keys = keyward::testing::TestKeys::new().keys;
/// let totp = Totp::new(keys, "Lumio");
/// let (ada, by) = (Owner::account_only("ada")?, Actor::account("ada@example.com"));
///
/// // Ada enables a second factor. Store `secret.expose()`, encrypted, as not yet active.
/// let secret = TotpSecret::generate()?;
/// let setup = totp.setup(&secret, "ada@example.com");
/// assert!(setup.uri().expose().starts_with("otpauth://totp/Lumio:ada%40example.com?secret="));
/// let page = format!("<p>Scan this:</p>{}", setup.qr_svg().expose());
///
/// // The first code of the app activates the secret; each later code confirms Ada's identity.
/// # let typed = "no code";
/// let status = match totp.check(&ada, &secret, typed, &by).await {
///     Ok(confirmed_at) => {
///         let confirmed = by.second_factor_at(confirmed_at); // store this time in the session
///         200
///     }
///     Err(TotpError::WrongCode | TotpError::UsedCode) => 400,
///     Err(TotpError::TooManyAttempts(_wait)) => 429,
///     Err(TotpError::Failed(_)) => 503,
/// };
/// assert_eq!(status, 400);
/// # let _ = page;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Totp {
    keys: ApiKeys,
    issuer: String,
}

/// The reason why a code was not accepted.
///
/// Exhaustive on purpose: each variant needs a different HTTP status.
#[derive(Debug, thiserror::Error)]
pub enum TotpError {
    /// The code is not valid now. Respond with 400.
    #[error("the code is wrong: check the app, and that the clock of the device is right")]
    WrongCode,
    /// This code, or a later one, was accepted before. Respond with 400.
    #[error("the code was already used: wait for the next one")]
    UsedCode,
    /// The account has no attempts left. Contains the time until it has. Respond with 429 and `Retry-After`.
    #[error("too many wrong codes: try again in {} s", seconds_to_wait(*.0))]
    TooManyAttempts(Duration),
    /// The store failed or has no counters, so the code was not checked. Respond with 503.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Totp {
    /// Uses the store, the clock and the audit log of `keys`. Apps show `issuer` next to the codes.
    pub fn new(keys: ApiKeys, issuer: &str) -> Self {
        Self { keys, issuer: one_line(issuer).into_owned() }
    }

    /// Returns the URI and QR code with which the user adds a secret to an app. Apps show `account` next to
    /// the codes. Special characters in `issuer` and `account` are escaped.
    pub fn setup(&self, secret: &TotpSecret, account: &str) -> TotpSetup {
        let issuer = escape(&self.issuer, MAX_ISSUER_LEN);
        let account = escape(account, MAX_ACCOUNT_LEN);
        let (label, parameter) = match issuer.as_str() {
            "" => (String::new(), String::new()),
            issuer => (format!("{issuer}:"), format!("&issuer={issuer}")),
        };
        let (begin, end) = ("otpauth://totp/", "&algorithm=SHA1&digits=6&period=30");
        // `concat` allocates once: a string that grows would leave unzeroed copies of the secret in memory.
        let uri = [begin, &label, &account, "?secret=", secret.expose(), &parameter, end].concat();
        TotpSetup { uri: Secret::from(uri) }
    }

    /// Accepts a current code once, and returns the time for [`Actor::second_factor_at`]. Ignores spaces and `-`. The
    /// host MUST have authenticated `by` as `owner` by other means: this is only the second factor.
    ///
    /// # Errors
    /// Any [`TotpError`]. A wrong code uses up one of 5 attempts per 15 minutes and 20 per day, unless the text
    /// is not six digits. When no attempts are left, correct codes are rejected, too.
    pub async fn check(
        &self,
        owner: &Owner,
        secret: &TotpSecret,
        code: &str,
        by: &Actor,
    ) -> Result<Timestamp, TotpError> {
        let now = self.keys.checked_now().await?;
        let refuse = |reason, error| {
            self.keys.note_refused_factor(reason, owner, by);
            Err(error)
        };
        // A typing error that cannot be a code is not a guess, and uses up no attempt.
        let Some(code) = parse_code(code) else {
            return refuse("malformed_code", TotpError::WrongCode);
        };
        let codes = secret.codes();
        let step = codes.check(code.expose(), now.as_unix_micros() as u64 / 1_000_000);
        let step = step.map(|step| Timestamp::from_unix_micros((step * STEP_MICROS) as i64));
        let store = self.keys.counters("TOTP needs: use another store")?;
        let counters = CodeCounters::new(owner, codes.secret().as_bytes(), now);
        let outcome = store.charge(&counters.charges(step)).await.map_err(Error::from)?;
        match (outcome, step) {
            (ChargeOutcome::Granted(_), Some(_)) => {
                // Best effort: the code is used up, so it must not be rejected any more.
                let _ = self.keys.note_code(EventKind::SecondFactorAccepted, owner, by);
                Ok(now)
            }
            (ChargeOutcome::Granted(_), None) => refuse("wrong_code", TotpError::WrongCode),
            (ChargeOutcome::Exhausted(used), _) => match counters.wait(&used) {
                Some(wait) => refuse("too_many_tries", TotpError::TooManyAttempts(wait)),
                None => refuse("used_code", TotpError::UsedCode),
            },
        }
    }
}

/// The counters that limit wrong codes and reject used ones.
struct CodeCounters {
    attempts: SecretDigest,
    step: SecretDigest,
    now: Timestamp,
}

impl CodeCounters {
    /// Counts attempts per account, for all of its secrets, and used codes per secret, under a digest of all its bits.
    fn new(owner: &Owner, secret: &[u8], now: Timestamp) -> Self {
        let owner = CounterKey::Owner(owner).to_bytes();
        let attempts = Sha256Hasher.digest(&[b"totp tries of ".as_slice(), &owner].concat());
        let step =
            Sha256Hasher.digest(&Zeroizing::new([b"totp step of ".as_slice(), secret].concat()));
        Self { attempts, step, now }
    }

    /// Returns the charge for a code: one attempt if it is wrong, its time step if it is correct. All three
    /// counters are charged atomically, so a correct code is rejected, too, when no attempts are left.
    ///
    /// A time step is a period with a limit of one use. A store never returns to an earlier period, so an accepted step
    /// also rejects all steps before it.
    fn charges(&self, correct_step: Option<Timestamp>) -> [CounterCharge<'_>; 3] {
        let (wrong, correct) = if correct_step.is_none() { (1, 0) } else { (0, 1) };
        let [quarter_hour, day] = ATTEMPT_LIMITS.map(|(length, period, limit)| CounterCharge {
            counter_key: CounterKey::Anonymous(&self.attempts),
            period,
            window: self.now.rounded_down_to(length),
            latest_window: self.now.after(length),
            // A correct code uses no attempt, but is accepted only while there is one left.
            limit: limit - correct,
            uses: wrong,
        });
        let step = CounterCharge {
            counter_key: CounterKey::Anonymous(&self.step),
            period: Period::Ever,
            // A wrong code charges the earliest period, which never advances the counter.
            window: correct_step.unwrap_or(Timestamp::MIN),
            // Much later than an authenticator may be ahead, so that no used code is accepted again.
            latest_window: self.now.after(DAY),
            limit: 1,
            uses: correct,
        };
        [quarter_hour, day, step]
    }

    /// Returns the time until the account has attempts again, or `None` if it has some now.
    fn wait(&self, used: &[u64]) -> Option<Duration> {
        let counters = ATTEMPT_LIMITS.iter().zip(used);
        let exhausted = counters.filter(|((_, _, limit), used)| *used >= limit);
        exhausted.map(|((length, ..), _)| self.now.until_next(*length)).max()
    }
}

/// The secret that an authenticator app and the service share.
///
/// Like [`Secret`], it is redacted in `Debug`, has no `Display`, `Serialize` or `PartialEq`, and is zeroed on drop.
///
/// # Examples
/// ```
/// # use keyward::totp::TotpSecret;
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

    /// Parses a stored or imported secret: base32 in upper or lower case, with optional padding and spaces.
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
        if !(16..=64).contains(&secret.as_bytes().len()) {
            return Err(Invalid::new("TOTP secret", "must encode 16 to 64 bytes"));
        }
        Ok(Self::from_secret(&secret))
    }

    /// Returns the secret in base32, to store or type in. Review each call: it is where the secret could leak.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    fn from_secret(secret: &totp_rs::Secret) -> Self {
        Self(Secret::from(secret.to_base32()))
    }

    /// SHA-1, six digits, 30 seconds, which all apps support. Accepts one step before and after.
    fn codes(&self) -> totp_rs::Totp {
        let secret = totp_rs::Secret::try_from_base32(self.expose());
        let secret = secret.expect("`from_secret`, the only constructor, writes base32");
        totp_rs::Builder::new().with_secret(secret).build_noncompliant()
    }
}

/// The URI and QR code that add a secret to an app. Show them once, on a page sent with `Cache-Control: no-store`.
#[derive(Clone, Debug)]
#[must_use = "the user needs the QR code or the URI"]
pub struct TotpSetup {
    uri: Secret,
}

impl TotpSetup {
    /// Returns the URI, which is a link on phones: `otpauth://totp/Lumio:ada?secret=…`. Truncates long names.
    pub fn uri(&self) -> &Secret {
        &self.uri
    }

    /// Returns the URI as a QR code: an SVG element to embed in an HTML page unchanged. It contains no
    /// untrusted text, and is always black on white, as scanners require.
    pub fn qr_svg(&self) -> Secret {
        let code = QrCode::encode_text(self.uri.expose(), QrCodeEcc::Low);
        let code =
            code.expect("names are truncated so that the URI fits the 2,953 bytes of a QR code");
        let size = code.size() + 2 * BORDER;
        // Allocates once, as in `from_base32`: each dark module takes at most 16 bytes.
        let mut svg = String::with_capacity(300 + (code.size() * code.size()) as usize * 16);
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" role="img" shape-rendering="crispEdges"><rect width="{size}" height="{size}" fill="#fff"/><path fill="#000" d=""##
        );
        for y in 0..code.size() {
            for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
                let _ = write!(svg, "M{},{}h1v1h-1z", x + BORDER, y + BORDER);
            }
        }
        svg.push_str(r#""/></svg>"#);
        Secret::from(svg)
    }
}

/// Percent-encodes a name for any part of a URI, and truncates the result to `max_len` bytes.
fn escape(text: &str, max_len: usize) -> String {
    let mut escaped = String::new();
    for character in one_line(text.trim()).chars() {
        let mut bytes = [0; 4];
        let encoded = utf8_percent_encode(character.encode_utf8(&mut bytes), &RESERVED).to_string();
        if escaped.len() + encoded.len() > max_len {
            break;
        }
        escaped.push_str(&encoded);
    }
    escaped
}

/// Length and maximum number of wrong codes. The period only keeps the counters apart in the store.
const ATTEMPT_LIMITS: [(Duration, Period, u64); 2] =
    [(Duration::from_secs(900), Period::Ever, 5), (Duration::from_secs(86_400), Period::Day, 20)];
const STEP_MICROS: u64 = 30_000_000;
/// All characters except those that RFC 3986 calls unreserved.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Maximum lengths in bytes, percent-encoded. The URI contains the issuer twice.
const MAX_ISSUER_LEN: usize = 300;
const MAX_ACCOUNT_LEN: usize = 900;
/// The width of the white border that scanners need, in modules.
const BORDER: i32 = 4;

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
}
