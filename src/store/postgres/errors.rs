use std::{future::Future, time::Duration};

use sqlx::Error;
use tokio::time::timeout;

use crate::store::StoreError;

/// Runs a step that changes nothing durable: whatever goes wrong, nothing was changed.
pub(super) async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, Failure>>,
) -> Result<T, StoreError> {
    match timeout(limit, step).await {
        Ok(answer) => answer.map_err(Failure::before_commit),
        Err(_) => Err(StoreError::unavailable(TimedOut(limit))),
    }
}

/// A step that failed.
pub(super) enum Failure {
    Sql(Error),
    /// What was read cannot be right.
    Corrupt(StoreError),
}

impl Failure {
    /// Decoding errors say that a table holds what it should not; all others that the server does
    /// not serve, which without a commit means that nothing was changed.
    fn before_commit(self) -> StoreError {
        match self {
            Self::Corrupt(error) => error,
            Self::Sql(error) => match error {
                Error::ColumnDecode { .. }
                | Error::Decode(_)
                | Error::ColumnNotFound(_)
                | Error::ColumnIndexOutOfBounds { .. }
                | Error::TypeNotFound { .. } => StoreError::corrupt(error),
                error => StoreError::unavailable(error),
            },
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Corrupt(error)
    }
}

/// A commit that the server answered with an error did not happen. One whose answer did not come
/// may have.
pub(super) fn at_commit(error: Error) -> StoreError {
    match error {
        Error::Database(_) => StoreError::unavailable(error),
        error => StoreError::outcome_unknown(error),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL gave no answer within {0:?}")]
pub(super) struct TimedOut(pub(super) Duration);
