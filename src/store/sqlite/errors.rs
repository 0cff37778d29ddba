use std::{path::Path, sync::Arc};

use sqlx::{Error, error::DatabaseError};

pub(super) use crate::store::sql::SqlFailure;
use crate::store::{StoreError, sql::is_undecodable};

/// Turns the failure of a step that committed nothing into an error of the store.
pub(super) fn before_commit(failure: SqlFailure, path: &Arc<Path>) -> StoreError {
    let error = match failure {
        SqlFailure::Store(error) => return error,
        SqlFailure::Database(error) => error,
    };
    let is_corrupt = is_undecodable(&error) || error.as_database_error().is_some_and(is_damage);
    let error = FileError::new(path, error);
    if is_corrupt { StoreError::corrupt(error) } else { StoreError::unavailable(error) }
}

/// Classifies an error of a commit. A commit that met a lock has not begun. After any other error,
/// the file may hold any part of the commit.
pub(super) fn at_commit(path: &Arc<Path>, error: Error) -> StoreError {
    let is_busy = is_busy(&error);
    let error = FileError::new(path, error);
    if is_busy { StoreError::unavailable(error) } else { StoreError::outcome_unknown(error) }
}

/// An error, with the file that it concerns.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the SQLite file {}", .path.display())]
pub(super) struct FileError {
    path: Arc<Path>,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl FileError {
    pub(super) fn new(
        path: &Arc<Path>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { path: path.clone(), source: source.into() }
    }
}

/// Whether another connection holds a lock that a step needs.
pub(super) fn is_busy(error: &Error) -> bool {
    let code = error.as_database_error().and_then(primary_code);
    matches!(code, Some(SQLITE_BUSY | SQLITE_LOCKED))
}

/// Whether the file is damaged or not a database, or its tables are not those of this crate.
fn is_damage(error: &dyn DatabaseError) -> bool {
    matches!(
        primary_code(error),
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
