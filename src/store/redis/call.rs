use redis::{Cmd, ServerErrorKind, Value};
use tokio::time::Instant;

use super::{
    Inner,
    errors::{Failure, TooFew, is},
    line::{Line, Sent},
    link::{is_elsewhere, left},
    reply::Reply,
    scripts::Script,
};
use crate::store::StoreError;

/// Arguments of a script. The first of a change is the tag of its entries in the change feed.
pub(super) type Arguments<'a> = &'a [&'a [u8]];

impl Inner {
    /// Runs a script that writes nothing.
    pub(super) async fn read(
        &self,
        script: &Script,
        arguments: Arguments<'_>,
    ) -> Result<Reply, StoreError> {
        let deadline = self.link.deadline();
        self.run(script, arguments, deadline).await.map_err(Failure::of_read)
    }

    /// Runs a script that writes, and waits for replicas if it has to and `wrote` says that the
    /// answer is one of a change.
    pub(super) async fn change(
        &self,
        script: &Script,
        arguments: Arguments<'_>,
        wrote: impl FnOnce(&Reply) -> bool,
    ) -> Result<Reply, StoreError> {
        let deadline = self.link.deadline();
        if self.replicas == 0 {
            return self.run(script, arguments, deadline).await.map_err(Failure::of_change);
        }
        for _ in 1..ATTEMPTS {
            let own = self.link.own_line(deadline).await.map_err(Failure::of_change)?;
            match self.run_on(own.line(), script, arguments, deadline).await {
                Ok(Some(answer)) => {
                    if wrote(&answer) {
                        self.confirm(own.line(), deadline).await?;
                    }
                    own.give_back();
                    return Ok(answer);
                }
                Ok(None) => {}
                Err(failure) => return Err(failure.of_change()),
            }
        }
        Err(astray().of_change())
    }

    /// Runs one command that writes nothing.
    pub(super) async fn look(&self, command: &Cmd) -> Result<Reply, StoreError> {
        let deadline = self.link.deadline();
        for _ in 1..ATTEMPTS {
            let line = self.link.line(deadline).await.map_err(Failure::of_read)?;
            let sent = line.send(command, deadline).await;
            if let Some(answer) = self.heard(&line, sent).map_err(Failure::of_read)? {
                return Ok(answer);
            }
        }
        Err(astray().of_read())
    }

    async fn run(
        &self,
        script: &Script,
        arguments: Arguments<'_>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        for _ in 1..ATTEMPTS {
            let line = self.link.line(deadline).await?;
            if let Some(answer) = self.run_on(&line, script, arguments, deadline).await? {
                return Ok(answer);
            }
        }
        Err(astray())
    }

    /// Runs a script on one connection; `None` if it has to be run elsewhere, and was not here.
    async fn run_on(
        &self,
        line: &Line,
        script: &Script,
        arguments: Arguments<'_>,
        deadline: Instant,
    ) -> Result<Option<Reply>, Failure> {
        let command = script.by_hash(&self.names, arguments.iter().copied());
        let mut sent = line.send(&command, deadline).await;
        if let Sent::Refused(error) = &sent
            && is(error, ServerErrorKind::NoScript)
        {
            let command = script.by_text(&self.names, arguments.iter().copied());
            sent = line.send(&command, deadline).await;
        }
        self.heard(line, sent)
    }

    /// What a connection answered; `None` if it has to be asked elsewhere.
    fn heard(&self, line: &Line, sent: Sent) -> Result<Option<Reply>, Failure> {
        match sent {
            Sent::Answer(answer) => Ok(Some(Reply(answer))),
            Sent::Refused(error) if is_elsewhere(&error) => {
                let Some((address, _)) = error.redirect_node() else {
                    self.link.demoted(line);
                    return Err(Failure::of_answer(error));
                };
                self.link.moved(line, address);
                Ok(None)
            }
            Sent::Refused(error) => Err(Failure::of_answer(error)),
            Sent::Lost(source) => Err(Failure::Lost(source)),
        }
    }

    /// Waits until enough replicas have what was written on this connection. It is made here
    /// already, whatever comes.
    async fn confirm(&self, line: &Line, deadline: Instant) -> Result<(), StoreError> {
        // The server is to answer before this side gives up.
        let patience = (left(deadline) * 9 / 10).as_millis().max(1) as u64;
        let mut wait = redis::cmd("WAIT");
        wait.arg(self.replicas).arg(patience);
        match line.send(&wait, deadline).await {
            Sent::Answer(Value::Int(have)) if have >= i64::from(self.replicas) => Ok(()),
            Sent::Answer(Value::Int(have)) => {
                Err(StoreError::unconfirmed(TooFew { have, want: self.replicas }))
            }
            Sent::Answer(_) => Err(StoreError::unconfirmed("WAIT answered with no number")),
            Sent::Refused(error) => Err(StoreError::unconfirmed(error)),
            Sent::Lost(source) => Err(StoreError::unconfirmed(source)),
        }
    }
}

fn astray() -> Failure {
    Failure::NotRun("the store moves from node to node of the cluster".into())
}

/// How often a change of address is followed within one call.
const ATTEMPTS: usize = 4;
