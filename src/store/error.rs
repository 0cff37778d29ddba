use std::{error::Error as StdError, sync::Arc, time::Duration};

use crate::model::{Key, KeyId};

/// A failure of the store. The operation was neither granted nor refused.
///
/// `Display` names the kind and all causes, such as the server's address and its answer; it never has a password. For
/// operators: do not show it to clients. [`cause`](StoreError::cause) is the error of the database's library.
#[derive(Clone, Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    cause: Arc<dyn StdError + Send + Sync>,
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
    /// The store cannot be used as it is configured: its URL is malformed, say. A retry fails as well.
    Configuration,
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
    /// Creates an error for a store that is not configured correctly.
    pub fn configuration(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(StoreErrorKind::Configuration, cause)
    }

    /// Creates an error for a store that cannot serve now. Nothing was changed.
    pub fn unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(StoreErrorKind::Unavailable, cause)
    }

    /// Creates an error for stored data that is not valid.
    pub fn corrupt(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(StoreErrorKind::Corrupt, cause)
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
    pub fn outcome_unknown(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(StoreErrorKind::OutcomeUnknown, cause)
    }

    /// Creates an error for a change that fewer replicas than required confirmed.
    pub fn unconfirmed(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(StoreErrorKind::Unconfirmed, cause)
    }

    /// Sets how long a caller should wait before it tries again. Without it, the management API answers `Retry-After: 5`.
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    fn new(kind: StoreErrorKind, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, cause: cause.into().into(), page: None, retry_after: None }
    }

    /// Returns how the store failed.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Returns how long to wait before the call is repeated, if the store knows.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns the cause. Its text, and those of its own sources, are in the text of this error.
    pub fn cause(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.cause
    }

    /// Returns the texts of all causes. Some libraries repeat the text of a cause in that of its effect.
    pub(crate) fn causes(&self) -> String {
        let mut text = self.cause.to_string();
        let mut cause = self.cause.source();
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.contains(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        text
    }
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            StoreErrorKind::Configuration => "the key store is not configured correctly",
            StoreErrorKind::Unavailable => "cannot use the key store; nothing was changed",
            StoreErrorKind::Corrupt => "the key store returned invalid data",
            StoreErrorKind::OutcomeUnknown => {
                "the key store did not confirm a change; read the key before retrying"
            }
            StoreErrorKind::Unconfirmed => {
                "the key store made a change, but too few replicas confirmed it"
            }
        };
        write!(f, "{kind}: {}", self.causes())
    }
}

/// Without a source: `Display` has the causes.
impl StdError for StoreError {}

/// A server did not answer in time.
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
#[derive(Debug, thiserror::Error)]
#[error("{0} did not answer within {1:?}")]
pub(crate) struct TimedOut(pub(crate) &'static str, pub(crate) std::time::Duration);
