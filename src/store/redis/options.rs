use std::{sync::Arc, time::Duration};

use redis::{ConnectionInfo, IntoConnectionInfo};

use super::{Inner, RedisStore, check::Demands, link::Link, listener::Listener, names::Names};
use crate::{
    model::Invalid,
    store::{StoreError, coalesced::CoalescedLookups},
};

/// How a [`RedisStore`] is connected, and what it demands of the server.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use keyward::store::RedisOptions;
///
/// let store = RedisOptions::new()
///     .prefix("api-keys")?
///     .timeout(Duration::from_millis(500))
///     .replicas(1)
///     .connect_cluster(["redis://10.0.0.1/", "redis://10.0.0.2/", "redis://10.0.0.3/"])
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RedisOptions {
    prefix: String,
    timeout: Duration,
    replicas: u32,
    demands: Demands,
}

impl RedisOptions {
    /// Redis keys `{keyward}…`, 2 s before a call gives up, and no replicas to wait for.
    pub fn new() -> Self {
        Self {
            prefix: "keyward".into(),
            timeout: Duration::from_secs(2),
            replicas: 0,
            demands: Demands::default(),
        }
    }

    /// What tells the store from others on the same server: its Redis keys begin with it, in
    /// braces. On a cluster it decides which node has the store.
    ///
    /// # Errors
    /// If it is not 1 to 40 letters, digits and `_.:-`.
    pub fn prefix(mut self, prefix: &str) -> Result<Self, Invalid> {
        self.prefix = checked_prefix(prefix)?;
        Ok(self)
    }

    /// After how long a call gives up; 2 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many replicas have to confirm a change before it is acknowledged; none by default.
    ///
    /// If fewer do within the timeout, the change is made on the primary, where it has its effect at
    /// once, and the call fails as [`Unconfirmed`](crate::store::StoreErrorKind::Unconfirmed): a
    /// failover could lose it. A revocation is then repeated until it is confirmed. What replicas
    /// confirm is that they have received it; it makes the loss of a change by failover unlikely,
    /// and Redis has nothing that makes it impossible.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Accepts a server whose `maxmemory-policy` is not `noeviction`.
    ///
    /// Such a server removes data when its memory is full. A store is few and large Redis keys: it
    /// loses all API keys at once, or all revocations.
    pub fn danger_allow_eviction(mut self) -> Self {
        self.demands.no_eviction = false;
        self
    }

    /// Accepts a server that writes nothing to a disk, and forgets all API keys when it restarts.
    pub fn danger_allow_no_persistence(mut self) -> Self {
        self.demands.persistence = false;
        self
    }

    /// Connects to one server, and looks whether it is fit to hold keys.
    ///
    /// # Errors
    /// If it cannot be reached, is a replica, evicts data or keeps nothing, or if its data are newer
    /// than this crate.
    pub async fn connect(self, url: &str) -> Result<RedisStore, StoreError> {
        self.connect_cluster([url]).await
    }

    /// Connects to a cluster by way of some of its nodes, and looks whether the one that has the
    /// store is fit to hold keys. Name several: any of them may be down later.
    ///
    /// # Errors
    /// As [`connect`](RedisOptions::connect).
    pub async fn connect_cluster<T: AsRef<str>>(
        self,
        nodes: impl IntoIterator<Item = T>,
    ) -> Result<RedisStore, StoreError> {
        let Self { prefix, timeout, replicas, demands } = self;
        let read = |node: T| node.as_ref().into_connection_info().map_err(StoreError::unavailable);
        let seeds: Vec<ConnectionInfo> = nodes.into_iter().map(read).collect::<Result<_, _>>()?;
        let names = Arc::new(Names::new(&prefix));
        let link = Arc::new(Link::new(seeds, names.meta(), timeout));
        let inner = Inner { names, link, replicas, listener: Listener::default() };
        inner.check(demands).await?;
        inner.link.begin();
        let inner = Arc::new(inner);
        Ok(RedisStore { lookups: Arc::new(CoalescedLookups::new(inner.clone())), inner })
    }
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) fn checked_prefix(prefix: &str) -> Result<String, Invalid> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
    if prefix.is_empty() || prefix.len() > 40 || !prefix.bytes().all(plain) {
        return Err(Invalid::new("prefix", "use 1 to 40 letters, digits and _ . : -"));
    }
    Ok(prefix.into())
}
