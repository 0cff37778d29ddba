//! A test suite for implementations of [`KeyStore`].
//!
//! The suite uses only the trait. Each check gets fresh storage. Checks run races where the contract
//! requires atomicity, drop the futures of writes at every await point, and compare everything that
//! can be read afterwards. The name of a check states the fact that it checks.
//!
//! If a store can have several handles to the same storage, such as two pools over one database,
//! return several: an acknowledged write must be visible through all of them, and races use all of
//! them.
//!
//! A store that keeps its data when the process ends is run with [`Suite::run_reopening`], which also
//! opens storage again and reads everything that was acknowledged before. A store that lacks a subject
//! leaves its checks out: [`Suite::without`]. [`Suite::on_progress`] shows what is running, and a
//! [`Report`] has the time of each check; a [failure](CheckFailure) names the methods that were called
//! last.
//!
//! # Examples
//! ```
//! use std::sync::Arc;
//!
//! use keyward::{KeyStore, MemoryStore, store::conformance::Suite};
//!
//! async fn open() -> Vec<Arc<dyn KeyStore>> {
//!     let store = MemoryStore::new();
//!     vec![Arc::new(store.clone()), Arc::new(store)]
//! }
//!
//! // In your own test: #[tokio::test(flavor = "multi_thread")]
//! #[tokio::main]
//! async fn main() {
//!     Suite::new().rounds(1).run(open).await;
//! }
//! ```

mod atomicity;
mod audit_log;
mod change_feed;
mod check;
mod clock;
mod counters;
mod fixtures;
mod key_changes;
mod key_reads;
mod key_removal;
mod one_time_codes;
mod recorder;
mod reopening;
mod scope;
mod sizes;
mod suite;
mod usage_history;
mod write_case;

use std::sync::Arc;

pub use suite::{CheckFailure, CheckState, Progress, Report, Suite};

use super::KeyStore;

/// Runs all checks with the default number of rounds.
///
/// `open` opens fresh, empty storage and returns one or more handles to it.
///
/// # Panics
/// Panics if a check fails; the message lists every failed check. Also panics like
/// [`Suite::report`].
///
/// # Examples
/// ```no_run
/// use std::sync::Arc;
///
/// use keyward::{KeyStore, MemoryStore, store::conformance};
///
/// # #[tokio::main]
/// # async fn main() {
/// conformance::run(|| async { vec![Arc::new(MemoryStore::new()) as Arc<dyn KeyStore>] }).await;
/// # }
/// ```
pub async fn run<F, Fut>(open: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Vec<Arc<dyn KeyStore>>>,
{
    Suite::new().run(open).await;
}

/// Runs all checks with the default number of rounds and returns which passed and failed.
///
/// # Panics
/// Panics like [`Suite::report`].
///
/// # Examples
/// ```no_run
/// use std::sync::Arc;
///
/// use keyward::{KeyStore, MemoryStore, store::conformance};
///
/// # #[tokio::main]
/// # async fn main() {
/// let open = || async { vec![Arc::new(MemoryStore::new()) as Arc<dyn KeyStore>] };
/// let report = conformance::report(open).await;
/// assert!(report.failed.is_empty(), "{report}");
/// # }
/// ```
pub async fn report<F, Fut>(open: F) -> Report
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Vec<Arc<dyn KeyStore>>>,
{
    Suite::new().report(open).await
}

/// Returns the names of all checks, in the order in which they run.
///
/// # Examples
/// ```
/// use keyward::store::conformance;
///
/// assert!(conformance::checks().any(|name| name == "racing_inserts_never_exceed_the_limit"));
/// ```
pub fn checks() -> impl Iterator<Item = &'static str> {
    suite::all().map(|check| check.name)
}
