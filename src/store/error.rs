use std::{error::Error as StdError, sync::Arc, time::Duration};

use crate::model::{Key, KeyId};

/// A failure of the store. The operation was neither granted nor refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .kind.describe())]
pub struct StoreError {
    kind: StoreErrorKind,
    #[source]
    source: Arc<dyn StdError + Send + Sync>,
    page: Option<Arc<DamagedPage>>,
    retry_after: Option<Duration>,
}

/// A page of keys, with damaged records.
#[derive(Debug)]
struct DamagedPage {
    keys: Vec<Arc<Key>>,
    damaged: Vec<KeyId>,
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
        Self::new(StoreErrorKind::Unavailable, source.into())
    }

    /// Creates an error for stored data that is not valid.
    pub fn corrupt(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(StoreErrorKind::Corrupt, source.into())
    }

    /// Returns the page of a [`list`](super::KeyStore::list), whose records were read one by one. If some are corrupt, it
    /// is an error that has the other keys with it, so that a damaged record spoils one key and not the page.
    ///
    /// `records` has the id of each record of the page, newest first. Any other failure than *corrupt* is that of the
    /// whole page.
    ///
    /// # Errors
    /// The first error of a record.
    pub fn page(
        records: impl IntoIterator<Item = (KeyId, Result<Key, Self>)>,
    ) -> Result<Vec<Arc<Key>>, Self> {
        let (mut keys, mut damaged, mut first) = (Vec::new(), Vec::new(), None);
        for (id, record) in records {
            match record {
                Ok(key) => keys.push(Arc::new(key)),
                Err(error) if error.kind == StoreErrorKind::Corrupt => {
                    damaged.push(id);
                    first.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match first {
            None => Ok(keys),
            Some(error) => {
                Err(Self { page: Some(Arc::new(DamagedPage { keys, damaged })), ..error })
            }
        }
    }

    /// Returns what [`page`](Self::page) could read of a page, and the ids of the damaged keys.
    pub(crate) fn into_readable(self) -> Result<(Vec<Arc<Key>>, Vec<KeyId>), Self> {
        match &self.page {
            Some(page) => Ok((page.keys.clone(), page.damaged.clone())),
            None => Err(self),
        }
    }

    /// Creates an error for a change that may have happened.
    pub fn outcome_unknown(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(StoreErrorKind::OutcomeUnknown, source.into())
    }

    /// Creates an error for a change that fewer replicas than required confirmed.
    pub fn unconfirmed(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(StoreErrorKind::Unconfirmed, source.into())
    }

    /// Sets how long a caller should wait before it tries again. Without it, the management API answers `Retry-After: 5`.
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// Returns how the store failed.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Returns how long to wait before the call is repeated, if the store knows.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    fn new(kind: StoreErrorKind, source: Box<dyn StdError + Send + Sync>) -> Self {
        Self { kind, source: source.into(), page: None, retry_after: None }
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
