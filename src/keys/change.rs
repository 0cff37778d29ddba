use std::{panic::resume_unwind, sync::Arc};

use super::{Error, ErrorKind, Inner};
use crate::audit::{AuditEvent, AuditSink};

/// What a change did: its answer, and the events that the store wrote with it.
pub(super) struct Done<T> {
    pub(super) answer: T,
    pub(super) events: Vec<AuditEvent>,
}

impl<T> Done<T> {
    /// It was done, and this was written.
    pub(super) fn written(answer: T, event: AuditEvent) -> Self {
        Self { answer, events: vec![event] }
    }

    /// It was not done, or there was nothing to do.
    pub(super) fn nothing(answer: T) -> Self {
        Self { answer, events: Vec::new() }
    }
}

impl Inner {
    /// The one way of every change: write it, then tell the sinks.
    ///
    /// It runs as a task of its own, so that a caller who goes away cannot come between a change
    /// and what has to follow it.
    pub(super) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        write: impl Future<Output = Result<Done<T>, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.clone();
        let task = tokio::spawn(async move {
            let done = write.await?;
            inner.tell(&done.events);
            Ok(done.answer)
        });
        task.await.unwrap_or_else(|failed| match failed.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => {
                let message = "the runtime was shut down during a change; look before trying again";
                Err(Error::new(ErrorKind::OutcomeUnknown, message))
            }
        })
    }

    pub(super) fn tell(&self, events: &[AuditEvent]) {
        for event in events {
            self.sinks.event(event);
        }
    }
}
