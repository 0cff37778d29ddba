use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{ConnectionInfo, ServerErrorKind, Value};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{
    errors::{Failure, Source, is},
    line::{Line, Sent, elsewhere},
};
use crate::{store::error::TimedOut, system::lock};

/// The way to the one server that holds the store and takes writes: found again whenever it is lost.
pub(super) struct Link {
    /// Where to ask: one server, or some nodes of a cluster.
    seeds: Vec<Arc<ConnectionInfo>>,
    /// A Redis key of the store; the node that has it has all of it.
    meta: String,
    timeout: Duration,
    current: Mutex<Option<Line>>,
    /// Whether there is a store already: then a server without one has lost it.
    begun: AtomicBool,
    /// Where it was found last.
    found: Mutex<Option<Arc<ConnectionInfo>>>,
    /// One caller connects, and all others wait for it.
    connecting: tokio::sync::Mutex<()>,
    /// Connections of changes that wait for replicas: there, the next command waits as well.
    idle: Mutex<Vec<Line>>,
    own: Semaphore,
}

impl Link {
    pub(super) fn new(seeds: Vec<ConnectionInfo>, meta: &str, timeout: Duration) -> Self {
        Self {
            seeds: seeds.into_iter().map(Arc::new).collect(),
            meta: meta.into(),
            timeout,
            current: Mutex::default(),
            begun: AtomicBool::new(false),
            found: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            idle: Mutex::default(),
            own: Semaphore::new(OWN_LINES),
        }
    }

    /// From now on there is a store.
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// The connection that all calls share.
    pub(super) async fn line(&self, deadline: Instant) -> Result<Line, Failure> {
        if let Some(line) = self.live() {
            return Ok(line);
        }
        let Ok(_one) = timeout_at(deadline, self.connecting.lock()).await else {
            return Err(Failure::NotRun(TimedOut("Redis", self.timeout).into()));
        };
        if let Some(line) = self.live() {
            return Ok(line);
        }
        let line = self.search(deadline).await.map_err(Failure::NotRun)?;
        *lock(&self.found) = Some(line.place.clone());
        *lock(&self.current) = Some(line.clone());
        Ok(line)
    }

    /// A connection of one's own to the server that takes writes now.
    pub(super) async fn own_line(&self, deadline: Instant) -> Result<OwnLine<'_>, Failure> {
        let Ok(Ok(turn)) = timeout_at(deadline, self.own.acquire()).await else {
            return Err(Failure::NotRun(TimedOut("Redis", self.timeout).into()));
        };
        let shared = self.line(deadline).await?;
        let idle = loop {
            match lock(&self.idle).pop() {
                Some(line) if line.is_dead() || line.place.addr() != shared.place.addr() => {}
                other => break other,
            }
        };
        let line = match idle {
            Some(line) => line,
            None => self.beside(&shared, deadline).await?,
        };
        Ok(OwnLine { line: Some(line), link: self, _turn: turn })
    }

    async fn beside(&self, shared: &Line, deadline: Instant) -> Result<Line, Failure> {
        let opened = Line::open(shared.place.clone(), left(deadline), None).await;
        opened.map_err(|error| Failure::NotRun(error.into()))
    }

    /// The store has moved there, says a node that had it.
    pub(super) fn moved(&self, line: &Line, address: &str) {
        self.demoted(line);
        if let Some(place) = elsewhere(&line.place, address) {
            *lock(&self.found) = Some(Arc::new(place));
        }
    }

    /// This server takes no writes any more.
    pub(super) fn demoted(&self, line: &Line) {
        line.give_up();
        let current =
            lock(&self.current).take_if(|current| current.place.addr() == line.place.addr());
        if let Some(current) = current {
            current.give_up();
        }
    }

    fn live(&self) -> Option<Line> {
        lock(&self.current).as_ref().filter(|line| !line.is_dead()).cloned()
    }

    /// Asks one place after the other, each for its share of the time, so that one that is frozen
    /// does not keep the others from being asked.
    async fn search(&self, deadline: Instant) -> Result<Line, Source> {
        let found = lock(&self.found).clone();
        let others = self
            .seeds
            .iter()
            .filter(|seed| found.as_ref().is_none_or(|found| found.addr() != seed.addr()));
        let places: Vec<_> = found.iter().chain(others).cloned().collect();
        let mut failed = Source::from("there is no server to ask");
        for (n, place) in places.iter().enumerate() {
            let share = left(deadline) / (places.len() - n) as u32;
            let end = Instant::now() + share;
            match timeout_at(end, self.follow(place.clone(), end)).await {
                Ok(Ok(line)) => return Ok(line),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = TimedOut("Redis", share).into(),
            }
        }
        Err(failed)
    }

    /// Connects to a place, and from there to where it says that the store is.
    async fn follow(
        &self,
        mut place: Arc<ConnectionInfo>,
        deadline: Instant,
    ) -> Result<Line, Source> {
        for _ in 0..HOPS {
            let line = Line::open(place.clone(), left(deadline), None).await?;
            let mut ask = redis::cmd("EXISTS");
            ask.arg(&self.meta);
            let error = match line.send(&ask, deadline).await {
                // Whoever has forgotten all keys must deny none of them.
                Sent::Answer(Value::Int(0)) if self.begun.load(Ordering::Relaxed) => {
                    return Err(Source::from(LOST));
                }
                Sent::Answer(_) => return self.of_primary(line, deadline).await,
                Sent::Refused(error) => error,
                Sent::Lost(source) => return Err(source),
            };
            let moved = error.redirect_node().and_then(|(to, _)| elsewhere(&place, to));
            place = Arc::new(moved.ok_or(error)?);
        }
        Err("the nodes of the cluster send from one to the other".into())
    }

    /// A replica may lag, and revoked keys would work on it. After a failover Redis itself closes
    /// the connections to a server that has become one.
    async fn of_primary(&self, line: Line, deadline: Instant) -> Result<Line, Source> {
        let mut ask = redis::cmd("INFO");
        ask.arg("replication");
        match line.send(&ask, deadline).await {
            Sent::Answer(info) if text(&info).contains("role:slave") => {
                Err("this server is a replica: connect to its primary".into())
            }
            // Where INFO is forbidden, writes still tell a replica.
            Sent::Answer(_) | Sent::Refused(_) => Ok(line),
            Sent::Lost(source) => Err(source),
        }
    }
}

/// A connection on loan. Dropped in the middle of a call, it is closed.
pub(super) struct OwnLine<'a> {
    line: Option<Line>,
    link: &'a Link,
    _turn: tokio::sync::SemaphorePermit<'a>,
}

impl OwnLine<'_> {
    pub(super) fn line(&self) -> &Line {
        self.line.as_ref().expect("taken only when it is given back")
    }

    /// Nothing is on its way on it.
    pub(super) fn give_back(mut self) {
        if let Some(line) = self.line.take().filter(|line| !line.is_dead()) {
            lock(&self.link.idle).push(line);
        }
    }
}

/// Whether another node, or another server behind the same address, is to be looked for.
pub(crate) fn is_elsewhere(error: &redis::RedisError) -> bool {
    is(error, ServerErrorKind::Moved) || is(error, ServerErrorKind::ReadOnly)
}

pub(crate) fn left(deadline: Instant) -> Duration {
    // The client takes zero for "at once" and tells it as an error of its own.
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        _ => String::new(),
    }
}

const LOST: &str = "this server is empty, it has lost the store: restore its data, or start a node anew \
    to begin with none";
/// How often a change of address is followed within one search.
const HOPS: usize = 4;
const OWN_LINES: usize = 16;
