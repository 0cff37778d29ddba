use std::{future::Future, time::Duration};

use sqlx::Error;
use tokio::time::timeout;

use super::connections::is_lost;
use crate::store::{StoreError, error::TimedOut};

/// Runs a step that changes nothing durable: whatever goes wrong, nothing was changed.
pub(super) async fn with_timeout<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, Failure>>,
) -> Result<T, StoreError> {
    match timeout(limit, step).await {
        Ok(answer) => answer.map_err(StoreError::from),
        Err(_) => Err(StoreError::unavailable(TimedOut("PostgreSQL", limit))),
    }
}

/// A step that failed.
pub(super) enum Failure {
    Sql(Error),
    /// What was read cannot be right.
    Corrupt(StoreError),
}

/// Before a commit. Decoding errors say that a table holds what it should not; all others that the
/// server does not serve, and nothing was changed.
impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Corrupt(error) => error,
            Failure::Sql(error) => match error {
                Error::ColumnDecode { .. }
                | Error::Decode(_)
                | Error::ColumnNotFound(_)
                | Error::ColumnIndexOutOfBounds { .. }
                | Error::TypeNotFound { .. } => Self::corrupt(error),
                error => Self::unavailable(error),
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
/// may have; a pooler says so with an error of its own, which ends the connection.
pub(super) fn at_commit(error: Error) -> StoreError {
    match error {
        Error::Database(_) if !is_lost(&error) => StoreError::unavailable(error),
        error => StoreError::outcome_unknown(error),
    }
}
