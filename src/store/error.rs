use std::{error::Error as StdError, sync::Arc};

/// The store failed. What was asked for is neither granted nor refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .kind.describe())]
pub struct StoreError {
    kind: StoreErrorKind,
    #[source]
    source: Arc<dyn StdError + Send + Sync>,
}

/// In which way a store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// It cannot be reached or cannot serve now; nothing was changed. Trying again is safe.
    Unavailable,
    /// It answered with something that cannot be right.
    Corrupt,
    /// A change was sent and its answer lost: it may have happened or not. Look before trying again.
    OutcomeUnknown,
    /// The change is made here, but not on as many replicas as it has to be: a failover could lose
    /// it. A revocation is safe to repeat; repeated, it is confirmed or unconfirmed again.
    Unconfirmed,
}

impl StoreError {
    /// The store cannot serve now, and nothing was changed.
    pub fn unavailable(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::Unavailable, source: source.into().into() }
    }

    /// What the store holds cannot be right.
    pub fn corrupt(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::Corrupt, source: source.into().into() }
    }

    /// A change may have happened or not.
    pub fn outcome_unknown(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::OutcomeUnknown, source: source.into().into() }
    }

    /// A change was made, but too few replicas have it.
    pub fn unconfirmed(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::Unconfirmed, source: source.into().into() }
    }

    /// In which way it failed.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl StoreErrorKind {
    fn describe(self) -> &'static str {
        match self {
            Self::Unavailable => "the key store is unavailable",
            Self::Corrupt => "the key store holds something that cannot be right",
            Self::OutcomeUnknown => {
                "the key store did not confirm a change, which may have happened"
            }
            Self::Unconfirmed => "the key store made a change that too few replicas have",
        }
    }
}
