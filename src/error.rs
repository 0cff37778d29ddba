//! The error of all calls except verification.

use std::{borrow::Cow, error::Error as StdError, sync::Arc, time::Duration};

use crate::{
    accounts::AccountsError,
    model::Invalid,
    store::{Capability, StoreError, StoreErrorKind},
    system::EntropyError,
};

/// Why a call failed, such as issuing, changing or listing keys.
///
/// `Display` names the cause and what to do. Code should match [`kind`](Error::kind). The text of a failure may name
/// hosts and addresses of the operator: log it, and send clients a text of your own.
#[derive(Clone, Debug)]
pub struct Error(Box<Details>);

/// Boxed, so that a `Result` stays small.
#[derive(Clone, Debug)]
struct Details {
    kind: ErrorKind,
    message: Cow<'static, str>,
    limit: Option<u64>,
    max_lifetime: Option<Duration>,
    max_age: Option<Duration>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kinds of [`Error`]. Nothing was changed, except where a kind says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is invalid.
    Invalid,
    /// The owner or tenant has no such key.
    NotFound,
    /// The owner has the maximum number of live keys; see [`limit`](Error::limit).
    LimitReached,
    /// The key would live longer than its owner's plan allows; see [`max_lifetime`](Error::max_lifetime).
    LifetimeTooLong,
    /// The key would exceed the permissions of its owner, or what the actor may grant.
    Forbidden,
    /// The change requires a recent second factor; see [`max_age`](Error::max_age). Verify one, then repeat the call.
    SecondFactorRequired,
    /// The owner is suspended.
    Suspended,
    /// The key is revoked or expired, permanently.
    NotLive,
    /// The imported secret is already stored.
    AlreadyExists,
    /// Concurrent changes of the key won every retry, for up to 5 seconds.
    Conflict,
    /// A call with the same idempotency token is in progress, or was made moments ago; see
    /// [`retry_after`](Error::retry_after). Repeat the call later.
    InProgress,
    /// The idempotency token belongs to an earlier call that cannot be repeated: that call asked for something else, or
    /// its secret has been used or is gone.
    TokenReused,
    /// The store lacks the [capability](crate::store::Capability) that the call needs. A retry fails as well.
    NotSupported,
    /// The operating system's random generator failed.
    Entropy,
    /// The store is not configured correctly. A retry fails as well.
    Configuration,
    /// The store, the host's accounts, the host's policy or the rate limiter is unavailable. A retry is safe.
    Unavailable,
    /// The store returned invalid data.
    Corrupt,
    /// A change was sent and its reply was lost: it may have been made. Read the key before retrying.
    OutcomeUnknown,
    /// The change was made, but fewer replicas than required confirmed it, so a failover could lose it. A revocation
    /// is safe to repeat until it is confirmed.
    Unconfirmed,
}

impl Error {
    /// Returns the kind.
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

    /// Returns the maximum age of the second factor, for [`ErrorKind::SecondFactorRequired`].
    pub fn max_age(&self) -> Option<Duration> {
        self.0.max_age
    }

    /// Returns how long to wait before the call is repeated, for [`ErrorKind::InProgress`], and for
    /// [`ErrorKind::Unavailable`] if the store knows, as when too many changes wait for it.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the kind is [`Unavailable`](ErrorKind::Unavailable): nothing was changed, and a later retry may succeed.
    pub fn is_unavailable(&self) -> bool {
        self.0.kind == ErrorKind::Unavailable
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Details {
            kind,
            message: message.into(),
            limit: None,
            max_lifetime: None,
            max_age: None,
            retry_after: None,
            source: None,
        }))
    }

    pub(crate) fn caused_by(mut self, source: Arc<dyn StdError + Send + Sync>) -> Self {
        self.0.source = Some(source);
        self
    }

    pub(crate) fn not_found() -> Self {
        Self::new(ErrorKind::NotFound, "no such key in this tenant or of this owner: check its id")
    }

    pub(crate) fn limit_reached(max: Option<u32>) -> Self {
        let of = max.map_or_else(String::new, |max| format!(" of {max}"));
        let message =
            format!("the limit{of} active keys is reached: revoke one, or raise the plan's limit");
        let mut error = Self::new(ErrorKind::LimitReached, message);
        error.0.limit = max.map(Into::into);
        error
    }

    pub(crate) fn lives_too_long(max: Duration) -> Self {
        let days = max.as_secs_f64() / 86_400.0;
        let message =
            format!("the plan limits the lifetime of a key to {days} days: set an earlier expiry");
        let mut error = Self::new(ErrorKind::LifetimeTooLong, message);
        error.0.max_lifetime = Some(max);
        error
    }

    pub(crate) fn second_factor_required(max_age: Duration) -> Self {
        let seconds = max_age.as_secs();
        let message = format!(
            "this change requires a second factor that was verified within the last {seconds} seconds: \
             verify one, then repeat the change"
        );
        let mut error = Self::new(ErrorKind::SecondFactorRequired, message);
        error.0.max_age = Some(max_age);
        error
    }

    pub(crate) fn conflict() -> Self {
        let message = "concurrent changes of the key won every retry: try again later";
        Self::new(ErrorKind::Conflict, message)
    }

    pub(crate) fn in_progress(wait: Duration) -> Self {
        let message = "a call with this idempotency token is in progress: try again later";
        let mut error = Self::new(ErrorKind::InProgress, message);
        error.0.retry_after = Some(wait);
        error
    }

    pub(crate) fn token_reused() -> Self {
        let message = "this idempotency token belongs to an earlier call that cannot be repeated: that call asked for \
            something else, or its secret has been used or is gone: use another token";
        Self::new(ErrorKind::TokenReused, message)
    }

    /// The store lacks a capability. `needed_by` continues the sentence after "which".
    pub(crate) fn not_supported(missing: Capability, needed_by: &str) -> Self {
        let message = format!("the key store has no {missing}, which {needed_by}");
        Self::new(ErrorKind::NotSupported, message)
    }

    pub(crate) fn no_counters() -> Self {
        Self::not_supported(
            Capability::Counters,
            "a quota of a key or of its owner's plan needs: remove the quota, or use another store",
        )
    }

    pub(crate) fn accounts(source: AccountsError) -> Self {
        Self::unavailable("the host's account lookup", source)
    }

    /// Something else than the store failed.
    pub(crate) fn unavailable(what: &str, source: Box<dyn StdError + Send + Sync>) -> Self {
        let message = format!("{what} failed: try again later");
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
        let (kind, message, advice) = match source.kind() {
            StoreErrorKind::Configuration => (
                ErrorKind::Configuration,
                "the key store is not configured correctly",
                "correct it, and restart the service",
            ),
            StoreErrorKind::Unavailable => (
                ErrorKind::Unavailable,
                "cannot use the key store",
                "nothing was changed: try again later",
            ),
            StoreErrorKind::Corrupt => {
                (ErrorKind::Corrupt, "the key store returned invalid data", "repair the store")
            }
            StoreErrorKind::OutcomeUnknown => (
                ErrorKind::OutcomeUnknown,
                "the key store did not confirm the change, which may have been made",
                "read the key before retrying",
            ),
            StoreErrorKind::Unconfirmed => (
                ErrorKind::Unconfirmed,
                "the change was made, but too few replicas confirmed it",
                "repeat a revocation until it is confirmed",
            ),
        };
        let mut error = Self::new(kind, format!("{message} ({}); {advice}", source.causes()));
        error.0.retry_after = source.retry_after();
        error
    }
}

impl From<EntropyError> for Error {
    fn from(source: EntropyError) -> Self {
        let message =
            "no secret or id can be generated: the operating system's random generator failed";
        Self::new(ErrorKind::Entropy, message).caused_by(Arc::new(source))
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::new(ErrorKind::Invalid, invalid.to_string())
    }
}
