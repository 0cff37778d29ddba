//! Plain data: keys, owners, actors, access, limits, timestamps. No locks, no I/O, no randomness.

mod access;
mod actor;
mod key;
mod limits;
mod text;
mod timestamp;

pub use access::{Access, Networks, Permissions, Scope, Scopes};
pub use actor::Actor;
pub(crate) use actor::{Grantable, MAX_USER_AGENT_LEN};
pub use key::{EventId, Expiry, Key, KeyId, Owner, OwnerScope, RetiringSecret, Revocation, Status};
pub(crate) use limits::MAX_RATE_PERIOD_MICROS;
pub use limits::{KeyLimits, Limits, Period, Quota, Rate};
pub use text::{Invalid, Metadata, Name, one_line};
pub(crate) use text::{checked_text, needs_escape, truncated};
pub use timestamp::Timestamp;
