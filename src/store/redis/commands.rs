use std::sync::Arc;

use redis::{Cmd, Value};
use tokio::time::Instant;

use super::{
    connection::{CommandOutcome, Connection, PrimaryConnection, time_left},
    errors::{RedisFailure, ServerError, TooFewReplicas, needs_other_server},
    msgpack::damaged_record,
    scripts::{RedisKeys, Script},
};
use crate::store::StoreError;

/// Arguments of a script.
pub(super) type Arguments<'a> = &'a [&'a [u8]];

/// The Redis keys of a store, and the connection to the server that holds them.
pub(super) struct RedisDatabase {
    pub(super) keys: Arc<RedisKeys>,
    pub(super) primary: Arc<PrimaryConnection>,
    pub(super) replicas: u32,
}

impl RedisDatabase {
    /// Runs a script that writes nothing.
    pub(super) async fn read(
        &self,
        script: &Script,
        arguments: Arguments<'_>,
    ) -> Result<Reply, StoreError> {
        let deadline = self.primary.deadline();
        self.run(script, arguments, deadline).await.map_err(RedisFailure::of_read)
    }

    /// Runs a script that writes. If replicas must confirm changes, waits for them when
    /// `has_changed` accepts the script's reply.
    pub(super) async fn write(
        &self,
        script: &Script,
        arguments: Arguments<'_>,
        has_changed: impl FnOnce(&Reply) -> bool,
    ) -> Result<Reply, StoreError> {
        let deadline = self.primary.deadline();
        if self.replicas == 0 {
            return self.run(script, arguments, deadline).await.map_err(RedisFailure::of_change);
        }
        for _ in 1..MAX_ATTEMPTS {
            let lease = self.primary.exclusive(deadline).await.map_err(RedisFailure::of_change)?;
            let reply = self.run_on(lease.connection(), script, arguments, deadline).await;
            if let Some(reply) = reply.map_err(RedisFailure::of_change)? {
                if has_changed(&reply) {
                    self.wait_for_replicas(lease.connection(), deadline).await?;
                }
                lease.give_back();
                return Ok(reply);
            }
        }
        Err(too_many_redirects().of_change())
    }

    /// Runs one command that writes nothing.
    pub(super) async fn read_command(&self, command: &Cmd) -> Result<Reply, StoreError> {
        let deadline = self.primary.deadline();
        for _ in 1..MAX_ATTEMPTS {
            let connection = self.primary.shared(deadline).await.map_err(RedisFailure::of_read)?;
            let outcome = connection.send(command, deadline).await;
            let reply = self.reply(&connection, outcome).map_err(RedisFailure::of_read)?;
            if let Some(reply) = reply {
                return Ok(reply);
            }
        }
        Err(too_many_redirects().of_read())
    }

    /// Whether changes wait for replicas, as an argument of a script.
    pub(super) fn waits_for_replicas(&self) -> &'static [u8] {
        if self.replicas > 0 { b"1" } else { b"0" }
    }

    async fn run(
        &self,
        script: &Script,
        arguments: Arguments<'_>,
        deadline: Instant,
    ) -> Result<Reply, RedisFailure> {
        for _ in 1..MAX_ATTEMPTS {
            let connection = self.primary.shared(deadline).await?;
            if let Some(reply) = self.run_on(&connection, script, arguments, deadline).await? {
                return Ok(reply);
            }
        }
        Err(too_many_redirects())
    }

    /// Runs a script on one connection. `None` means that the server redirected the call and did not
    /// run the script.
    async fn run_on(
        &self,
        connection: &Connection,
        script: &Script,
        arguments: Arguments<'_>,
        deadline: Instant,
    ) -> Result<Option<Reply>, RedisFailure> {
        let outcome = script.run(connection, &self.keys.0, arguments, deadline).await;
        self.reply(connection, outcome)
    }

    /// Interprets the outcome of a command. `None` means that the server redirected the call.
    fn reply(
        &self,
        connection: &Connection,
        outcome: CommandOutcome,
    ) -> Result<Option<Reply>, RedisFailure> {
        let error = match outcome {
            CommandOutcome::Answered(answer) => return Ok(Some(Reply(answer))),
            CommandOutcome::Lost(error) => return Err(RedisFailure::Lost(error)),
            CommandOutcome::Rejected(error) => error,
        };
        if needs_other_server(&error) {
            if let Some((address, _)) = error.redirect_node() {
                self.primary.redirect(connection, address);
                return Ok(None);
            }
            self.primary.abandon(connection);
        }
        Err(RedisFailure::of_answer(error).at(&connection.server))
    }

    /// Waits until enough replicas have received the writes of this connection. If they do not, the
    /// change is still made on the primary.
    async fn wait_for_replicas(
        &self,
        connection: &Connection,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        // The server must answer before this side times out.
        let limit = (time_left(deadline) * 9 / 10).as_millis().max(1) as u64;
        let required = self.replicas;
        let mut wait = redis::cmd("WAIT");
        wait.arg(required).arg(limit);
        let error = match connection.send(&wait, deadline).await {
            CommandOutcome::Answered(Value::Int(confirmed)) if confirmed >= i64::from(required) => {
                return Ok(());
            }
            CommandOutcome::Answered(Value::Int(confirmed)) => {
                ServerError::boxed(&connection.server, TooFewReplicas { confirmed, required })
            }
            CommandOutcome::Answered(_) => {
                ServerError::boxed(&connection.server, "WAIT did not return a number")
            }
            CommandOutcome::Rejected(error) => ServerError::boxed(&connection.server, error),
            CommandOutcome::Lost(error) => error,
        };
        Err(StoreError::unconfirmed(error))
    }
}

fn too_many_redirects() -> RedisFailure {
    RedisFailure::NotRun("the store moves between the nodes of the Redis cluster".into())
}

/// How many servers one call tries, following redirections.
const MAX_ATTEMPTS: usize = 4;

/// A reply of the server.
#[derive(Debug)]
pub(super) struct Reply(pub(super) Value);

impl Reply {
    pub(super) fn is_nil(&self) -> bool {
        matches!(self.0, Value::Nil)
    }

    pub(super) fn is(&self, text: &str) -> bool {
        self.bytes().is_ok_and(|bytes| bytes == text.as_bytes())
    }

    /// Whether this is a list that begins with the given text.
    pub(super) fn starts_with(&self, text: &str) -> bool {
        let Value::Array(values) = &self.0 else { return false };
        matches!(values.first(), Some(Value::BulkString(first)) if first == text.as_bytes())
    }

    pub(super) fn bytes(&self) -> Result<&[u8], StoreError> {
        match &self.0 {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.as_bytes()),
            _ => Err(damaged_record()),
        }
    }

    pub(super) fn number(&self) -> Result<u32, StoreError> {
        match self.0 {
            Value::Int(number) => u32::try_from(number).map_err(|_| damaged_record()),
            _ => Err(damaged_record()),
        }
    }

    /// Reads a number that is stored as decimal text.
    pub(super) fn digits(&self) -> Result<u64, StoreError> {
        let digits = std::str::from_utf8(self.bytes()?).map_err(StoreError::corrupt)?;
        digits.parse().map_err(StoreError::corrupt)
    }

    pub(super) fn list(self) -> Result<Vec<Reply>, StoreError> {
        match self.0 {
            Value::Array(values) => Ok(values.into_iter().map(Reply).collect()),
            _ => Err(damaged_record()),
        }
    }
}

/// Reads a list of alternating identifiers and records.
pub(super) fn pairs(list: &[Reply]) -> impl Iterator<Item = Result<(&[u8], &[u8]), StoreError>> {
    list.chunks(2).map(|pair| match pair {
        [id, record] => Ok((id.bytes()?, record.bytes()?)),
        _ => Err(damaged_record()),
    })
}

/// The error for a reply that no script returns.
pub(super) fn unexpected_reply(reply: &Reply) -> StoreError {
    StoreError::corrupt(format!("unexpected reply of a Redis script: {:?}", reply.0))
}
