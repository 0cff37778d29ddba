//! Nodes in processes of their own, on one server, whose wall clocks the test sets.

use std::{
    env,
    io::{BufRead, BufReader, Write, stdin},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use keyward::{
    Actor, ApiKeys, Expiry, Limits, NewKey, Timestamp, VerifyError, VerifyRequest,
    accounts::NoAccounts,
    model::{KeyLimits, Quota},
    system::{Clock, ClockReading, SystemClock},
};

use super::paused::open;
use crate::support::{format, owner, servers::redis, servers::until, stores};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_with_wrong_clocks_on_postgres_keep_every_end_and_limit() {
    let Some(database) = stores::postgres().await else { return };
    check(&format!("postgres {}", database.url()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_with_wrong_clocks_on_redis_keep_every_end_and_limit() {
    let Some(shared) = redis::shared() else { return };
    let space = shared.space();
    check(&format!("redis {} {}", space.url(), space.prefix()));
}

fn check(store: &str) {
    let mut right = Node::start(store, 0);
    let mut wrong = Node::start(store, 0);
    let ten_minutes = right.issue("ada", 600_000, 0);
    for (by, direction) in [(DAY, "ahead"), (-DAY, "behind"), (HOUR, "ahead"), (-MINUTE, "behind")]
    {
        assert_eq!(wrong.verify(&ten_minutes), "ok");
        wrong.set_clock(by);
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(500) {
            let answer = wrong.verify(&ten_minutes);
            assert!(answer.starts_with("unavailable: this node's clock is "), "{answer}");
            assert!(answer.contains(&format!(" s {direction} ")), "{answer}");
            assert_eq!(right.verify(&ten_minutes), "ok");
        }
        wrong.set_clock(0);
        assert_eq!(wrong.verify(&ten_minutes), "ok", "when it was {by} ms off");
    }

    // A set-back lets no short key live longer.
    let short = right.issue("ada", 2_000, 0);
    wrong.verify(&short);
    wrong.set_clock(-HOUR);
    until("the key has ended on the right node", || {
        assert!(wrong.verify(&short).starts_with("unavailable"));
        right.verify(&short) == "expired"
    });
    wrong.set_clock(0);
    assert_eq!(wrong.verify(&short), "expired");

    // A node that is ahead lets no owner have more keys.
    for _ in 0..5 {
        right.issue("bob", 1_800_000, 0);
    }
    for by in [HOUR, YEAR, -HOUR] {
        wrong.set_clock(by);
        let refused = wrong.ask("issue bob 1800000 0");
        assert!(refused.starts_with("refused: this node's clock is "), "{refused}");
    }
    wrong.set_clock(0);
    let refused = wrong.ask("issue bob 1800000 0");
    assert!(refused.starts_with("refused: the limit of 5 active keys"), "{refused}");

    // A node that is a year ahead closes no quota.
    let daily = right.issue("eve", 600_000, 3);
    wrong.set_clock(YEAR);
    assert!(wrong.verify(&daily).starts_with("unavailable"));
    for expected in ["ok", "ok", "ok", "limited"] {
        assert_eq!(right.verify(&daily), expected);
    }

    // A node whose clock is wrong from the start.
    for by in [-YEAR, HOUR] {
        let mut started = Node::start(store, by);
        let answer = started.verify(&ten_minutes);
        assert!(answer.starts_with("unavailable: this node's clock is "), "{answer}");
        started.set_clock(0);
        assert_eq!(started.verify(&ten_minutes), "ok");
    }
}

/// Another process, as this one sees it.
struct Node {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Node {
    /// Starts a node whose clock is ahead by this number of milliseconds.
    fn start(store: &str, ahead: i64) -> Self {
        let test = "cache::wrong_clocks::serves_the_other_process";
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture", "--quiet"])
            .env(STORE, store)
            .env(AHEAD, ahead.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output) }
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the other process has ended");
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return answer.trim().to_owned();
            }
        }
    }

    fn set_clock(&mut self, ahead: i64) {
        assert_eq!(self.ask(&format!("clock {ahead}")), "set");
    }

    fn verify(&mut self, secret: &str) -> String {
        self.ask(&format!("verify {secret}"))
    }

    /// Issues a key with a lifetime in milliseconds and a daily quota, if that is not 0.
    fn issue(&mut self, account: &str, lifetime: u64, quota: u64) -> String {
        let answer = self.ask(&format!("issue {account} {lifetime} {quota}"));
        answer.strip_prefix("issued ").expect(&answer).to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The clock of the machine, set by this number of milliseconds.
struct SetClock(Arc<AtomicI64>);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        self.reading().wall
    }

    fn reading(&self) -> ClockReading {
        let ClockReading { wall, monotonic } = SystemClock.reading();
        let ahead = self.0.load(Ordering::SeqCst) * 1_000;
        ClockReading { wall: Timestamp::from_unix_micros(wall.as_unix_micros() + ahead), monotonic }
    }
}

/// Runs in the other process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the tests above"]
async fn serves_the_other_process() {
    let store = env::var(STORE).expect("this test is started by another one");
    let ahead = Arc::new(AtomicI64::new(env::var(AHEAD).unwrap().parse().unwrap()));
    let node = ApiKeys::builder_on(open(&store).await, format())
        .accounts(NoAccounts::with_limits(Limits::default().max_active_keys(5)))
        .clock(SetClock(ahead.clone()))
        .build();
    loop {
        let read = || {
            let mut line = String::new();
            stdin().read_line(&mut line).unwrap();
            line
        };
        let line = tokio::task::spawn_blocking(read).await.unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["clock", by] => {
                ahead.store(by.parse().unwrap(), Ordering::SeqCst);
                "set".into()
            }
            ["verify", secret] => match node.verify(secret, &VerifyRequest::new()).await {
                Ok(_) => "ok".into(),
                Err(VerifyError::Denied(denied)) => denied.reason().as_str().into(),
                Err(VerifyError::Limited(_)) => "limited".into(),
                Err(VerifyError::Unavailable(error)) => format!("unavailable: {error}"),
            },
            ["issue", account, lifetime, quota] => {
                let lifetime = Duration::from_millis(lifetime.parse().unwrap());
                let quota = Some(quota.parse().unwrap()).filter(|uses| *uses > 0);
                let limits = KeyLimits { quota: quota.map(Quota::per_day), ..KeyLimits::default() };
                let new = NewKey::new(&owner("acme", account), "key").unwrap().limits(limits);
                let new = new.expiry(Expiry::After(lifetime));
                match node.issue(new, &Actor::system("test")).await {
                    Ok(issued) => format!("issued {}", issued.secret.expose()),
                    Err(error) => format!("refused: {error}"),
                }
            }
            _ => return,
        };
        println!("{ANSWER}{answer}");
    }
}

const STORE: &str = "KEYWARD_TEST_STORE";
const AHEAD: &str = "KEYWARD_TEST_AHEAD";
const ANSWER: &str = "answer: ";
/// Milliseconds.
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;
