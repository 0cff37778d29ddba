use std::sync::Arc;

use super::manager::Manager;
use crate::{
    audit::{AuditEvent, AuditSink},
    error::Error,
    model::{KeyId, Owner},
    verify::{Cache, run_to_end},
};

/// The result of a write: the answer to the caller, and the events that the store wrote with it.
pub(super) struct Written<T> {
    pub(super) answer: T,
    pub(super) events: Vec<AuditEvent>,
}

/// What a change may affect in the cache.
pub(super) enum Affected {
    /// Digests that no key had.
    UnknownDigests,
    Key(KeyId),
    /// All keys of an owner.
    Owner(Owner),
}

impl<T> Written<T> {
    /// The change was written, with this event.
    pub(super) fn with_event(answer: T, event: AuditEvent) -> Self {
        Self { answer, events: vec![event] }
    }

    /// Nothing was written.
    pub(super) fn nothing(answer: T) -> Self {
        Self { answer, events: Vec::new() }
    }
}

impl Manager {
    /// Makes a change: writes it, invalidates this node's cache, then notifies the sinks.
    ///
    /// What is affected is invalidated before and after the write, whatever the outcome: also if the answer was lost, if
    /// the write panics, or if the runtime is shut down. So this node stops trusting its cache before the change is
    /// acknowledged. Keys that the events name are invalidated as well.
    ///
    /// Once begun, it runs to its end, also if the caller is dropped. If the outcome is unknown, no sink is notified.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        affected: Affected,
        write: impl Future<Output = Result<Written<T>, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (cache, sinks) = (self.cache.clone(), self.sinks.clone());
        run_to_end(async move {
            let invalidation = Invalidation { cache: &cache, affected };
            invalidation.apply();
            let written = write.await;
            drop(invalidation);
            let Written { answer, events } = written?;
            for id in events.iter().filter_map(|event| event.key_id) {
                cache.invalidate_key(id);
            }
            events.iter().for_each(|event| sinks.event(event));
            Ok(answer)
        })
        .await
    }

    /// Writes an event that belongs to no change, then notifies the sinks.
    pub(super) async fn write_event(&self, event: AuditEvent) -> Result<(), Error> {
        let (store, sinks): (Arc<_>, _) = (self.store.clone(), self.sinks.clone());
        run_to_end(async move {
            let events = [event];
            store.record_events(&events).await?;
            events.iter().for_each(|event| sinks.event(event));
            Ok(())
        })
        .await
    }
}

/// Invalidates once more when it is dropped: at the end of a change, however it ends.
struct Invalidation<'a> {
    cache: &'a Cache,
    affected: Affected,
}

impl Invalidation<'_> {
    fn apply(&self) {
        match &self.affected {
            Affected::UnknownDigests => self.cache.invalidate_unknown(),
            Affected::Key(id) => self.cache.invalidate_key(*id),
            Affected::Owner(owner) => self.cache.invalidate_owner(owner),
        }
    }
}

impl Drop for Invalidation<'_> {
    fn drop(&mut self) {
        self.apply();
    }
}
