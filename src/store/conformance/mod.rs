//! What every [`KeyStore`] must do, as checks that the author of a store runs in a test.
//!
//! The suite knows a store by its trait alone. It opens fresh storage for every check, lets tasks
//! race where the contract promises atomicity, drops writes halfway, and compares whatever can be
//! read afterwards. Checks are named as facts, so that a failure says which promise is broken.
//!
//! Hand out several handles where a store can have them, such as two pools over one database: an
//! acknowledged write must be visible through all of them, and races go over all of them.
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
//! // In a test of your own: #[tokio::test(flavor = "multi_thread")]
//! #[tokio::main]
//! async fn main() {
//!     Suite::new().rounds(1).run(open).await;
//! }
//! ```

mod audit;
mod codes;
mod deed;
mod drops;
mod feed;
mod fields;
mod find;
mod insert;
mod list;
mod log;
mod quotas;
mod rehash;
mod remove;
mod report;
mod revoke;
mod revoke_all;
mod rotate;
mod sample;
mod scope;
mod storage;
mod suite;
mod tallies;
mod tenants;
mod update;
mod usage;
mod view;
mod wait;

use std::sync::Arc;

pub use report::{Failure, Report};
pub use suite::Suite;

use super::KeyStore;

/// Runs all checks with the default number of rounds.
///
/// `open` opens fresh, empty storage and returns one or several handles to it.
///
/// # Panics
/// If a check fails; the message lists every failed check. Also as [`Suite::report`] does.
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

/// Runs all checks with the default number of rounds and tells which failed.
///
/// # Panics
/// As [`Suite::report`].
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

/// The names of all checks, in the order in which they run.
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
