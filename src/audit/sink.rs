use std::panic::{AssertUnwindSafe, catch_unwind};

use super::AuditEvent;

/// Receives every event after it was committed, for what goes elsewhere: logs, mail, a bus.
///
/// The stored log does not depend on it. `event` is called by the task that made the change or by
/// the background writer, never on the way of a verification; of changes that were made at the same
/// time, in either order or at once. It MUST NOT block for long: a sink that talks to a network puts
/// the event into a queue of its own. A panic is caught, and the other sinks still get the event.
pub trait AuditSink: Send + Sync + 'static {
    /// Takes notice of one event.
    fn event(&self, event: &AuditEvent);
}

/// Hands each event to several sinks. Without any, it is the sink that does nothing.
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
            // The change is committed: whatever a sink does, its caller must not see it fail.
            let _ = catch_unwind(AssertUnwindSafe(|| sink.event(event)));
        }
    }
}

impl std::fmt::Debug for Fanout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fanout").field("sinks", &self.sinks.len()).finish()
    }
}
