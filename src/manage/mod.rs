//! Everything that issues, changes, lists, removes or reminds of keys.
//!
//! Every change goes through `change.rs`: it is authorized first if a key can do more by it, written with its audit
//! event, and this node's cache is invalidated before and after.

mod audit_log;
mod change;
mod issue;
mod jobs;
mod manager;
mod reminders;
mod retention;
mod rotate;
mod update;

pub use self::{
    audit_log::AuditExport,
    issue::{Issued, NewKey},
    manager::{KeyPage, Page},
    reminders::{DuePage, Reminder, Reminders},
    retention::{Purged, Retention},
    rotate::Rotation,
    update::KeyChange,
};
pub(crate) use self::{
    manager::{Manager, Target},
    reminders::remind_while,
    retention::purge_while,
    update::Edit,
};
