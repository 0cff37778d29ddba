use std::time::Duration;

use sqlx::{Error, error::DatabaseError};
use tokio::time::timeout;

use crate::store::{StoreError, error::TimedOut};

/// Runs a step that makes nothing durable: whatever goes wrong, nothing was changed.
pub(super) async fn with_timeout<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, Failure>>,
) -> Result<T, StoreError> {
    match timeout(limit, step).await {
        Ok(answer) => answer.map_err(Failure::before_commit),
        Err(_) => Err(StoreError::unavailable(TimedOut("SQLite", limit))),
    }
}

/// A step that failed.
#[derive(Debug)]
pub(super) enum Failure {
    Sql(Error),
    /// It knows already what it means.
    Store(StoreError),
}

impl Failure {
    fn before_commit(self) -> StoreError {
        let error = match self {
            Self::Store(error) => return error,
            Self::Sql(error) => error,
        };
        match &error {
            Error::Database(database) if is_damage(&**database) => StoreError::corrupt(error),
            Error::ColumnDecode { .. }
            | Error::Decode(_)
            | Error::ColumnNotFound(_)
            | Error::ColumnIndexOutOfBounds { .. }
            | Error::TypeNotFound { .. } => StoreError::corrupt(error),
            _ => StoreError::unavailable(error),
        }
    }

    /// Whether another connection holds a lock that is in the way.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Sql(error) if is_busy(error))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A commit that found a lock in its way has not begun. Of any other failure nobody knows how much
/// of the commit is in the file already.
pub(super) fn at_commit(error: Error) -> StoreError {
    if is_busy(&error) {
        StoreError::unavailable(error)
    } else {
        StoreError::outcome_unknown(error)
    }
}

fn is_busy(error: &Error) -> bool {
    let code = error.as_database_error().and_then(primary_code);
    matches!(code, Some(SQLITE_BUSY | SQLITE_LOCKED))
}

/// Whether the file is damaged, is no database, or its tables are not those that were made.
fn is_damage(error: &dyn DatabaseError) -> bool {
    let code = primary_code(error);
    matches!(
        code,
        Some(SQLITE_ERROR | SQLITE_CORRUPT | SQLITE_CONSTRAINT | SQLITE_MISMATCH | SQLITE_NOTADB)
    )
}

/// The lowest byte of an extended result code: <https://www.sqlite.org/rescode.html>.
fn primary_code(error: &dyn DatabaseError) -> Option<u8> {
    error.code()?.parse::<u32>().ok().map(|code| code as u8)
}

const SQLITE_ERROR: u8 = 1;
const SQLITE_BUSY: u8 = 5;
const SQLITE_LOCKED: u8 = 6;
const SQLITE_CORRUPT: u8 = 11;
const SQLITE_CONSTRAINT: u8 = 19;
const SQLITE_MISMATCH: u8 = 20;
const SQLITE_NOTADB: u8 = 26;
