use std::{
    sync::{
        Arc,
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
    sync::mpsc::UnboundedSender,
    time::{Instant, timeout_at},
};

use super::errors::is_answer;
use crate::store::error::TimedOut;

/// One connection, which knows when it has ended.
#[derive(Clone)]
pub(crate) struct Line {
    connection: MultiplexedConnection,
    dead: Arc<AtomicBool>,
    pub(crate) place: Arc<ConnectionInfo>,
}

/// What became of a command.
pub(crate) enum Sent {
    Answer(Value),
    Refused(RedisError),
    /// The connection broke, or there was no answer in time.
    Lost(super::errors::Source),
}

impl Line {
    /// Connects to one server, and hears there what is `pushed`.
    pub(crate) async fn open(
        place: Arc<ConnectionInfo>,
        within: Duration,
        pushed: Option<UnboundedSender<PushInfo>>,
    ) -> RedisResult<Self> {
        // With the older protocol a client learns of a lost connection when it uses it.
        let settings = place.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = ConnectionInfo::clone(&place).set_redis_settings(settings);
        let dead = Arc::new(AtomicBool::new(false));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(within))
            .set_response_timeout(None)
            .set_push_sender(Ear { dead: dead.clone(), pushed });
        let open = Client::open(info)?;
        let connection = open.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self { connection, dead, place })
    }

    /// Sends one command, and gives the connection up if it is not answered in time: behind a
    /// frozen server or a broken network nothing else would notice for minutes.
    pub(crate) async fn send(&self, command: &Cmd, deadline: Instant) -> Sent {
        let begun = Instant::now();
        let mut connection = self.connection.clone();
        match timeout_at(deadline, command.query_async(&mut connection)).await {
            Ok(Ok(answer)) => Sent::Answer(answer),
            Ok(Err(error)) if is_answer(&error) => Sent::Refused(error),
            Ok(Err(error)) => {
                self.give_up();
                Sent::Lost(error.into())
            }
            Err(_) => {
                self.give_up();
                Sent::Lost(TimedOut("Redis", begun.elapsed()).into())
            }
        }
    }

    pub(crate) async fn subscribe(&self, channels: &[&str], deadline: Instant) -> RedisResult<()> {
        let mut connection = self.connection.clone();
        timeout_at(deadline, connection.subscribe(channels)).await.unwrap_or_else(|elapsed| {
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed).into())
        })
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Nobody begins anything on it any more; what is on its way may still be answered.
    pub(crate) fn give_up(&self) {
        self.dead.store(true, Ordering::Release);
    }
}

/// Where a node of a cluster sends whoever asks for what another holds: `MOVED 3999 host:port`. An
/// empty host is that of the node that says so.
pub(crate) fn elsewhere(from: &ConnectionInfo, address: &str) -> Option<ConnectionInfo> {
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

struct Ear {
    dead: Arc<AtomicBool>,
    pushed: Option<UnboundedSender<PushInfo>>,
}

impl AsyncPushSender for Ear {
    fn send(&self, info: PushInfo) -> Result<(), SendError> {
        if info.kind == PushKind::Disconnection {
            self.dead.store(true, Ordering::Release);
        }
        match &self.pushed {
            Some(pushed) => pushed.send(info).map_err(|_| SendError),
            None => Ok(()),
        }
    }
}
