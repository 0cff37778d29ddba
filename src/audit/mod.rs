//! The audit log: events with actor, time and address.
//!
//! An event is stored in the same transaction as its change, and then forwarded to the sinks.

mod event;
mod export;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use self::{
    event::{AuditEvent, AuditQuery, EventKind, Outcome},
    export::ExportFormat,
};
#[cfg(feature = "tracing")]
use crate::model::one_line;

/// Receives every event after it was committed, to forward it to logs, mail or a message bus.
///
/// The stored audit log does not depend on sinks. `event` is called by the task that made the change or by the background
/// writer, never during a verification. Events of concurrent changes arrive in any order, possibly concurrently.
///
/// An implementation MUST NOT block for long: a sink that uses the network puts the event into its own queue. A panic is
/// caught, and the other sinks still receive the event.
///
/// # The end of a worker
/// `ApiKeys` own their sinks: a sink is dropped with the last clone, and the receiver of its queue then ends after the
/// last event. When the service ends, first end the servers, which have clones; then await
/// [`shutdown`](crate::api::ApiKeys::shutdown), which writes what is in memory and forwards the last events; drop the
/// last clone; and await the worker. Events that the queue had no room for, or that a killed process did not forward, are
/// in the stored log: read them with [`events`](crate::api::ApiKeys::events).
///
/// # Examples
/// A sink that sends events to a chat, with the name of the key, from a queue and a worker of its own:
/// ```
/// use keyward::{
///     Actor, AuditEvent, AuditSink, ApiKeys, KeyFormat, MemoryStore, NewKey, Owner, OwnerScope,
///     api::WeakApiKeys,
/// };
/// use tokio::sync::mpsc;
///
/// struct Chat(mpsc::Sender<AuditEvent>);
///
/// impl AuditSink for Chat {
///     fn event(&self, event: &AuditEvent) {
///         // Does not wait: if the queue is full, the event is only in the stored log.
///         let _ = self.0.try_send(event.clone());
///     }
/// }
///
/// /// Returns what was sent, when the sink is dropped.
/// async fn work(mut queue: mpsc::Receiver<AuditEvent>, keys: WeakApiKeys) -> Vec<String> {
///     let mut sent = Vec::new();
///     while let Some(event) = queue.recv().await {
///         // Not kept for longer: the keys own the sink, which would never be dropped.
///         let key = match (keys.upgrade(), event.key_id) {
///             (Some(keys), Some(id)) => keys.get(OwnerScope::Tenant(&event.tenant), id).await.ok(),
///             _ => None,
///         };
///         let name = key.map_or("a key".into(), |key| key.name.to_string());
///         sent.push(format!("{} by {}: {name}", event.kind, event.actor));
///     }
///     sent
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sender, queue) = mpsc::channel(1_000);
/// let mut worker = None;
/// let keys = ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build()?)
///     .audit_with(|keys| {
///         worker = Some(tokio::spawn(work(queue, keys)));
///         Chat(sender)
///     })
///     .build();
/// let new = NewKey::new(&Owner::new("acme", "ada")?, "ci")?;
/// let _ = keys.issue(new, &Actor::account("ada@acme.example")).await?;
///
/// // When the service ends:
/// keys.shutdown().await?;
/// drop(keys);
/// let sent = worker.unwrap().await?;
/// # assert_eq!(sent.len(), 1);
/// assert!(sent[0].starts_with("key.created by ada@acme.example"));
/// # Ok(()) }
/// ```
pub trait AuditSink: Send + Sync + 'static {
    /// Receives an event.
    fn event(&self, event: &AuditEvent);
}

/// Forwards each event to several sinks. Without sinks it does nothing.
#[derive(Default)]
pub struct Fanout {
    sinks: Vec<Box<dyn AuditSink>>,
}

impl Fanout {
    /// Adds a sink.
    #[must_use]
    pub fn and(mut self, sink: impl AuditSink) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }
}

impl AuditSink for Fanout {
    fn event(&self, event: &AuditEvent) {
        for sink in &self.sinks {
            // The change is already committed, so a panic of a sink must not reach the caller.
            let _ = catch_unwind(AssertUnwindSafe(|| sink.event(event)));
        }
    }
}

impl std::fmt::Debug for Fanout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fanout").field("sinks", &self.sinks.len()).finish()
    }
}

/// Writes each event to `tracing` with the target `keyward::audit`: successes at level `info`, refusals at
/// `warn`. Untrusted text is escaped as a single line.
#[cfg(feature = "tracing")]
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingSink;

#[cfg(feature = "tracing")]
impl AuditSink for TracingSink {
    fn event(&self, event: &AuditEvent) {
        macro_rules! emit {
            ($level:ident) => {
                tracing::$level!(
                    target: "keyward::audit",
                    event = event.kind.as_str(),
                    result = event.outcome.as_str(),
                    at = %event.at,
                    actor = %one_line(&event.actor),
                    tenant = %one_line(&event.tenant),
                    account = event.account.as_deref().map(one_line).as_deref(),
                    key_id = event.key_id.map(tracing::field::display),
                    ip = event.ip.map(tracing::field::display),
                    user_agent = event.user_agent.as_deref().map(one_line).as_deref(),
                    reason = event.reason.as_deref().map(one_line).as_deref(),
                    count = event.count,
                )
            };
        }
        match event.outcome {
            Outcome::Success => emit!(info),
            Outcome::Failure => emit!(warn),
        }
    }
}
