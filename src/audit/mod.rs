//! Who did what, when and from where: stored with the change itself, and told to sinks afterwards.

mod event;
mod export;
mod query;
mod sink;
#[cfg(feature = "tracing")]
mod tracing;

pub use event::{AuditEvent, EventKind, Outcome};
pub use export::ExportFormat;
pub use query::AuditQuery;
pub use sink::{AuditSink, Fanout};
#[cfg(feature = "tracing")]
pub use tracing::TracingSink;
