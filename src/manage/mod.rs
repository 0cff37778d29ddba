//! Everything that issues, changes, lists, removes or reminds of keys.
//!
//! Every change goes through `change.rs`: it is authorized first if a key can do more by it, written with its audit
//! event, and this node's cache is invalidated before and after.

mod change;
mod issue;
mod jobs;
mod manager;
mod reminders;
mod repeat;
mod update;

pub use self::{
    issue::{Issued, NewKey},
    jobs::{Purged, Retention},
    manager::{AuditExport, KeyPage, Page},
    reminders::{DuePage, Reminder, Reminders},
    update::{KeyChange, Rotation},
};
pub(crate) use self::{
    jobs::purge_while,
    manager::{Manager, Target},
    reminders::remind_while,
    update::Edit,
};
