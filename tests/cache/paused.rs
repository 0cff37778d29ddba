//! A busy node that is stopped (`SIGSTOP`) while another node revokes its keys, and continues later than the bound.
//!
//! The node runs in a process of its own, on the same SQLite file, PostgreSQL database or Redis server. When it continues,
//! it has requests in the air, and others arrive.

use std::{
    env,
    future::Future,
    io::{BufRead, BufReader, Write, stdin},
    pin::pin,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use keyward::{
    ApiKeys, KeyStore, VerifyError, VerifyRequest,
    manage::{Issued, NewKey},
    model::{KeyLimits, Quota},
    store::{PostgresOptions, SqliteOptions},
    system::{Clock, SystemClock},
    verify::{CacheOptions, DeniedReason},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinSet;

use crate::support::{
    Service, format, owner,
    servers::{eventually, process::is_stopped, redis, until},
    stores::{self, SqliteFile},
};

/// The number of stops per store. `PAUSES=100` runs for minutes.
fn pauses() -> usize {
    env::var("PAUSES").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_on_sqlite_keeps_the_bound() {
    let file = SqliteFile::new();
    // Without quotas: a node that is stopped while it writes keeps the lock of the file. So does one that is stopped
    // during a look-up, so all keys are cached, and the requests are those that arrive when it continues.
    check(&format!("sqlite {}", file.path().display()), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_on_postgres_keeps_the_bound() {
    let Some(database) = stores::postgres().await else { return };
    check(&format!("postgres {}", database.url()), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_on_redis_keeps_the_bound() {
    let Some(shared) = redis::shared() else { return };
    let space = shared.space();
    check(&format!("redis {} {}", space.url(), space.prefix()), true).await;
}

/// Opens a store by a line that both processes know.
pub async fn open(store: &str) -> Arc<dyn KeyStore> {
    let words: Vec<_> = store.split(' ').collect();
    // A statement of a stopped node may hold locks for as long as this.
    let timeout = Duration::from_secs(2);
    match words[..] {
        ["sqlite", path] => {
            Arc::new(SqliteOptions::new().timeout(timeout).open(path).await.unwrap())
        }
        ["postgres", url] => {
            Arc::new(PostgresOptions::new().timeout(timeout).connect(url).await.unwrap())
        }
        ["redis", url, prefix] => {
            let options = stores::redis_options(prefix).timeout(timeout);
            Arc::new(options.connect(url).await.unwrap())
        }
        _ => panic!("{store}"),
    }
}

async fn check(store: &str, with_quotas: bool) {
    let service = Service::with(vec![open(store).await], |builder| builder.clock(SystemClock));
    let mut node = StoppedNode::start(store);
    let mut checked = 0;
    for pause in 0.. {
        assert!(pause < 10 * pauses(), "the revoking node was blocked too often");
        let issued = issue_keys(&service, pause, with_quotas).await;
        node.send(issued.iter().map(|key| key.secret.expose()));
        assert_eq!(node.receive(), "ready");
        node.stop();
        let revoked_at = revoke_all(&service, &issued).await;
        if revoked_at.is_some() {
            // Longer than the bound, so that every later acceptance is a violation.
            tokio::time::sleep(BOUND + Duration::from_millis(100)).await;
        }
        node.go_on();
        if revoked_at.is_none() {
            // The node presents its keys until all of them are denied.
            eventually("the keys are revoked", async || {
                revoke_all(&service, &issued).await.is_some()
            })
            .await;
        }
        let answer = tokio::task::block_in_place(|| node.receive());
        let Some(revoked_at) = revoked_at else { continue };
        let accepted: Vec<u64> = answer.split(' ').map(|text| text.parse().unwrap()).collect();
        assert_eq!(accepted.len(), issued.len());
        for (accepted_at, revoked_at) in accepted.into_iter().zip(revoked_at) {
            let late = Duration::from_micros(accepted_at.saturating_sub(revoked_at));
            assert!(late <= BOUND, "pause {pause}: accepted {late:?} after it was revoked");
        }
        checked += 1;
        if checked == pauses() {
            break;
        }
    }
}

async fn issue_keys(service: &Service, pause: usize, with_quotas: bool) -> Vec<Issued> {
    let mut issued = Vec::new();
    for n in 0..KEYS {
        let owner = owner("acme", &format!("{pause}-{n}"));
        let quota = (with_quotas && n % 2 == 0).then_some(Quota::total(u64::from(u32::MAX)));
        let limits = KeyLimits { quota, ..KeyLimits::default() };
        let new = NewKey::new(&owner, "key").unwrap().limits(limits);
        issued.push(service.keys().issue(new, &service.actor).await.unwrap());
    }
    issued
}

/// Revokes the keys, and returns when each was acknowledged. `None` if the stopped node blocks it by a lock.
async fn revoke_all(service: &Service, issued: &[Issued]) -> Option<Vec<u64>> {
    let mut acknowledged = Vec::new();
    for issued in issued {
        let (owner, by) = (&issued.key.owner, &service.actor);
        let mut tries = 0;
        while let Err(error) = service.keys().revoke(owner, issued.key.id, "", by).await {
            tries += 1;
            assert!(error.is_unavailable(), "{error}");
            if tries == 3 {
                return None;
            }
        }
        acknowledged.push(now());
    }
    Some(acknowledged)
}

/// Microseconds of a clock that all processes share.
fn now() -> u64 {
    SystemClock.reading().monotonic.as_micros() as u64
}

/// The other process, as this one sees it.
struct StoppedNode {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl StoppedNode {
    fn start(store: &str) -> Self {
        let test = "cache::paused::verifies_the_keys_that_it_is_sent";
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture", "--quiet"])
            .env(STORE, store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output) }
    }

    fn send<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        writeln!(self.input, "{}", words.collect::<Vec<_>>().join(" ")).unwrap();
    }

    /// Returns the next answer. The test harness prints other lines.
    fn receive(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the other process has ended");
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return answer.trim().to_owned();
            }
        }
    }

    fn stop(&self) {
        self.signal(Signal::STOP);
        until("the node is stopped", || is_stopped(self.child.id()));
    }

    fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for StoppedNode {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs in the process that is stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started and stopped by the tests above"]
async fn verifies_the_keys_that_it_is_sent() {
    let store = env::var(STORE).expect("this test is started by another one");
    // Smaller than the number of keys, so that there are always look-ups in the air.
    let cached = if store.starts_with("sqlite") { KEYS * 2 } else { KEYS / 2 };
    let options = CacheOptions::default().max_staleness(BOUND).max_keys(cached);
    let store = open(&store).await;
    let node = ApiKeys::builder_on(store, format()).cache(options).build();
    loop {
        let read = || {
            let mut line = String::new();
            stdin().read_line(&mut line).unwrap();
            line
        };
        let line = tokio::task::spawn_blocking(read).await.unwrap();
        if line.is_empty() {
            return;
        }
        let keys = line.split_whitespace().map(|secret| PresentedKey {
            secret: secret.to_owned(),
            accepted_at: AtomicU64::new(0),
            denied: AtomicBool::new(false),
        });
        let keys: Arc<[_]> = keys.collect();
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            tasks.spawn(present(node.clone(), keys.clone(), task));
        }
        until_all(&keys, |key| key.accepted_at.load(Ordering::Relaxed) > 0).await;
        // Otherwise the node would often be stopped while it writes first uses, and keep the lock of an SQLite file.
        node.flush().await.unwrap();
        println!("{ANSWER}ready");
        tasks.join_all().await;
        let accepted = keys.iter().map(|key| key.accepted_at.load(Ordering::Relaxed).to_string());
        println!("{ANSWER}{}", accepted.collect::<Vec<_>>().join(" "));
    }
}

struct PresentedKey {
    secret: String,
    /// When the last poll began that accepted it. A thread that is stopped between a decision and its answer cannot
    /// notice it, so the beginning of the last poll counts and not its end.
    accepted_at: AtomicU64,
    denied: AtomicBool,
}

async fn until_all(keys: &[PresentedKey], is_so: impl Fn(&PresentedKey) -> bool) {
    while !keys.iter().all(&is_so) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Presents the keys in turn, until all are denied.
async fn present(node: ApiKeys, keys: Arc<[PresentedKey]>, task: usize) {
    for n in task.. {
        let key = &keys[n % keys.len()];
        let mut last_poll = 0;
        let request = VerifyRequest::new();
        let mut verify = pin!(node.verify(&key.secret, &request));
        let verified = std::future::poll_fn(|context| {
            last_poll = now();
            verify.as_mut().poll(context)
        });
        match verified.await {
            Ok(_) => {
                key.accepted_at.fetch_max(last_poll, Ordering::Relaxed);
            }
            Err(VerifyError::Denied(denied)) => {
                assert_eq!(denied.reason(), DeniedReason::Revoked);
                key.denied.store(true, Ordering::Relaxed);
            }
            // Requests that waited for a server that this node did not hear.
            Err(VerifyError::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
        if keys.iter().all(|key| key.denied.load(Ordering::Relaxed)) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

const STORE: &str = "KEYWARD_TEST_STORE";
const ANSWER: &str = "answer: ";
const BOUND: Duration = Duration::from_secs(1);
const KEYS: usize = 16;
const TASKS: usize = 64;
