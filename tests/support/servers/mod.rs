//! Private PostgreSQL, Redis and mail servers for tests, started from the binaries installed on this machine.
//!
//! `postgres::shared` and `redis::shared` give the one server of the whole run, started when first asked
//! for; `TEST_POSTGRES_URL` and `TEST_REDIS_URL` name another to use instead. `Options::start` gives a test
//! a server of its own, to kill, stop, freeze and restart. Each is `None` where the server is not installed:
//! the test says so on standard error and returns, or fails if `REQUIRE_BACKENDS=1`.
//!
//! Nothing outlives the test process, however it ends: see [`Scratch`]. Linux only, for its `/proc`.

pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
mod scratch;
pub mod smtp;

use std::{
    env,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

pub use proxy::Proxy;
pub use scratch::{Scratch, User};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// Waits until a condition holds.
///
/// # Panics
/// If it does not hold within half a minute.
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within_deadline(condition), "within {DEADLINE:?}, this never was so: {what}");
}

/// Waits until a condition holds that takes a call to find out.
///
/// # Panics
/// As [`until`].
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < DEADLINE, "within {DEADLINE:?}, this never was so: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn holds_within_deadline(mut condition: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !condition() {
        if begun.elapsed() > DEADLINE {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Says that a test was skipped and how to install what it needs.
///
/// # Panics
/// If `REQUIRE_BACKENDS=1`: then a skipped test is a failed one.
pub fn skip(server: &str, install: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let notice = format!("SKIPPED {test}: {server} is not installed. To install it: {install}");
    assert!(env::var_os("REQUIRE_BACKENDS").is_none_or(|value| value != "1"), "{notice}");
    // Not `eprintln!`, which the test harness hides when the test passes.
    let _ = writeln!(std::io::stderr(), "{notice}");
}

/// The first of these programs that is in one of these folders or on the `PATH`.
pub fn program(names: &[&str], folders: &[PathBuf]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = folders.iter().cloned().chain(env::split_paths(&path)).collect();
    let candidates =
        names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    candidates.into_iter().find(|candidate| candidate.is_file())
}

pub fn text(path: &Path) -> String {
    path.to_str().expect("folders of tests have plain names").to_owned()
}

const DEADLINE: Duration = Duration::from_secs(30);
