//! The longest texts and lists of a key and an event, for the columns of a store.
//!
//! Texts are counted in characters. One character takes up to four bytes of UTF-8, and none is NUL.

/// A tenant, and an account.
pub const MAX_OWNER_CHARS: usize = 200;
/// The name of a key.
pub const MAX_NAME_CHARS: usize = 100;
/// The scopes of a key.
pub const MAX_SCOPES: usize = 200;
/// One scope. It consists of ASCII characters.
pub const MAX_SCOPE_CHARS: usize = 100;
/// The networks of a key.
pub const MAX_NETWORKS: usize = 100;
/// The pairs of a key's metadata.
pub const MAX_METADATA_PAIRS: usize = 50;
/// A key of a metadata pair.
pub const MAX_METADATA_KEY_CHARS: usize = 64;
/// A value of a metadata pair.
pub const MAX_METADATA_VALUE_CHARS: usize = 1_000;
/// The reason of an event, and of a revocation.
pub const MAX_REASON_CHARS: usize = 1_000;
/// The user agent of an event.
pub const MAX_USER_AGENT_CHARS: usize = 500;
/// The actor of an event.
pub const MAX_ACTOR_CHARS: usize = 200;
/// The uses of a quota: the largest count that is exact in every store, because Redis scripts count in `f64`.
pub const MAX_QUOTA_USES: u64 = (1 << 53) - 1;
