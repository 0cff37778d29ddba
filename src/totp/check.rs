use super::{TotpError, TotpSecret, TotpSetup, limits::Counts};
use crate::{
    api::ApiKeys,
    audit::EventKind,
    enroll::read_code,
    model::{Actor, Owner, Timestamp, one_line},
    store::ChargeOutcome,
};

/// Shows secrets to people and checks the codes of their apps. Cheap to clone.
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
/// // Ada wants a second factor. Store `secret.expose()`, encrypted, as not yet active.
/// let secret = TotpSecret::generate()?;
/// let setup = totp.setup(&secret, "ada@example.com");
/// assert!(setup.uri().expose().starts_with("otpauth://totp/Lumio:ada%40example.com?secret="));
/// let page = format!("<p>Scan this:</p>{}", setup.qr_svg().expose());
///
/// // The first code of her app makes it active; any later one confirms who she is.
/// # let typed = "no code";
/// let status = match totp.check(&ada, &secret, typed, &by).await {
///     Ok(confirmed_at) => {
///         let confirmed = by.second_factor_at(confirmed_at); // from now on, out of the session
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

impl Totp {
    /// With the store, the clock and the audit log of these keys; apps show `issuer` beside the codes.
    pub fn new(keys: ApiKeys, issuer: &str) -> Self {
        Self { keys, issuer: one_line(issuer).into_owned() }
    }

    /// What shows a secret to the person whose it is; apps show `account` beside the codes. Whatever
    /// these names hold, it stays a name.
    pub fn setup(&self, secret: &TotpSecret, account: &str) -> TotpSetup {
        TotpSetup::new(secret, &self.issuer, account)
    }

    /// Accepts the code of this moment, once: with spaces or a dash in it if one likes. Answers when it
    /// was, for [`Actor::second_factor_at`].
    ///
    /// The host MUST have authenticated `by` as `owner` otherwise: this is the second factor.
    ///
    /// # Errors
    /// [`WrongCode`](TotpError::WrongCode), which takes one of 5 tries in a quarter of an hour, and of 20
    /// in a day, unless it is no code at all; [`UsedCode`](TotpError::UsedCode) if this code or a later
    /// one was accepted before; [`TooManyAttempts`](TotpError::TooManyAttempts) when no tries are left, whether the code
    /// is right or not; and [`Failed`](TotpError::Failed) with what stores have to say when they fail.
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
        // A slip of the finger is no guess, and takes no try.
        let Some(code) = read_code(code) else {
            return refuse("malformed_code", TotpError::WrongCode);
        };
        let codes = secret.codes();
        let step = codes.check(code.expose(), now.as_unix_micros() as u64 / 1_000_000);
        let right = step.map(|step| Timestamp::from_unix_micros((step * STEP) as i64));
        let counts = Counts::new(owner, codes.secret().as_bytes(), now);
        let spent = self.keys.charge(&counts.charges(right)).await.map_err(TotpError::from)?;
        match (spent, right) {
            (ChargeOutcome::Granted(_), Some(_)) => {
                // It is used up, and so must not be refused any more.
                let _ = self.keys.note_code(EventKind::SecondFactorAccepted, owner, by);
                Ok(now)
            }
            (ChargeOutcome::Granted(_), None) => refuse("wrong_code", TotpError::WrongCode),
            (ChargeOutcome::Exhausted(used), _) => match counts.wait(&used) {
                Some(wait) => refuse("too_many_tries", TotpError::TooManyAttempts(wait)),
                None => refuse("used_code", TotpError::UsedCode),
            },
        }
    }
}

/// In microseconds.
const STEP: u64 = 30_000_000;
