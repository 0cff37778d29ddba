use std::sync::Arc;

use sqlx::{
    Error,
    postgres::{PgDatabaseError, PgSeverity},
};

pub(super) use crate::store::sql::SqlFailure;
use crate::store::{StoreError, sql::is_undecodable};

/// Turns the failure of a step that committed nothing into an error of the store. Except for a value that cannot be decoded, the server does not
/// serve now.
pub(super) fn before_commit(failure: SqlFailure, server: &Arc<str>) -> StoreError {
    let error = match failure {
        SqlFailure::Store(error) => return error,
        SqlFailure::Database(error) => error,
    };
    let is_corrupt = is_undecodable(&error);
    let error = ServerError::new(server, error);
    if is_corrupt { StoreError::corrupt(error) } else { StoreError::unavailable(error) }
}

/// Classifies an error of a commit. A commit that the server answered with an error did not happen.
/// A commit without an answer may have happened; a pooler reports a lost answer as an error that
/// ends the connection.
pub(super) fn at_commit(server: &Arc<str>, error: Error) -> StoreError {
    let was_answered = matches!(error, Error::Database(_)) && !ends_connection(&error);
    let error = ServerError::new(server, error);
    if was_answered { StoreError::unavailable(error) } else { StoreError::outcome_unknown(error) }
}

/// Whether an error ends the connection, and is not the answer to a statement.
pub(super) fn ends_connection(error: &Error) -> bool {
    match error {
        Error::Io(_) => true,
        Error::Database(error) => error
            .try_downcast_ref::<PgDatabaseError>()
            .is_none_or(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)),
        _ => false,
    }
}

/// An error, with the address of the server that it concerns.
#[derive(Debug, thiserror::Error)]
#[error("a request to PostgreSQL at {server} failed")]
pub(super) struct ServerError {
    server: Arc<str>,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl ServerError {
    pub(super) fn new(
        server: &Arc<str>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { server: server.clone(), source: source.into() }
    }
}
