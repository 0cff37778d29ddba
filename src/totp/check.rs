use std::time::Duration;

use zeroize::Zeroizing;

use super::{TotpSecret, TotpSetup};
use crate::{
    api::ApiKeys,
    audit::EventKind,
    enroll::parse_code,
    error::Error,
    model::{Actor, Owner, Period, Timestamp, one_line},
    secret::{Hasher, SecretDigest, Sha256Hasher},
    store::{ChargeOutcome, CounterCharge, CounterKey},
    verify::whole_seconds,
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
    #[error("too many wrong codes: try again in {} s", whole_seconds(*.0).max(1))]
    TooManyAttempts(Duration),
    /// The store failed, so the code was not checked. Respond with 503.
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
        TotpSetup::new(secret, &self.issuer, account)
    }

    /// Accepts a current code, once, and returns the time for [`Actor::second_factor_at`]. The code may
    /// contain spaces and dashes.
    ///
    /// The host MUST have authenticated `by` as `owner` by other means: this is only the second factor.
    ///
    /// # Errors
    /// - [`WrongCode`](TotpError::WrongCode) for a wrong code. It uses up one of 5 attempts per 15 minutes and
    ///   20 per day, unless the text is not six digits.
    /// - [`UsedCode`](TotpError::UsedCode) if this code or a later one was accepted before.
    /// - [`TooManyAttempts`](TotpError::TooManyAttempts) if no attempts are left, whether the code is correct
    ///   or not.
    /// - [`Failed`](TotpError::Failed) if the store fails.
    pub async fn check(
        &self,
        owner: &Owner,
        secret: &TotpSecret,
        code: &str,
        by: &Actor,
    ) -> Result<Timestamp, TotpError> {
        let now = self.keys.now();
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
        let counters = CodeCounters::new(owner, codes.secret().as_bytes(), now);
        let outcome = self.keys.charge(&counters.charges(step)).await.map_err(TotpError::from)?;
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
    /// Attempts are counted per account, for all of its secrets. Used codes are counted per secret, under a
    /// digest of all of its bits, which does not reveal it.
    fn new(owner: &Owner, secret: &[u8], now: Timestamp) -> Self {
        let owner = CounterKey::Owner(owner).to_bytes();
        let attempts = Sha256Hasher.digest(&[b"totp tries of ".as_slice(), &owner].concat());
        let step =
            Sha256Hasher.digest(&Zeroizing::new([b"totp step of ".as_slice(), secret].concat()));
        Self { attempts, step, now }
    }

    /// Returns the charge for a code: one attempt if it is wrong, its time step if it is correct. All three
    /// counters are charged atomically, so a correct code is rejected when no attempts are left, in the same
    /// way as a wrong one.
    ///
    /// A time step is a period with a limit of one use. A store never returns to an earlier period, so an
    /// accepted step also rejects all steps before it.
    fn charges(&self, correct_step: Option<Timestamp>) -> [CounterCharge<'_>; 3] {
        let (wrong, correct) = if correct_step.is_none() { (1, 0) } else { (0, 1) };
        let [quarter_hour, day] = ATTEMPT_LIMITS.map(|(period, limit)| CounterCharge {
            counter_key: CounterKey::Anonymous(&self.attempts),
            period: period_key(period),
            window: self.now.rounded_down_to(period),
            // A correct code uses no attempt, but is accepted only while there is one left.
            limit: limit - correct,
            uses: wrong,
        });
        let step = CounterCharge {
            counter_key: CounterKey::Anonymous(&self.step),
            period: Period::Ever,
            // A wrong code charges the earliest period, which never advances the counter.
            window: correct_step.unwrap_or(Timestamp::MIN),
            limit: 1,
            uses: correct,
        };
        [quarter_hour, day, step]
    }

    /// Returns the time until the account has attempts again, or `None` if it has some now.
    fn wait(&self, used: &[u64]) -> Option<Duration> {
        let exhausted = ATTEMPT_LIMITS.iter().zip(used).filter(|((_, limit), used)| *used >= limit);
        exhausted.map(|((period, _), _)| self.now.until_next(*period)).max()
    }
}

/// Keeps the two attempt counters apart in the store. The window's start defines the actual period.
fn period_key(period: Duration) -> Period {
    if period == DAY { Period::Day } else { Period::Ever }
}

/// Periods, and the number of wrong codes that each allows.
const ATTEMPT_LIMITS: [(Duration, u64); 2] = [(Duration::from_secs(900), 5), (DAY, 20)];
const DAY: Duration = Duration::from_secs(86_400);
const STEP_MICROS: u64 = 30_000_000;
