use redis::{ConnectionInfo, ErrorKind, RedisError, ServerErrorKind};

use crate::store::StoreError;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a call did not get a usable answer.
#[derive(Debug)]
pub(super) enum RedisFailure {
    /// The command did not run: it was not sent, or the server rejected it as a whole.
    NotRun(BoxError),
    /// The command was sent, and it is unknown whether all of it ran.
    Lost(BoxError),
    /// The stored data are damaged.
    Corrupt(BoxError),
}

impl RedisFailure {
    /// Classifies an error with which a server answered a script.
    pub(super) fn of_answer(error: RedisError) -> Self {
        match error.kind() {
            // `CORRUPT` is raised by the scripts themselves, before their first write.
            ErrorKind::Extension if matches!(error.code(), Some("WRONGTYPE" | "CORRUPT")) => {
                Self::Corrupt(error.into())
            }
            // The commands before the failed line have run.
            _ if is_from_script_line(&error) => Self::Lost(error.into()),
            // An unexpected error of a script, or an answer of a proxy in between.
            ErrorKind::Server(ServerErrorKind::ResponseError) => Self::Lost(error.into()),
            ErrorKind::Server(_) => Self::NotRun(error.into()),
            // Scripts declare what they need, so OOM, MISCONF, NOREPLICAS and the like are answered
            // before the first line runs.
            ErrorKind::Extension => Self::NotRun(error.into()),
            _ => Self::Lost(error.into()),
        }
    }

    /// Adds the server's address to the error's text.
    pub(super) fn at(self, server: &ConnectionInfo) -> Self {
        match self {
            Self::NotRun(source) => Self::NotRun(ServerError::boxed(server, source)),
            Self::Lost(source) => Self::Lost(ServerError::boxed(server, source)),
            Self::Corrupt(source) => Self::Corrupt(ServerError::boxed(server, source)),
        }
    }

    /// Returns the error of a call that changes nothing.
    pub(super) fn of_read(self) -> StoreError {
        match self {
            Self::NotRun(source) | Self::Lost(source) => StoreError::unavailable(source),
            Self::Corrupt(source) => StoreError::corrupt(source),
        }
    }

    /// Returns the error of a change.
    pub(super) fn of_change(self) -> StoreError {
        match self {
            Self::NotRun(source) => StoreError::unavailable(source),
            Self::Lost(source) => StoreError::outcome_unknown(source),
            Self::Corrupt(source) => StoreError::corrupt(source),
        }
    }

    pub(super) fn into_source(self) -> BoxError {
        match self {
            Self::NotRun(source) | Self::Lost(source) | Self::Corrupt(source) => source,
        }
    }
}

/// Whether a script was running and failed in one of its lines.
fn is_from_script_line(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains(", on @user_script:"))
}

/// Whether an error is an answer of the server. The connection stays usable after it.
pub(super) fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

pub(crate) fn has_kind(error: &RedisError, kind: ServerErrorKind) -> bool {
    error.kind() == ErrorKind::Server(kind)
}

/// Whether the command must run on another node, or on another server behind the same address.
pub(crate) fn needs_other_server(error: &RedisError) -> bool {
    has_kind(error, ServerErrorKind::Moved) || has_kind(error, ServerErrorKind::ReadOnly)
}

/// An error, with the address of the server that it concerns. The address has no user and no
/// password.
#[derive(Debug, thiserror::Error)]
#[error("a request to Redis at {server} failed")]
pub(super) struct ServerError {
    server: String,
    source: BoxError,
}

impl ServerError {
    pub(super) fn boxed(server: &ConnectionInfo, source: impl Into<BoxError>) -> BoxError {
        Box::new(Self { server: server.addr().to_string(), source: source.into() })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("only {confirmed} of {required} replicas confirmed the change")]
pub(super) struct TooFewReplicas {
    pub(super) confirmed: i64,
    pub(super) required: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreErrorKind::{self, Corrupt, OutcomeUnknown, Unavailable};

    /// The kind of error of a change that a server answers with this.
    fn kind_of_change(answer: &str) -> StoreErrorKind {
        let answer = redis::parse_redis_value(format!("-{answer}\r\n").as_bytes()).unwrap();
        RedisFailure::of_answer(answer.extract_error().unwrap_err()).of_change().kind()
    }

    #[test]
    fn a_script_that_the_server_rejects_did_not_run() {
        for answer in [
            "LOADING Redis is loading the dataset in memory",
            "CLUSTERDOWN The cluster is down",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "ASK 3999 127.0.0.1:6381",
            "READONLY You can't write against a read only replica.",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "MISCONF Errors writing to the AOF file: No space left on device",
            "NOREPLICAS Not enough good replicas to write.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "NOAUTH Authentication required.",
            "NOPERM User default has no permissions to run the 'evalsha' command",
        ] {
            assert_eq!(kind_of_change(answer), Unavailable, "{answer}");
        }
    }

    #[test]
    fn a_script_that_fails_in_a_line_has_an_unknown_outcome() {
        for answer in [
            "NOPERM ACL failure in script: User default has no permissions to access the \
             '{keyward}changes' channel script: 0d13edc64a, on @user_script:113.",
            "ERR The user executing the script can't publish to the channel mentioned in the \
             command script: 0d13edc64a, on @user_script:113.",
            "UNHEARDOF of until now script: 0d13edc64a, on @user_script:9.",
        ] {
            assert_eq!(kind_of_change(answer), OutcomeUnknown, "{answer}");
        }
    }

    #[test]
    fn a_script_that_finds_damage_is_corrupt() {
        let answer = "CORRUPT a key in Redis is damaged script: 0d13edc64a, on @user_script:14.";
        assert_eq!(kind_of_change(answer), Corrupt);
    }
}
