use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ProtocolVersion, PushInfo,
    PushKind, RedisError, RedisResult, Value,
    aio::{AsyncPushSender, MultiplexedConnection, SendError},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc::UnboundedSender},
    time::{Instant, timeout_at},
};

use super::errors::{BoxError, RedisFailure, ServerError, is_answer};
use crate::{store::error::TimedOut, system::lock};

/// One connection, which knows whether it has ended.
#[derive(Clone)]
pub(crate) struct Connection {
    connection: MultiplexedConnection,
    has_ended: Arc<AtomicBool>,
    pub(crate) server: Arc<ConnectionInfo>,
}

/// The outcome of one command.
pub(crate) enum CommandOutcome {
    Answered(Value),
    Rejected(RedisError),
    /// The connection broke, or no answer came in time.
    Lost(BoxError),
}

impl Connection {
    /// Connects to one server. Pushed messages go to `pushed`.
    pub(crate) async fn open(
        server: Arc<ConnectionInfo>,
        limit: Duration,
        pushed: Option<UnboundedSender<PushInfo>>,
    ) -> Result<Self, BoxError> {
        let has_ended = Arc::new(AtomicBool::new(false));
        let receiver = PushReceiver { has_ended: has_ended.clone(), pushed };
        let connection = Self::connect(&server, limit, receiver).await;
        let connection = connection.map_err(|error| ServerError::boxed(&server, error))?;
        Ok(Self { connection, has_ended, server })
    }

    async fn connect(
        server: &ConnectionInfo,
        limit: Duration,
        receiver: PushReceiver,
    ) -> RedisResult<MultiplexedConnection> {
        // With RESP2, a client notices a lost connection only when it sends the next command.
        let settings = server.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = server.clone().set_redis_settings(settings);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limit))
            .set_response_timeout(None)
            .set_push_sender(receiver);
        Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Sends one command, and abandons the connection if no answer comes in time: behind a frozen
    /// server or a broken network, the loss would otherwise go unnoticed for minutes.
    pub(crate) async fn send(&self, command: &Cmd, deadline: Instant) -> CommandOutcome {
        let start = Instant::now();
        let mut connection = self.connection.clone();
        let error: BoxError = match timeout_at(deadline, command.query_async(&mut connection)).await
        {
            Ok(Ok(answer)) => return CommandOutcome::Answered(answer),
            Ok(Err(error)) if is_answer(&error) => return CommandOutcome::Rejected(error),
            Ok(Err(error)) => error.into(),
            Err(_) => TimedOut("Redis", start.elapsed()).into(),
        };
        self.abandon();
        CommandOutcome::Lost(ServerError::boxed(&self.server, error))
    }

    pub(super) async fn subscribe(&self, channels: &[&str], deadline: Instant) -> RedisResult<()> {
        let mut connection = self.connection.clone();
        timeout_at(deadline, connection.subscribe(channels)).await.unwrap_or_else(|elapsed| {
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed).into())
        })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Marks the connection as ended, so that no new command uses it. Pending commands may still be
    /// answered.
    pub(crate) fn abandon(&self) {
        self.has_ended.store(true, Ordering::Release);
    }
}

struct PushReceiver {
    has_ended: Arc<AtomicBool>,
    pushed: Option<UnboundedSender<PushInfo>>,
}

impl AsyncPushSender for PushReceiver {
    fn send(&self, info: PushInfo) -> Result<(), SendError> {
        if info.kind == PushKind::Disconnection {
            self.has_ended.store(true, Ordering::Release);
        }
        match &self.pushed {
            Some(pushed) => pushed.send(info).map_err(|_| SendError),
            None => Ok(()),
        }
    }
}

/// The connection to the server that holds the store and accepts writes. It is searched again
/// whenever it is lost.
pub(super) struct PrimaryConnection {
    /// The configured servers: one server, or some nodes of a cluster.
    seeds: Vec<Arc<ConnectionInfo>>,
    /// A Redis key of the store. The node that holds it holds the whole store.
    meta: String,
    timeout: Duration,
    current: Mutex<Option<Connection>>,
    /// Whether the store was opened: from then on, a server without it has lost it.
    opened: AtomicBool,
    /// The server on which the store was found last.
    last_server: Mutex<Option<Arc<ConnectionInfo>>>,
    /// Held by the one caller that connects; the other callers wait.
    connecting: tokio::sync::Mutex<()>,
    /// Idle connections of changes that wait for replicas: WAIT blocks its connection.
    idle: Mutex<Vec<Connection>>,
    exclusive: Semaphore,
}

impl PrimaryConnection {
    pub(super) fn new(seeds: Vec<ConnectionInfo>, meta: &str, timeout: Duration) -> Self {
        Self {
            seeds: seeds.into_iter().map(Arc::new).collect(),
            meta: meta.into(),
            timeout,
            current: Mutex::default(),
            opened: AtomicBool::new(false),
            last_server: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            idle: Mutex::default(),
            exclusive: Semaphore::new(MAX_EXCLUSIVE_CONNECTIONS),
        }
    }

    /// Marks the store as opened.
    pub(super) fn set_opened(&self) {
        self.opened.store(true, Ordering::Relaxed);
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Returns the connection that all calls share.
    pub(super) async fn shared(&self, deadline: Instant) -> Result<Connection, RedisFailure> {
        if let Some(connection) = self.live() {
            return Ok(connection);
        }
        let Ok(_guard) = timeout_at(deadline, self.connecting.lock()).await else {
            return Err(RedisFailure::NotRun(TimedOut("Redis", self.timeout).into()));
        };
        if let Some(connection) = self.live() {
            return Ok(connection);
        }
        let connection = self.search(deadline).await.map_err(RedisFailure::NotRun)?;
        *lock(&self.last_server) = Some(connection.server.clone());
        *lock(&self.current) = Some(connection.clone());
        Ok(connection)
    }

    /// Leases an exclusive connection to the primary.
    pub(super) async fn exclusive(
        &self,
        deadline: Instant,
    ) -> Result<ExclusiveConnection<'_>, RedisFailure> {
        let Ok(Ok(permit)) = timeout_at(deadline, self.exclusive.acquire()).await else {
            return Err(RedisFailure::NotRun(TimedOut("Redis", self.timeout).into()));
        };
        let shared = self.shared(deadline).await?;
        let is_usable = |connection: &Connection| {
            !connection.has_ended() && connection.server.addr() == shared.server.addr()
        };
        let idle = loop {
            match lock(&self.idle).pop() {
                Some(connection) if !is_usable(&connection) => {}
                other => break other,
            }
        };
        let connection = match idle {
            Some(connection) => connection,
            None => Connection::open(shared.server.clone(), time_left(deadline), None)
                .await
                .map_err(RedisFailure::NotRun)?,
        };
        Ok(ExclusiveConnection { connection: Some(connection), primary: self, _permit: permit })
    }

    /// Follows a redirection: the store has moved to `address`.
    pub(super) fn redirect(&self, connection: &Connection, address: &str) {
        self.abandon(connection);
        if let Some(server) = redirect_target(&connection.server, address) {
            *lock(&self.last_server) = Some(Arc::new(server));
        }
    }

    /// Abandons all connections to a server that no longer accepts writes.
    pub(super) fn abandon(&self, connection: &Connection) {
        connection.abandon();
        let current = lock(&self.current)
            .take_if(|current| current.server.addr() == connection.server.addr());
        if let Some(current) = current {
            current.abandon();
        }
    }

    fn live(&self) -> Option<Connection> {
        lock(&self.current).as_ref().filter(|connection| !connection.has_ended()).cloned()
    }

    /// Tries the known servers one after the other. Each gets a share of the time, so that a frozen
    /// server does not use up the time of the others.
    async fn search(&self, deadline: Instant) -> Result<Connection, BoxError> {
        let last = lock(&self.last_server).clone();
        let others = self
            .seeds
            .iter()
            .filter(|seed| last.as_ref().is_none_or(|last| last.addr() != seed.addr()));
        let servers: Vec<_> = last.iter().chain(others).cloned().collect();
        let mut error = BoxError::from(NO_SERVER);
        for (n, server) in servers.iter().enumerate() {
            let share = time_left(deadline) / (servers.len() - n) as u32;
            let end = Instant::now() + share;
            match timeout_at(end, self.follow_redirects(server.clone(), end)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(failed)) => error = failed,
                Err(_) => error = ServerError::boxed(server, TimedOut("Redis", share)),
            }
        }
        Err(error)
    }

    /// Connects to a server, and follows its redirections to the server that holds the store.
    async fn follow_redirects(
        &self,
        mut server: Arc<ConnectionInfo>,
        deadline: Instant,
    ) -> Result<Connection, BoxError> {
        for _ in 0..MAX_REDIRECTS {
            let connection = Connection::open(server.clone(), time_left(deadline), None).await?;
            let mut exists = redis::cmd("EXISTS");
            exists.arg(&self.meta);
            let error = match connection.send(&exists, deadline).await {
                // A server that has lost the keys must not deny them.
                CommandOutcome::Answered(Value::Int(0)) if self.opened.load(Ordering::Relaxed) => {
                    return Err(ServerError::boxed(&server, LOST));
                }
                CommandOutcome::Answered(_) => return check_primary(connection, deadline).await,
                CommandOutcome::Rejected(error) => error,
                CommandOutcome::Lost(error) => return Err(error),
            };
            let target =
                error.redirect_node().and_then(|(address, _)| redirect_target(&server, address));
            server = match target {
                Some(target) => Arc::new(target),
                None => return Err(ServerError::boxed(&server, error)),
            };
        }
        Err(TOO_MANY_REDIRECTS.into())
    }
}

/// Rejects a replica, which may lag: revoked keys would still work on it. After a failover, Redis
/// itself closes the connections to a server that became a replica.
async fn check_primary(connection: Connection, deadline: Instant) -> Result<Connection, BoxError> {
    let mut info = redis::cmd("INFO");
    info.arg("replication");
    match connection.send(&info, deadline).await {
        CommandOutcome::Answered(info) if text(&info).contains("role:slave") => {
            Err(ServerError::boxed(&connection.server, "it is a replica: connect to its primary"))
        }
        // If INFO is forbidden, the first write still fails on a replica.
        CommandOutcome::Answered(_) | CommandOutcome::Rejected(_) => Ok(connection),
        CommandOutcome::Lost(error) => Err(error),
    }
}

/// A leased connection. It is closed if it is dropped during a call.
pub(super) struct ExclusiveConnection<'a> {
    /// `Some` until it is given back.
    connection: Option<Connection>,
    primary: &'a PrimaryConnection,
    _permit: SemaphorePermit<'a>,
}

impl ExclusiveConnection<'_> {
    pub(super) fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("only `give_back` takes it")
    }

    /// Returns the connection; no command is pending on it.
    pub(super) fn give_back(mut self) {
        if let Some(connection) = self.connection.take().filter(|open| !open.has_ended()) {
            lock(&self.primary.idle).push(connection);
        }
    }
}

/// Returns the server to which a cluster node redirects, as in `MOVED 3999 host:port`. An empty host
/// means the host of the node that answered.
pub(crate) fn redirect_target(from: &ConnectionInfo, address: &str) -> Option<ConnectionInfo> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = |own: &str| if host.is_empty() { own } else { host }.to_owned();
    let addr = match from.addr() {
        ConnectionAddr::Tcp(own, _) => ConnectionAddr::Tcp(host(own), port),
        ConnectionAddr::TcpTls { host: own, insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host: host(own),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => return None,
    };
    Some(from.clone().set_addr(addr))
}

pub(crate) fn time_left(deadline: Instant) -> Duration {
    // The redis crate rejects a timeout of zero.
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        _ => String::new(),
    }
}

const NO_SERVER: &str = "no Redis server is configured: pass at least one URL";
const TOO_MANY_REDIRECTS: &str =
    "the nodes of the Redis cluster redirect to each other: try again when its slots have settled";
const LOST: &str = "it is empty, it has lost the store: restore its data, or restart this node to begin with \
    an empty store";
/// How many redirections one search follows.
const MAX_REDIRECTS: usize = 4;
const MAX_EXCLUSIVE_CONNECTIONS: usize = 16;
