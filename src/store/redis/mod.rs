//! The Redis store, for one server or a cluster.

mod commands;
mod connection;
mod counters;
mod errors;
mod feed;
mod keys;
mod listener;
mod lookups;
mod msgpack;
mod options;
mod records;
mod scripts;

use std::sync::Arc;

pub use self::options::RedisOptions;
use self::{commands::RedisDatabase, listener::FeedListener};
// Shared with the Redis rate limiter.
pub(crate) use self::{
    connection::{CommandOutcome, Connection, redirect_target, time_left},
    errors::{BoxError, needs_other_server},
    options::checked_prefix,
    records::owner_hash,
    scripts::Script,
};
use super::coalesced::CoalescedLookups;
pub(crate) use super::error::TimedOut;

/// Stores keys in Redis 7.0 or newer, or Valkey, on one server or on a cluster.
///
/// Every change is one script, which the server runs atomically: the key, its secrets, the audit log
/// and the change feed change together. A lookup is one round trip.
///
/// # Durability
/// Changes are as durable as the server makes them. With `appendonly yes` and `appendfsync always`,
/// acknowledged changes survive a crash, as [`KeyStore`](super::KeyStore) requires. With `appendfsync everysec`, a
/// crash may lose up to one second of acknowledged changes, including revocations. A failover may
/// lose changes that the replica had not received; [`RedisOptions::replicas`] waits for replicas. In
/// each of these cases, every process that uses the store learns from the change feed that it may
/// have missed changes, and reads its cached keys again.
///
/// A server that evicts data when its memory is full, or does not write to disk, is rejected when
/// the store connects. When the memory of a server with `noeviction` is full, no key can be issued,
/// but existing keys can be verified and revoked.
///
/// # The audit log
/// The audit log is the stream `{keyward}audit`, in the order of arrival. Other programs may read it
/// with `XREAD`, but only the retention of [`ApiKeys`](crate::api::ApiKeys) may trim it. An entry has
/// two fields: `i` is the event's id, and `e` is the event in MessagePack.
///
/// # On a cluster
/// All Redis keys of a store share one hash tag. Changes are therefore as atomic as on one server, but
/// one server of the cluster holds the whole store and does its work. To spread many tenants over the
/// servers, use several stores with different prefixes. While the store's slot moves to another
/// server, calls may fail as *unavailable*.
///
/// # Failures
/// Every call ends within the timeout (2 s by default). A call that certainly changed nothing fails
/// as *unavailable*, as does every failed read. A change that was sent but not answered fails as
/// *outcome unknown*, and is not sent again. If a server comes back without its data, this store
/// fails as *unavailable* and denies no key until the data are restored. A process that starts
/// afterwards cannot know of the loss: for it, the store is new. The store reconnects by itself.
/// Behind Sentinel, use a host name that leads to the primary: a replica is rejected.
///
/// For `rediss://`, enable one of the TLS features of the `redis` crate.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use keyward::{ApiKeys, KeyFormat, RedisStore};
///
/// let store = RedisStore::connect("redis://localhost/").await?;
/// let keys = ApiKeys::builder(store, KeyFormat::builder("lc").build()?).build();
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    database: Arc<RedisDatabase>,
    lookups: Arc<CoalescedLookups<Arc<RedisDatabase>>>,
    listener: Arc<FeedListener>,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("keys", &self.database.keys).finish_non_exhaustive()
    }
}
