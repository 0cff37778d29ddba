use std::{error::Error as StdError, sync::Arc};

/// A failure of the store. The operation was neither granted nor refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .kind.describe())]
pub struct StoreError {
    kind: StoreErrorKind,
    #[source]
    source: Arc<dyn StdError + Send + Sync>,
}

/// How a store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store cannot be reached or cannot serve now. Nothing was changed; a retry is safe.
    Unavailable,
    /// The store returned data that is not valid.
    Corrupt,
    /// A change was sent and its answer was lost. It may have happened: read before retrying.
    OutcomeUnknown,
    /// The change was made, but fewer replicas than required confirmed it, so a failover could lose
    /// it. A revocation is safe to repeat; each repetition is confirmed or unconfirmed again.
    Unconfirmed,
}

impl StoreError {
    /// Creates an error for a store that cannot serve now. Nothing was changed.
    pub fn unavailable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::Unavailable, source: source.into().into() }
    }

    /// Creates an error for stored data that is not valid.
    pub fn corrupt(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::Corrupt, source: source.into().into() }
    }

    /// Creates an error for a change that may have happened.
    pub fn outcome_unknown(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::OutcomeUnknown, source: source.into().into() }
    }

    /// Creates an error for a change that fewer replicas than required confirmed.
    pub fn unconfirmed(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::Unconfirmed, source: source.into().into() }
    }

    /// Returns how the store failed.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl StoreErrorKind {
    fn describe(self) -> &'static str {
        match self {
            Self::Unavailable => "the key store is unavailable; nothing was changed",
            Self::Corrupt => "the key store returned invalid data",
            Self::OutcomeUnknown => {
                "the key store did not confirm a change; read the key before retrying"
            }
            Self::Unconfirmed => "the key store made a change, but too few replicas confirmed it",
        }
    }
}

/// A server did not answer in time.
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
#[derive(Debug, thiserror::Error)]
#[error("{0} did not answer within {1:?}")]
pub(crate) struct TimedOut(pub(crate) &'static str, pub(crate) std::time::Duration);
