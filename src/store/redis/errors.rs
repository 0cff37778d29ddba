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
            ErrorKind::Extension if error.code() == Some("WRONGTYPE") => {
                Self::Corrupt(error.into())
            }
            // Whatever it is: commands before it were run.
            _ if is_of_a_line(&error) => Self::Lost(error.into()),
            // A record that Lua cannot read, or a proxy in between that has something to say.
            ErrorKind::Server(ServerErrorKind::ResponseError) => Self::Lost(error.into()),
            ErrorKind::Server(_) => Self::NotRun(error.into()),
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

/// Whether a script was being run, and came upon the error in one of its lines.
fn is_of_a_line(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains(", on @user_script:"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreErrorKind::{self, OutcomeUnknown, Unavailable};

    /// What is told of a change that a server answers with this.
    fn told(answer: &str) -> StoreErrorKind {
        let answer = redis::parse_redis_value(format!("-{answer}\r\n").as_bytes()).unwrap();
        Failure::of_answer(answer.extract_error().unwrap_err()).of_change().kind()
    }

    #[test]
    fn what_a_server_refuses_as_a_whole_was_not_run() {
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
            assert_eq!(told(answer), Unavailable, "{answer}");
        }
    }

    #[test]
    fn what_a_script_came_upon_on_its_way_may_be_done_in_part() {
        for answer in [
            "NOPERM ACL failure in script: User default has no permissions to access the \
             '{keyward}changes' channel script: 0d13edc64a, on @user_script:113.",
            "ERR The user executing the script can't publish to the channel mentioned in the \
             command script: 0d13edc64a, on @user_script:113.",
            "UNHEARDOF of until now script: 0d13edc64a, on @user_script:9.",
        ] {
            assert_eq!(told(answer), OutcomeUnknown, "{answer}");
        }
    }
}
