use std::time::Duration;

use async_trait::async_trait;

use crate::model::{Actor, Owner};

/// A change that creates a key or extends what a key can do.
///
/// Revoking, disabling, deleting and narrowing a key are not sensitive and never require a second factor,
/// so that an emergency is not delayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SensitiveChange {
    /// A key is issued, including by a code of [`enroll`](crate::enroll).
    Issue,
    /// A key of another system is imported.
    Import,
    /// A key gets a new secret.
    Rotate,
    /// A key gets additional permissions or networks, or higher limits.
    Widen,
    /// A disabled key is enabled.
    Enable,
}

/// The host's policy: which sensitive changes require a second factor, and how recent it must be.
///
/// It is called for every [`SensitiveChange`] that the account and the actor permit, immediately before the
/// change, and for no other call. The host passes the time of the last second factor with
/// [`Actor::second_factor_at`]. If it is missing or too old, the change is not made and the call fails with
/// [`SecondFactorRequired`](crate::error::ErrorKind::SecondFactorRequired).
///
/// An [`Actor::key`], a user with a code from an e-mail and a job of the service have no second factor, so a
/// change that requires one is refused to them.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use keyward::{
///     Actor, ApiKeys, ErrorKind, KeyFormat, MemoryStore, NewKey, Owner, Timestamp,
///     accounts::{SensitiveChange, StepUp, StepUpError},
/// };
///
/// /// Requires a second factor within 15 minutes to issue or rotate a key.
/// struct QuarterOfAnHour;
///
/// #[async_trait::async_trait]
/// impl StepUp for QuarterOfAnHour {
///     async fn max_age(
///         &self,
///         _: &Owner,
///         _: &Actor,
///         change: SensitiveChange,
///     ) -> Result<Option<Duration>, StepUpError> {
///         let required = matches!(change, SensitiveChange::Issue | SensitiveChange::Rotate);
///         Ok(required.then_some(Duration::from_secs(900)))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let format = KeyFormat::builder("lm").build()?;
/// let keys = ApiKeys::builder(MemoryStore::new(), format).step_up(QuarterOfAnHour).build();
/// let (ada, session) = (Owner::account_only("ada")?, Actor::account("ada@example.com"));
/// let refused = keys.issue(NewKey::new(&ada, "ci")?, &session).await.unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::SecondFactorRequired);
///
/// let confirmed = session.second_factor_at(Timestamp::from(std::time::SystemTime::now()));
/// assert!(keys.issue(NewKey::new(&ada, "ci")?, &confirmed).await.is_ok());
/// # Ok(()) }
/// ```
#[async_trait]
pub trait StepUp: Send + Sync + 'static {
    /// Returns the maximum age of the second factor of `by` for a change to a key of `owner`; `None` if
    /// the change requires no second factor.
    ///
    /// An `Err` means that the host cannot answer at the moment: the call then fails as *unavailable*.
    async fn max_age(
        &self,
        owner: &Owner,
        by: &Actor,
        change: SensitiveChange,
    ) -> Result<Option<Duration>, StepUpError>;
}

/// Why the host cannot answer at the moment.
pub type StepUpError = Box<dyn std::error::Error + Send + Sync>;

/// For hosts that require no second factor.
pub(crate) struct NoStepUp;

#[async_trait]
impl StepUp for NoStepUp {
    async fn max_age(
        &self,
        _: &Owner,
        _: &Actor,
        _: SensitiveChange,
    ) -> Result<Option<Duration>, StepUpError> {
        Ok(None)
    }
}
