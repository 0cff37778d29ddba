//! A node: a process that changes and verifies keys as its parent requests, all of it concurrently.

use std::{
    collections::HashMap,
    env,
    io::stdin,
    os::{
        fd::AsFd,
        unix::{net::UnixStream as StdStream, process::ExitStatusExt},
    },
    path::{Path, PathBuf},
    pin::pin,
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use keyward::{
    Account, Accounts, Actor, ApiKeys, Error, ErrorKind, Expiry, KeyId, KeyStore, Limits, NewKey,
    Owner, VerifyError, VerifyRequest,
    accounts::AccountsError,
    manage::{Issued, KeyChange, Rotation},
    model::{KeyLimits, Permissions, Quota},
    store::{PostgresOptions, RedisOptions, SqliteOptions, StoreError},
    system::SystemClock,
    verify::CacheOptions,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
};

use super::history::{
    Answer, Change, ChangeKind, Fault, Outcome, Plan, Record, Recorder, Use, now,
};
use crate::support::{
    format,
    servers::{Scratch, process::is_stopped, until},
};

/// Where a node finds its store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Address {
    Sqlite(PathBuf),
    Postgres(String),
    Redis(String),
}

impl Address {
    /// Retries: on a busy machine, a server may take longer than the timeout to accept a connection.
    pub async fn open(&self) -> Arc<dyn KeyStore> {
        let begun = Instant::now();
        loop {
            match self.try_open().await {
                Ok(store) => return store,
                Err(error) => assert!(begun.elapsed() < DEADLINE, "{error:?}"),
            }
        }
    }

    async fn try_open(&self) -> Result<Arc<dyn KeyStore>, StoreError> {
        Ok(match self {
            Self::Sqlite(path) => Arc::new(SqliteOptions::new().open(path).await?),
            Self::Postgres(url) => Arc::new(PostgresOptions::new().connect(url).await?),
            Self::Redis(url) => Arc::new(RedisOptions::new().connect(url).await?),
        })
    }
}

/// What a new process needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    pub process: u32,
    pub address: Address,
    pub history: PathBuf,
    /// The host's database: a file for each account that is suspended.
    pub suspended: PathBuf,
    pub cached_keys: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    Change(Order),
    /// Verify it again and again until it is denied.
    Watch(Presented),
    /// Verify it so many times, concurrently.
    Use(Presented, u32),
    /// Write all first uses.
    Flush,
    Shutdown,
}

/// A change to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub number: u64,
    pub kind: ChangeKind,
    pub owner: String,
    pub key: Option<u32>,
    pub id: Option<String>,
}

/// A secret, and how the history names it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Presented {
    pub key: u32,
    pub generation: u32,
    pub secret: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Ready,
    /// With the id and secret that a change made.
    Changed(u64, Outcome, Option<(String, String)>),
    /// The first time that a watched secret is denied.
    Denied(u32, u32),
    Used,
    Flushed,
    ShutDown,
}

// ---- In the process of the node ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the tests of this folder"]
async fn serves_requests() {
    let setup: Setup = serde_json::from_str(&env::var(SETUP).expect("started by a test")).unwrap();
    let stream = StdStream::from(stdin().as_fd().try_clone_to_owned().unwrap());
    stream.set_nonblocking(true).unwrap();
    let (requests, mut output) = UnixStream::from_std(stream).unwrap().into_split();
    let (replies, mut unsent) = unbounded_channel::<Reply>();
    let accounts = Suspensions(setup.suspended.clone());
    let options = CacheOptions::default()
        .max_staleness(BOUND)
        .max_keys(setup.cached_keys)
        .unknown_lookups_per_second(u32::MAX);
    let keys = ApiKeys::builder_on(setup.address.open().await, format())
        .accounts(accounts)
        .cache(options)
        .clock(SystemClock)
        .build();
    let recorder = Recorder::new(&setup.history, setup.process);
    let (process, suspended, watched) = (setup.process, setup.suspended, Mutex::default());
    let node = Arc::new(Node { process, keys, recorder, suspended, watched, replies });
    tokio::spawn(node.clone().record_stalls());
    for task in 0..WATCHERS {
        tokio::spawn(node.clone().watch(task));
    }
    tokio::spawn(async move {
        while let Some(reply) = unsent.recv().await {
            let mut line = serde_json::to_vec(&reply).unwrap();
            line.push(b'\n');
            // An error means that the parent has ended.
            let _ = output.write_all(&line).await;
        }
    });
    node.reply(Reply::Ready);
    let mut lines = BufReader::new(requests).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        node.clone().serve(serde_json::from_str(&line).unwrap());
    }
}

/// A node, in its own process.
struct Node {
    process: u32,
    keys: ApiKeys,
    recorder: Recorder,
    suspended: PathBuf,
    watched: Mutex<Vec<Arc<Watched>>>,
    replies: UnboundedSender<Reply>,
}

struct Watched {
    presented: Presented,
    is_denied: AtomicBool,
}

impl Node {
    fn serve(self: Arc<Self>, request: Request) {
        tokio::spawn(async move {
            match request {
                Request::Change(order) => self.change(order).await,
                Request::Watch(presented) => {
                    let watched = Watched { presented, is_denied: AtomicBool::new(false) };
                    let watched = Arc::new(watched);
                    self.watched.lock().unwrap().push(watched.clone());
                    self.present(&watched).await;
                }
                Request::Use(presented, times) => {
                    let presented = Arc::new(presented);
                    let mut uses = JoinSet::new();
                    for _ in 0..times {
                        let (node, presented) = (self.clone(), presented.clone());
                        uses.spawn(async move { node.verify(&presented).await });
                    }
                    uses.join_all().await;
                    self.reply(Reply::Used);
                }
                Request::Flush => {
                    let _ = self.keys.flush().await;
                    self.reply(Reply::Flushed);
                }
                Request::Shutdown => {
                    self.watched.lock().unwrap().clear();
                    let _ = self.keys.shutdown().await;
                    self.reply(Reply::ShutDown);
                }
            }
        });
    }

    fn reply(&self, reply: Reply) {
        let _ = self.replies.send(reply);
    }

    /// Presents a part of the watched secrets, again and again.
    async fn watch(self: Arc<Self>, task: usize) {
        loop {
            let part: Vec<_> = {
                let watched = self.watched.lock().unwrap();
                watched.iter().skip(task).step_by(WATCHERS).cloned().collect()
            };
            for watched in part {
                self.present(&watched).await;
            }
            tokio::time::sleep(WATCH_PAUSE).await;
        }
    }

    async fn present(&self, watched: &Arc<Watched>) {
        if watched.is_denied.load(Ordering::Relaxed) {
            return;
        }
        let is_denied = matches!(self.verify(&watched.presented).await, Answer::Denied(_));
        if is_denied && !watched.is_denied.swap(true, Ordering::Relaxed) {
            self.watched.lock().unwrap().retain(|other| !Arc::ptr_eq(other, watched));
            let Presented { key, generation, .. } = watched.presented;
            self.reply(Reply::Denied(key, generation));
        }
    }

    async fn verify(&self, presented: &Presented) -> Answer {
        let (process, invoked, mut decided) = (self.process, now(), 0);
        let answer = {
            let request = VerifyRequest::new();
            let mut verify = pin!(self.keys.verify(&presented.secret, &request));
            let polled = std::future::poll_fn(|context| {
                decided = now();
                verify.as_mut().poll(context)
            });
            match polled.await {
                Ok(_) => Answer::Accepted,
                Err(VerifyError::Denied(denied)) => Answer::Denied(denied.reason().as_str().into()),
                Err(VerifyError::Limited(_)) => Answer::Limited,
                Err(VerifyError::Unavailable(error)) if error.kind() == ErrorKind::Corrupt => {
                    Answer::Denied("corrupt".into())
                }
                Err(VerifyError::Unavailable(_)) => Answer::Unavailable,
            }
        };
        let Presented { key, generation, .. } = *presented;
        let answer_of = answer.clone();
        let responded = now();
        let used = Use { process, key, generation, invoked, decided, responded, answer };
        self.recorder.write(&Record::Use(used));
        answer_of
    }

    async fn change(&self, order: Order) {
        let Order { number, kind, owner, key, id } = order;
        let process = self.process;
        let (invoked, responded, outcome) = (now(), None, Outcome::Unknown);
        let mut change = Change { process, number, kind, owner, key, invoked, responded, outcome };
        self.recorder.write(&Record::Change(change.clone()));
        let answer = self.apply(&change, id.as_deref()).await;
        let (outcome, issued) = match answer {
            Ok(issued) => (Outcome::Done, issued),
            Err(error) => (outcome_of(&error), None),
        };
        (change.responded, change.outcome) = (Some(now()), outcome.clone());
        self.recorder.write(&Record::Change(change));
        let issued =
            issued.map(|issued| (issued.key.id.to_string(), issued.secret.expose().to_owned()));
        self.reply(Reply::Changed(number, outcome, issued));
    }

    async fn apply(&self, change: &Change, id: Option<&str>) -> Result<Option<Issued>, Error> {
        let (keys, by) = (&self.keys, Actor::system("cluster"));
        let owner = owner(&change.owner);
        let id = id.map(|id| id.parse::<KeyId>().unwrap());
        let id = || id.expect("a change of one key");
        match change.kind {
            ChangeKind::Issue { lifetime, quota } => {
                let name = name(change.key.unwrap());
                let lifetime = lifetime.map(Duration::from_micros);
                let expiry = lifetime.map_or(Expiry::Never, Expiry::After);
                let limits = KeyLimits { quota: quota.map(Quota::total), ..KeyLimits::default() };
                let new = NewKey::new(&owner, &name).unwrap().expiry(expiry).limits(limits);
                return keys.issue(new, &by).await.map(Some);
            }
            ChangeKind::Rename => {
                let renamed = format!("{} {RENAMED}", name(change.key.unwrap()));
                let change = KeyChange::default().name(&renamed).unwrap();
                keys.update(&owner, id(), &change, &by).await?;
            }
            ChangeKind::Rotate { .. } => {
                return keys.rotate(&owner, id(), Rotation::immediate(), &by).await.map(Some);
            }
            ChangeKind::Disable => _ = keys.disable(&owner, id(), &by).await?,
            ChangeKind::Revoke => keys.revoke(&owner, id(), "", &by).await?,
            ChangeKind::Delete => keys.delete(&owner, id(), &by).await?,
            ChangeKind::RevokeAll => _ = keys.revoke_all(&owner, "", &by).await?,
            ChangeKind::Suspend => {
                std::fs::write(self.suspended.join(&change.owner), "").unwrap();
                keys.account_changed(&owner).await?;
            }
        }
        Ok(None)
    }

    /// Records when this process did not run, or too slowly. Others may have run slowly then, too, unless it was stopped.
    async fn record_stalls(self: Arc<Self>) {
        loop {
            let from = now();
            tokio::time::sleep(TICK).await;
            let until = now();
            if until - from > (TICK + STALL).as_micros() as u64 {
                let is_stopped = until - from > BOUND.as_micros() as u64;
                let process = is_stopped.then_some(self.process);
                let fault = Fault { name: "stall".into(), process, from, until };
                self.recorder.write(&Record::Fault(fault));
            }
        }
    }
}

fn outcome_of(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::Unavailable => Outcome::Unavailable,
        ErrorKind::OutcomeUnknown => Outcome::Unknown,
        other => Outcome::Refused(format!("{other:?}")),
    }
}

/// The accounts of the host: a file for each that is suspended.
pub struct Suspensions(pub PathBuf);

#[async_trait]
impl Accounts for Suspensions {
    async fn account(&self, owner: &Owner) -> Result<Arc<Account>, AccountsError> {
        let plan = Plan::of(owner.account());
        let mut limits = Limits::default();
        if let Some(max) = plan.max_keys {
            limits = limits.max_active_keys(max);
        }
        if let Some(quota) = plan.quota {
            limits = limits.quota(Quota::total(quota));
        }
        let account = Account::new(Permissions::All, limits);
        Ok(Arc::new(account.suspended(self.0.join(owner.account()).exists())))
    }
}

pub fn owner(account: &str) -> Owner {
    Owner::new(TENANT, account).unwrap()
}

/// The name of a key, by which the store is compared with the history.
pub fn name(key: u32) -> String {
    format!("key-{key}")
}

// ---- In the process of the test ----

/// A node, as its parent sees it.
pub struct NodeHandle {
    pub process: u32,
    pub is_ready: bool,
    pub is_stopped: bool,
    /// Changes that were requested and not answered.
    pub unanswered: HashMap<u64, Order>,
    /// Whether this process was killed, so that its end is expected.
    pub is_killed: bool,
    child: Child,
    requests: UnboundedSender<Request>,
}

/// An event of a node: its index, its process, and its reply; `None` if it has ended.
pub type Event = (usize, u32, Option<Reply>);

impl NodeHandle {
    /// Starts a process, which replies when it is ready.
    pub fn start(
        scratch: &Scratch,
        index: usize,
        setup: &Setup,
        events: UnboundedSender<Event>,
    ) -> Self {
        let (own, other) = StdStream::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        let child = scratch
            .command(&env::current_exe().unwrap())
            .args(["--exact", TEST, "--ignored", "--nocapture", "--quiet"])
            .env(SETUP, serde_json::to_string(setup).unwrap())
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(other)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        scratch.remember(child.id());
        let stream = UnixStream::from_std(own).unwrap();
        let (requests, unsent) = unbounded_channel();
        tokio::spawn(exchange(stream, unsent, index, setup.process, events));
        Self {
            process: setup.process,
            is_ready: false,
            is_stopped: false,
            unanswered: HashMap::new(),
            is_killed: false,
            child,
            requests,
        }
    }

    /// Requests of a stopped process wait in its socket.
    pub fn request(&self, request: Request) {
        let _ = self.requests.send(request);
    }

    pub fn stop(&mut self) {
        self.is_stopped = true;
        self.signal(Signal::STOP);
        until("the node is stopped", || is_stopped(self.child.id()));
    }

    pub fn resume(&mut self) {
        self.is_stopped = false;
        self.signal(Signal::CONT);
    }

    pub fn kill(&mut self) {
        self.is_killed = true;
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "it ended before");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn exchange(
    stream: UnixStream,
    mut unsent: UnboundedReceiver<Request>,
    index: usize,
    process: u32,
    events: UnboundedSender<Event>,
) {
    let (replies, mut output) = stream.into_split();
    let sending = async move {
        while let Some(request) = unsent.recv().await {
            let mut line = serde_json::to_vec(&request).unwrap();
            line.push(b'\n');
            if output.write_all(&line).await.is_err() {
                return;
            }
        }
    };
    let receiving = async {
        let mut lines = BufReader::new(replies).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let reply = serde_json::from_str(&line).unwrap();
            let _ = events.send((index, process, Some(reply)));
        }
    };
    tokio::spawn(sending);
    receiving.await;
    let _ = events.send((index, process, None));
}

/// Returns an empty folder in `target/tmp`, where a failed run keeps its histories.
pub fn kept_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

const TEST: &str = "cluster::node::serves_requests";
const SETUP: &str = "KEYWARD_TEST_NODE";
pub const TENANT: &str = "acme";
pub const RENAMED: &str = "renamed";
/// The `max_staleness` of all nodes.
pub const BOUND: Duration = Duration::from_secs(1);
const WATCHERS: usize = 16;
const WATCH_PAUSE: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(20);
/// Longer delays of a timer are recorded.
const STALL: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(60);
