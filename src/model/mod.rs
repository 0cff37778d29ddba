//! Plain data: keys, owners, actors, access, limits, instants. No locks and no I/O.

mod access;
mod actor;
mod expiry;
mod id;
#[allow(clippy::module_inception, reason = "the word is the word")]
mod key;
mod limits;
mod networks;
mod owner;
mod quota;
mod text;
mod timestamp;

pub use access::{Access, Permissions, Scope, Scopes};
pub use actor::Actor;
pub(crate) use actor::MAX_USER_AGENT;
pub use expiry::Expiry;
pub use id::{EventId, KeyId};
pub use key::{Key, Retiring, Revocation, Status};
pub(crate) use limits::LONGEST_PERIOD;
pub use limits::{KeyLimits, Limits, Rate};
pub use networks::Networks;
pub use owner::{Owner, OwnerScope};
pub use quota::{Period, Quota};
pub use text::{Invalid, Metadata, Name, one_line};
pub(crate) use text::{bounded, fitted, is_harmful};
pub use timestamp::Timestamp;
