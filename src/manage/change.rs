use std::{panic::resume_unwind, sync::Arc};

use crate::{
    api::Inner,
    error::{Error, ErrorKind},
};
use crate::{
    audit::{AuditEvent, AuditSink},
    model::{KeyId, Owner},
};

/// What a change did: its answer, and the events that the store wrote with it.
pub(crate) struct Done<T> {
    pub(crate) answer: T,
    pub(crate) events: Vec<AuditEvent>,
}

/// What a change may touch.
pub(crate) enum Touches {
    /// Nothing that was there before.
    Nothing,
    Key(KeyId),
    /// Keys of an owner.
    Owner(Owner),
}

impl<T> Done<T> {
    /// It was done, and this was written.
    pub(crate) fn written(answer: T, event: AuditEvent) -> Self {
        Self { answer, events: vec![event] }
    }

    /// It was not done, or there was nothing to do.
    pub(crate) fn nothing(answer: T) -> Self {
        Self { answer, events: Vec::new() }
    }
}

impl Inner {
    /// The one way of every change: write it, forget what it touches, then tell the sinks.
    ///
    /// What it touches is forgotten before and after the write, whatever becomes of that: also if
    /// nobody can tell, if it panics, or if the runtime ends. So this node stops believing what it
    /// knows before anything is acknowledged. The keys that the events name are forgotten as well.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        touches: Touches,
        write: impl Future<Output = Result<Done<T>, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.clone();
        let change = async move {
            let touched = Touched { inner: &inner, touches };
            touched.forget();
            let written = write.await;
            drop(touched);
            let done = written?;
            if let Some(cache) = &inner.cache {
                done.events.iter().filter_map(|event| event.key_id).for_each(|id| {
                    cache.forget_key(id);
                });
            }
            inner.tell(&done.events);
            Ok(done.answer)
        };
        self.apart(change).await
    }

    /// Runs as a task of its own, so that a caller who goes away cannot come between a change and
    /// what has to follow it.
    pub(crate) async fn apart<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        tokio::spawn(work).await.unwrap_or_else(|failed| match failed.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => {
                let message = "the runtime was shut down during a change; look before trying again";
                Err(Error::new(ErrorKind::OutcomeUnknown, message))
            }
        })
    }

    /// Writes an event that stands for itself, and then tells the sinks.
    pub(crate) async fn log(self: &Arc<Self>, event: AuditEvent) -> Result<(), Error> {
        let (inner, events) = (self.clone(), [event]);
        let write = async move {
            inner.store.record_events(&events).await?;
            inner.tell(&events);
            Ok(())
        };
        self.apart(write).await
    }

    pub(crate) fn tell(&self, events: &[AuditEvent]) {
        for event in events {
            self.sinks.event(event);
        }
    }
}

/// What is being changed. It is forgotten once more when the change is over, in whichever way.
struct Touched<'a> {
    inner: &'a Inner,
    touches: Touches,
}

impl Touched<'_> {
    fn forget(&self) {
        let Some(cache) = &self.inner.cache else { return };
        match &self.touches {
            Touches::Nothing => cache.forget_unknown(),
            Touches::Key(id) => cache.forget_key(*id),
            Touches::Owner(owner) => cache.forget_owner(owner),
        }
    }
}

impl Drop for Touched<'_> {
    fn drop(&mut self) {
        self.forget();
    }
}
