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
