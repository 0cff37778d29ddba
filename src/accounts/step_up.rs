//! Sensitive changes: those that can demand a fresh second factor of who asks for them.
//!
//! The host's policy is a [`StepUp`], the proof is in the [`Actor`], and Keyward compares the two
//! before it changes anything.

use std::time::Duration;

use async_trait::async_trait;

use crate::model::{Actor, Owner};

/// A change by which a key can do more than before. What takes away is none of them, so that nothing
/// stands in the way of who has to act quickly: revoking, disabling, deleting and narrowing a key
/// never need a second factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SensitiveChange {
    /// A key is issued, also by a code of [`enroll`](crate::enroll).
    Issue,
    /// A key of another system is taken over.
    Import,
    /// A key gets a new secret.
    Rotate,
    /// A key may do something more, come from more networks, or come more often.
    Widen,
    /// A key that was disabled is switched on again.
    Enable,
}

/// The host's policy: which sensitive changes need a second factor, and how fresh it must be.
///
/// It is asked for every [`SensitiveChange`] that [`Accounts`](crate::Accounts) and actor allow,
/// immediately before it is made, and for nothing else. The host says when the second factor was last
/// checked by [`Actor::second_factor_at`]; who has none that is fresh enough gets an error of the kind
/// [`SecondFactorRequired`](crate::error::ErrorKind::SecondFactorRequired), and nothing was changed.
///
/// An [`Actor::key`] has no second factor, nor has who presents the code of an e-mail, nor a job of the
/// service: where one is demanded, they are refused.
///
/// # Examples
/// ```
/// use std::{collections::HashSet, time::Duration};
/// use keyward::{
///     Actor, ApiKeys, ErrorKind, KeyFormat, MemoryStore, NewKey, Owner, Timestamp,
///     accounts::{SensitiveChange, StepUp, StepUpError},
/// };
///
/// /// Whoever sells something has confirmed within 15 minutes.
/// struct Sellers(HashSet<Owner>);
///
/// #[async_trait::async_trait]
/// impl StepUp for Sellers {
///     async fn max_age(
///         &self,
///         owner: &Owner,
///         _: &Actor,
///         _: SensitiveChange,
///     ) -> Result<Option<Duration>, StepUpError> {
///         Ok(self.0.contains(owner).then_some(Duration::from_secs(900)))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ada = Owner::account_only("ada")?;
/// let keys = ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lm").build()?)
///     .step_up(Sellers([ada.clone()].into()))
///     .build();
///
/// let session = Actor::account("ada@example.com");
/// let refused = keys.issue(NewKey::new(&ada, "ci")?, &session).await.unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::SecondFactorRequired);
/// assert_eq!(refused.max_age(), Some(Duration::from_secs(900)));
///
/// let confirmed = session.second_factor_at(Timestamp::from(std::time::SystemTime::now()));
/// assert!(keys.issue(NewKey::new(&ada, "ci")?, &confirmed).await.is_ok());
/// # Ok(()) }
/// ```
#[async_trait]
pub trait StepUp: Send + Sync + 'static {
    /// How long ago the second factor of `by` may have been checked at most, for a change to a key of
    /// `owner`; `None` if it needs none.
    ///
    /// An `Err` says that the host cannot tell at the moment: it makes the call *unavailable*, and
    /// neither refuses the change nor lets it pass.
    async fn max_age(
        &self,
        owner: &Owner,
        by: &Actor,
        change: SensitiveChange,
    ) -> Result<Option<Duration>, StepUpError>;
}

/// Why the host cannot say at the moment what a change needs.
pub type StepUpError = Box<dyn std::error::Error + Send + Sync>;

/// For hosts that demand no second factor.
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
