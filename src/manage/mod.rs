//! Everything that issues, changes, lists, removes or reminds of keys.
//!
//! Every change goes through one function, in `change.rs`: it writes the change with its audit event, invalidates this
//! node's cache before and after, and notifies the sinks. Every change by which a key can do more is authorized in
//! `authorize_change.rs` first.

mod audit_log;
mod authorize_change;
mod change;
mod issue;
mod jobs;
mod list;
mod manager;
mod reminders;
mod retention;
mod rotate;
mod update;

pub use self::{
    audit_log::AuditExport,
    issue::{Issued, NewKey},
    list::{KeyPage, Page},
    reminders::{DuePage, Reminder, Reminders},
    retention::{Purged, Retention},
    rotate::Rotation,
    update::KeyChange,
};
pub(crate) use self::{
    jobs::Jobs,
    manager::{Manager, ManagerParts},
};
