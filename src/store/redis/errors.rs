use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::StoreError;

pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// A call that did not get an answer that it can use.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not run: it was not sent, or the server refused it as a whole.
    NotRun(Source),
    /// It was sent, and nobody knows more.
    Lost(Source),
    /// What is stored is not what a store writes.
    Corrupt(Source),
}

impl Failure {
    /// What a server that answered with an error has done of a script.
    pub(super) fn of_answer(error: RedisError) -> Self {
        match error.kind() {
            // A record that Lua cannot read, or a proxy in between that has something to say.
            ErrorKind::Server(ServerErrorKind::ResponseError) => Self::Lost(error.into()),
            ErrorKind::Server(_) => Self::NotRun(error.into()),
            ErrorKind::Extension if error.code() == Some("WRONGTYPE") => {
                Self::Corrupt(error.into())
            }
            // Scripts say of themselves what they need, so that OOM, MISCONF, NOREPLICAS and others
            // like them come before the first line is run.
            ErrorKind::Extension => Self::NotRun(error.into()),
            _ => Self::Lost(error.into()),
        }
    }

    /// What is to be told of a call that changes nothing.
    pub(super) fn of_read(self) -> StoreError {
        match self {
            Self::NotRun(source) | Self::Lost(source) => StoreError::unavailable(source),
            Self::Corrupt(source) => StoreError::corrupt(source),
        }
    }

    /// What is to be told of a change.
    pub(super) fn of_change(self) -> StoreError {
        match self {
            Self::NotRun(source) => StoreError::unavailable(source),
            Self::Lost(source) => StoreError::outcome_unknown(source),
            Self::Corrupt(source) => StoreError::corrupt(source),
        }
    }
}

/// Whether an error is an answer of the server, after which its connection is as good as before.
pub(super) fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

pub(crate) fn is(error: &RedisError, kind: ServerErrorKind) -> bool {
    error.kind() == ErrorKind::Server(kind)
}

#[derive(Debug, thiserror::Error)]
#[error("{have} of {want} replicas have confirmed the change")]
pub(super) struct TooFew {
    pub(super) have: i64,
    pub(super) want: u32,
}
