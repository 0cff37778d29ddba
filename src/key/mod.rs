//! Plain data: what the words of this crate mean, without any behaviour of stores or servers.

mod access;
mod actor;
mod denied;
mod expiry;
mod id;
#[allow(clippy::module_inception, reason = "the word is the word")]
mod key;
mod networks;
mod owner;
mod text;
mod timestamp;
mod verified;

pub use crate::secret::Secret;
pub use access::{Access, Permissions, Scope, Scopes};
pub use actor::Actor;
pub(crate) use actor::MAX_USER_AGENT;
pub use denied::{Denied, DeniedReason};
pub use expiry::Expiry;
pub(crate) use id::IdGenerator;
pub use id::{EventId, KeyId};
pub use key::{Key, Retiring, Revocation, Status};
pub use networks::Networks;
pub use owner::{Owner, Whose};
pub use text::{Invalid, Metadata, Name, one_line};
pub(crate) use text::{bounded, fitted, is_harmful};
pub use timestamp::Timestamp;
pub use verified::Verified;
pub(crate) use verified::{Bearer, Metered};
