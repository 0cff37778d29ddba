//! The error of every call that is not a verification.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use crate::{
    accounts::{AccountsError, StepUpError},
    model::{Invalid, Key},
    store::{StoreError, StoreErrorKind},
    system::EntropyError,
};

/// Why a key could not be issued, changed or looked at.
///
/// `Display` says what is wrong and what to do; [`kind`](Error::kind) is for code.
#[derive(Clone, Debug)]
pub struct Error(Box<Details>);

/// Apart, because whoever returns a `Result` pays for the size of its rarest case.
#[derive(Clone, Debug)]
struct Details {
    kind: ErrorKind,
    message: String,
    limit: Option<u64>,
    max_lifetime: Option<Duration>,
    max_age: Option<Duration>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kinds of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Something that was passed in cannot be.
    Invalid,
    /// There is no such key within the tenant or owner that was named.
    NotFound,
    /// The owner has as many live keys as its plan allows.
    LimitReached,
    /// The key would live longer than its owner's plan allows; see [`max_lifetime`](Error::max_lifetime).
    LifetimeTooLong,
    /// The actor, or the owner's plan, does not reach that far.
    Forbidden,
    /// The actor has to confirm this with a second factor, and do it again; nothing was changed.
    SecondFactorRequired,
    /// The owner is suspended.
    Suspended,
    /// The key is revoked or expired, and stays so.
    NotLive,
    /// The secret that was imported is known already.
    AlreadyExists,
    /// Others changed the key all the time.
    Conflict,
    /// The operating system's random generator failed.
    Entropy,
    /// The store, the host's accounts or its policy cannot serve now; nothing was changed.
    Unavailable,
    /// The store holds something that cannot be right.
    Corrupt,
    /// A change was sent and its answer lost: it may have happened. Look before trying again.
    OutcomeUnknown,
    /// The change is made, but not on as many replicas as it has to be: a failover could lose it.
    /// A revocation is safe to repeat until it is confirmed.
    Unconfirmed,
}

impl Error {
    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the plan's maximum number of active keys, for [`ErrorKind::LimitReached`].
    pub fn limit(&self) -> Option<u64> {
        self.0.limit
    }

    /// Returns the plan's maximum lifetime of a key, for [`ErrorKind::LifetimeTooLong`].
    pub fn max_lifetime(&self) -> Option<Duration> {
        self.0.max_lifetime
    }

    /// How long ago the second factor may have been checked at most, where one is required.
    pub fn max_age(&self) -> Option<Duration> {
        self.0.max_age
    }

    /// Whether trying again later can help, and nothing was changed by this time.
    pub fn is_unavailable(&self) -> bool {
        self.0.kind == ErrorKind::Unavailable
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        let (limit, max_lifetime, max_age, source) = (None, None, None, None);
        Self(Box::new(Details { kind, message, limit, max_lifetime, max_age, source }))
    }

    pub(crate) fn caused_by(mut self, source: Arc<dyn StdError + Send + Sync>) -> Self {
        self.0.source = Some(source);
        self
    }

    fn limited_by(mut self, limit: Option<u64>) -> Self {
        self.0.limit = limit;
        self
    }

    pub(crate) fn not_found() -> Self {
        Self::new(ErrorKind::NotFound, "there is no such key here")
    }

    pub(crate) fn limit_reached(max: Option<u32>) -> Self {
        let of = max.map_or_else(String::new, |max| format!(" of {max}"));
        let message =
            format!("the limit{of} active keys is reached: revoke one, or raise the plan");
        Self::new(ErrorKind::LimitReached, message).limited_by(max.map(Into::into))
    }

    pub(crate) fn lives_too_long(longest: Duration) -> Self {
        let days = longest.as_secs_f64() / 86_400.0;
        let message =
            format!("the plan allows a key to live at most {days} days: set an earlier expiry");
        let mut error = Self::new(ErrorKind::LifetimeTooLong, message);
        error.0.max_lifetime = Some(longest);
        error
    }

    pub(crate) fn beyond_reach() -> Self {
        let message = "the key would reach further than who asks for it: narrow its access, \
            limits, networks or expiry, and stay in the tenant";
        Self::new(ErrorKind::Forbidden, message)
    }

    pub(crate) fn second_factor_required(max_age: Duration) -> Self {
        let seconds = max_age.as_secs();
        let message = format!(
            "this needs a second factor that was checked within the last {seconds} seconds: \
             confirm with it, and do this again"
        );
        let mut error = Self::new(ErrorKind::SecondFactorRequired, message);
        error.0.max_age = Some(max_age);
        error
    }

    pub(crate) fn suspended() -> Self {
        let message = "the owner is suspended: nothing is issued or rotated until that ends";
        Self::new(ErrorKind::Suspended, message)
    }

    pub(crate) fn not_live(key: &Key) -> Self {
        let state = if key.revoked.is_some() { "revoked" } else { "expired" };
        Self::new(
            ErrorKind::NotLive,
            format!("the key is {state}, which is final: issue a new one"),
        )
    }

    pub(crate) fn conflict() -> Self {
        Self::new(ErrorKind::Conflict, "others change this key all the time; try again later")
    }

    pub(crate) fn limiter(source: Box<dyn StdError + Send + Sync>) -> Self {
        let message = "rates cannot be counted now; try again later";
        Self::new(ErrorKind::Unavailable, message).caused_by(source.into())
    }

    pub(crate) fn step_up(source: StepUpError) -> Self {
        let message = "the host cannot say now whether this needs a second factor; try again later";
        Self::new(ErrorKind::Unavailable, message).caused_by(source.into())
    }

    pub(crate) fn accounts(source: AccountsError) -> Self {
        let message = "the host's accounts cannot be asked now; try again later";
        Self::new(ErrorKind::Unavailable, message).caused_by(source.into())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<StoreError> for Error {
    fn from(source: StoreError) -> Self {
        let (kind, message) = match source.kind() {
            StoreErrorKind::Unavailable => {
                (ErrorKind::Unavailable, "keys cannot be served now; try again later")
            }
            StoreErrorKind::Corrupt => {
                (ErrorKind::Corrupt, "the key store needs repair: see the source of this error")
            }
            StoreErrorKind::OutcomeUnknown => (
                ErrorKind::OutcomeUnknown,
                "the change may have happened or not; look at the key before trying again",
            ),
            StoreErrorKind::Unconfirmed => (
                ErrorKind::Unconfirmed,
                "the change is made, but a failover could lose it; repeat a revocation until it is confirmed",
            ),
        };
        Self::new(kind, message).caused_by(Arc::new(source))
    }
}

impl From<EntropyError> for Error {
    fn from(source: EntropyError) -> Self {
        let message = "no key can be made now: randomness is missing";
        Self::new(ErrorKind::Entropy, message).caused_by(Arc::new(source))
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::new(ErrorKind::Invalid, invalid.to_string())
    }
}
