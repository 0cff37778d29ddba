use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::{Cmd, ConnectionInfo, IntoConnectionInfo, Value};

use super::{
    RedisStore,
    commands::{RedisDatabase, Reply},
    connection::{CommandOutcome, PrimaryConnection, text},
    errors::RedisFailure,
    listener::FeedListener,
    scripts::{LAYOUT, RedisKeys},
};
use crate::{
    model::Invalid,
    store::{StoreError, coalesced::CoalescedLookups},
};

/// Options for connecting a [`RedisStore`].
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use keyward::store::RedisOptions;
///
/// let store = RedisOptions::new()
///     .prefix("api-keys")
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
    requirements: ServerRequirements,
}

impl RedisOptions {
    /// Returns the defaults: Redis keys `{keyward}…`, a timeout of 2 s, and no wait for replicas.
    pub fn new() -> Self {
        Self {
            prefix: "keyward".into(),
            timeout: Duration::from_secs(2),
            replicas: 0,
            requirements: ServerRequirements { no_eviction: true, persistence: true },
        }
    }

    /// Sets the prefix of all Redis keys of the store, which is written in braces. Defaults to
    /// `keyward`. It separates stores on one server. On a cluster, it determines the node that holds
    /// the store. It must be 1 to 40 letters, digits and `_.:-`; otherwise
    /// [`connect`](RedisOptions::connect) fails.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how long a call may take before it fails. Defaults to 2 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many replicas must confirm a change before it is acknowledged. Defaults to 0.
    ///
    /// If fewer confirm within the timeout, the change is made on the primary and takes effect there
    /// immediately, and the call fails as [`Unconfirmed`](crate::store::StoreErrorKind::Unconfirmed):
    /// a failover could lose the change. A revocation is then repeated until it is confirmed.
    /// Replicas confirm that they have received a change. This makes its loss by a failover
    /// unlikely; Redis has no way to make it impossible.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Accepts a server whose `maxmemory-policy` is not `noeviction`.
    ///
    /// Such a server removes data when its memory is full. A store consists of a few large Redis
    /// keys, so an eviction loses all API keys, or all revocations, together.
    pub fn danger_allow_eviction(mut self) -> Self {
        self.requirements.no_eviction = false;
        self
    }

    /// Accepts a server that does not write to disk, and loses all API keys when it restarts.
    pub fn danger_allow_no_persistence(mut self) -> Self {
        self.requirements.persistence = false;
        self
    }

    /// Connects to one server, and checks that it is safe to store keys on it.
    ///
    /// # Errors
    /// *Configuration* if the URL is malformed or the prefix is not valid. *Unavailable* if the server cannot be reached, refuses
    /// the user or its password, is a replica, evicts data or does not persist them, or if its data
    /// are newer than this crate. The text names the cause.
    pub async fn connect(self, url: &str) -> Result<RedisStore, StoreError> {
        self.connect_cluster([url]).await
    }

    /// Connects to a cluster through some of its nodes, and checks that it is safe to store keys on
    /// the node that holds the store. Name several nodes: any of them may be down later.
    ///
    /// # Errors
    /// As [`connect`](RedisOptions::connect).
    pub async fn connect_cluster<T: AsRef<str>>(
        self,
        nodes: impl IntoIterator<Item = T>,
    ) -> Result<RedisStore, StoreError> {
        let Self { prefix, timeout, replicas, requirements } = self;
        let prefix = checked_prefix(&prefix).map_err(StoreError::configuration)?;
        let parse = |node: T| {
            let parsed = node.as_ref().into_connection_info();
            parsed.map_err(|error| StoreError::configuration(format!("invalid Redis URL: {error}")))
        };
        let seeds: Vec<ConnectionInfo> = nodes.into_iter().map(parse).collect::<Result<_, _>>()?;
        let keys = Arc::new(RedisKeys::new(&prefix));
        let primary = Arc::new(PrimaryConnection::new(seeds, keys.meta(), timeout));
        let database = Arc::new(RedisDatabase { keys, primary, replicas });
        database.check(requirements).await?;
        database.primary.set_opened();
        let lookups = Arc::new(CoalescedLookups::new(database.clone()));
        Ok(RedisStore { database, lookups, listener: Arc::new(FeedListener::default()) })
    }
}

impl RedisStore {
    /// Connects to one server. [`RedisOptions`] has more settings.
    ///
    /// # Errors
    /// As [`RedisOptions::connect`].
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        RedisOptions::new().connect(url).await
    }

    /// Connects to a cluster through some of its nodes.
    ///
    /// # Errors
    /// As [`RedisOptions::connect`].
    pub async fn connect_cluster<T: AsRef<str>>(
        nodes: impl IntoIterator<Item = T>,
    ) -> Result<Self, StoreError> {
        RedisOptions::new().connect_cluster(nodes).await
    }
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self::new()
    }
}

pub(crate) fn checked_prefix(prefix: &str) -> Result<String, Invalid> {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
    if prefix.is_empty() || prefix.len() > 40 || !prefix.bytes().all(is_allowed) {
        return Err(Invalid::new("prefix", "use 1 to 40 letters, digits and _ . : -"));
    }
    Ok(prefix.into())
}

/// What a server must guarantee.
#[derive(Clone, Copy, Debug)]
struct ServerRequirements {
    no_eviction: bool,
    persistence: bool,
}

impl RedisDatabase {
    /// Checks that the server is safe to store keys on, and marks the store with this layout.
    async fn check(&self, requirements: ServerRequirements) -> Result<(), StoreError> {
        if requirements.no_eviction || requirements.persistence {
            let settings = self.server_settings().await?;
            if requirements.no_eviction && settings.eviction_policy != "noeviction" {
                return Err(evicts_data(&settings.eviction_policy));
            }
            if requirements.persistence && !settings.is_persistent {
                return Err(not_persistent(settings.is_complete));
            }
        }
        let layout = self.layout().await?;
        if layout > LAYOUT_VERSION {
            return Err(StoreError::unavailable(format!(
                "the data in Redis have layout {layout}, but this crate knows layouts up to \
                 {LAYOUT_VERSION}: upgrade keyward on this node"
            )));
        }
        Ok(())
    }

    /// Returns the layout of the data, after writing it if there is none.
    async fn layout(&self) -> Result<u64, StoreError> {
        let mut get = redis::cmd("HGET");
        get.arg(self.keys.meta()).arg("layout");
        // Usually exists, and can be read while the server accepts no writes.
        if let Ok(Value::BulkString(layout)) = self.query(&get).await? {
            return Reply(Value::BulkString(layout)).digits();
        }
        let version = LAYOUT_VERSION.to_string();
        self.write(&LAYOUT, &[version.as_bytes()], |_| false).await?.digits()
    }

    /// Reads the server's settings. Managed servers forbid CONFIG; INFO shows some of the settings.
    async fn server_settings(&self) -> Result<ServerSettings, StoreError> {
        let mut config = redis::cmd("CONFIG");
        config.arg("GET").arg("maxmemory-policy").arg("appendonly").arg("save");
        if let Ok(settings) = self.query(&config).await? {
            let settings = name_value_pairs(settings);
            let get = |name| settings.get(name).map(String::as_str).unwrap_or_default();
            return Ok(ServerSettings {
                eviction_policy: get("maxmemory-policy").into(),
                is_persistent: get("appendonly") == "yes" || !get("save").is_empty(),
                is_complete: true,
            });
        }
        let mut info = redis::cmd("INFO");
        info.arg("memory").arg("persistence");
        let refused = |error| {
            StoreError::unavailable(format!(
                "this Redis server does not show whether keys are safe on it: {error}. Permit the \
                 user to run INFO"
            ))
        };
        let info = text(&self.query(&info).await?.map_err(refused)?);
        let get = |name| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(ServerSettings {
            eviction_policy: get("maxmemory_policy").unwrap_or("unknown").into(),
            // INFO does not show save points.
            is_persistent: get("aof_enabled") == Some("1"),
            is_complete: false,
        })
    }

    /// Returns the answer to a command, or the error with which the server rejects it.
    async fn query(&self, command: &Cmd) -> Result<Result<Value, redis::RedisError>, StoreError> {
        let deadline = self.primary.deadline();
        let connection = self.primary.shared(deadline).await.map_err(RedisFailure::of_read)?;
        match connection.send(command, deadline).await {
            CommandOutcome::Answered(answer) => Ok(Ok(answer)),
            CommandOutcome::Rejected(error) => Ok(Err(error)),
            CommandOutcome::Lost(error) => Err(StoreError::unavailable(error)),
        }
    }
}

struct ServerSettings {
    eviction_policy: String,
    is_persistent: bool,
    /// Whether the server showed all its settings.
    is_complete: bool,
}

fn name_value_pairs(settings: Value) -> HashMap<String, String> {
    match settings {
        Value::Map(pairs) => pairs.iter().map(|(name, value)| (text(name), text(value))).collect(),
        Value::Array(words) => {
            words.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
        }
        _ => HashMap::new(),
    }
}

fn evicts_data(policy: &str) -> StoreError {
    StoreError::unavailable(format!(
        "this Redis server may evict keys: its maxmemory-policy is {policy}. Set `maxmemory-policy \
         noeviction`, or allow it with RedisOptions::danger_allow_eviction"
    ))
}

fn not_persistent(is_known: bool) -> StoreError {
    let problem = if is_known {
        "this Redis server does not write to disk and loses all keys when it restarts"
    } else {
        "this Redis server has no append-only file, and does not show whether it has save points"
    };
    StoreError::unavailable(format!(
        "{problem}. Set `appendonly yes`, and `appendfsync always` so that no acknowledged change is \
         lost; or allow it with RedisOptions::danger_allow_no_persistence"
    ))
}

const LAYOUT_VERSION: u64 = 1;
