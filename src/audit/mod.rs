//! The audit log: events with actor, time and address.
//!
//! An event is stored in the same transaction as its change, and then forwarded to the sinks.

mod event;
mod export;
mod sink;

pub use event::{AuditEvent, AuditQuery, EventKind, Outcome};
pub use export::ExportFormat;
#[cfg(feature = "tracing")]
pub use sink::TracingSink;
pub use sink::{AuditSink, Fanout};
