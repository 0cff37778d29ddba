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
mod update;

pub use self::{
    audit_log::AuditExport,
    issue::{Issued, NewKey},
    jobs::{Purged, Retention},
    manager::{KeyPage, Page},
    reminders::{DuePage, Reminder, Reminders},
    update::{KeyChange, Rotation},
};
pub(crate) use self::{
    jobs::purge_while,
    manager::{Manager, Target},
    reminders::remind_while,
    update::Edit,
};
