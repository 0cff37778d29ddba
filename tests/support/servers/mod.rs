//! Private PostgreSQL, Redis and mail servers for tests, started from the binaries installed on this machine.
//!
//! `postgres::shared` and `redis::shared` return a server for the whole run, started on first use, or the one
//! at `TEST_POSTGRES_URL` or `TEST_REDIS_URL`. `Options::start` starts a server for one test, to kill, stop,
//! freeze and restart. All return `None` if the server is not installed: the test then reports that on
//! standard error and returns, or fails if `REQUIRE_BACKENDS=1`.
//!
//! No server outlives the test process, however it ends: see [`Scratch`]. Works on Linux only, because it reads
//! `/proc`.

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

/// The address that a server listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// Waits until a condition holds.
///
/// # Panics
/// If it does not hold within 30 seconds.
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within_deadline(condition), "not true within {DEADLINE:?}: {what}");
}

/// Waits until an asynchronous condition holds.
///
/// # Panics
/// As [`until`].
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < DEADLINE, "not true within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn holds_within_deadline(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > DEADLINE {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Reports that a test was skipped, and how to install the server it needs.
///
/// # Panics
/// If `REQUIRE_BACKENDS=1`, so that a skipped test fails.
pub fn skip(server: &str, install: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let notice = format!("SKIPPED {test}: {server} is not installed. To install it: {install}");
    assert!(env::var_os("REQUIRE_BACKENDS").is_none_or(|value| value != "1"), "{notice}");
    // Not `eprintln!`, which the test harness hides when the test passes.
    let _ = writeln!(std::io::stderr(), "{notice}");
}

/// Returns the path of the first of these programs that exists in one of these folders or on the `PATH`.
pub fn program(names: &[&str], folders: &[PathBuf]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = folders.iter().cloned().chain(env::split_paths(&path)).collect();
    let candidates =
        names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    candidates.into_iter().find(|candidate| candidate.is_file())
}

pub fn text(path: &Path) -> String {
    path.to_str().expect("paths of test folders are UTF-8").to_owned()
}

const DEADLINE: Duration = Duration::from_secs(30);
