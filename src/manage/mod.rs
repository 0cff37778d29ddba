//! Issues, changes, lists, removes and reminds of keys.

mod change;
mod codes;
mod export;
mod issue;
mod janitor;
mod leaked;
#[allow(clippy::module_inception, reason = "until the room is rebuilt")]
mod manage;
mod note;
mod purge;
mod read;
mod remind;
mod rotate;
mod sanction;

pub(crate) use change::{Done, Touches};
pub use export::AuditExport;
pub use issue::{Issued, NewKey};
pub use leaked::Identified;
pub use manage::KeyChange;
pub use purge::{Purged, Retention};
pub use read::{KeyPage, Page};
pub use remind::{DuePage, Reminder, Reminders};
pub use rotate::Rotation;
