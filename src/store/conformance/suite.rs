use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::{runtime, task::JoinError, time::error::Elapsed};

use super::{
    audit, codes, drops, feed, fields, find, insert, list, log, quotas, rehash, remove,
    report::{Failure, Report, words},
    revoke, revoke_all, rotate, scope,
    storage::{Checked, Storage},
    tallies, tenants, update, usage, wait,
};
use crate::store::KeyStore;

/// A run of the checks, and how thorough it is.
///
/// # Examples
/// ```
/// use std::sync::Arc;
///
/// use keyward::{KeyStore, MemoryStore, store::conformance::Suite};
///
/// # #[tokio::main]
/// # async fn main() {
/// let races = Suite::new().only(["racing_inserts_never_exceed_the_limit"]).rounds(200);
/// races.run(|| async { vec![Arc::new(MemoryStore::new()) as Arc<dyn KeyStore>] }).await;
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a suite does nothing until it is run"]
pub struct Suite {
    rounds: u32,
    patience: Duration,
    chosen: Vec<&'static Check>,
}

/// A fact about stores, and the way to find out.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) run: fn(Storage) -> Running,
}

pub(super) type Running = Pin<Box<dyn Future<Output = Checked> + Send>>;

/// Makes functions checks, named as they are.
macro_rules! checks {
    ($($check:ident),* $(,)?) => {
        pub(super) const CHECKS: &[super::suite::Check] = &[$(super::suite::Check {
            name: stringify!($check),
            run: |storage| Box::pin($check(storage)),
        }),*];
    };
}
pub(super) use checks;

impl Suite {
    /// All checks, with 20 rounds of each race and a patience of 5 seconds.
    pub fn new() -> Self {
        Self { rounds: 20, patience: Duration::from_secs(5), chosen: all().collect() }
    }

    /// How often each race is run. More rounds find rarer interleavings.
    pub fn rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds;
        self
    }

    /// How long a store may take to finish or undo in the background a write that was dropped.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Only these checks, by their names.
    ///
    /// # Panics
    /// If there is no check of such a name.
    pub fn only<T: AsRef<str>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        let named = |name: T| {
            let found = all().find(|check| check.name == name.as_ref());
            found.unwrap_or_else(|| panic!("no check is named {}", name.as_ref()))
        };
        self.chosen = names.into_iter().map(named).collect();
        self
    }

    /// Runs the checks, one after the other, and tells which failed. Each is a task of its own in
    /// storage of its own: `open` opens it, fresh and empty, and returns one or several handles.
    ///
    /// # Panics
    /// On a runtime with a single thread, where nothing races and races would prove nothing; or if
    /// `open` panics or returns no handle.
    pub async fn report<F, Fut>(&self, mut open: F) -> Report
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Vec<Arc<dyn KeyStore>>>,
    {
        let flavor = runtime::Handle::current().runtime_flavor();
        let single = flavor == runtime::RuntimeFlavor::CurrentThread;
        assert!(!single, "run the conformance suite on a multi-thread runtime");

        let mut report = Report::default();
        for check in &self.chosen {
            let storage = Storage::new(open().await, self.rounds, self.patience);
            let running = tokio::spawn(tokio::time::timeout(TOO_LONG, (check.run)(storage)));
            match message(running.await) {
                None => report.passed.push(check.name),
                Some(message) => report.failed.push(Failure { check: check.name, message }),
            }
        }
        report
    }

    /// Runs the checks as [`report`](Suite::report) does.
    ///
    /// # Panics
    /// If a check fails; the message lists every failed check. Also as [`report`](Suite::report).
    pub async fn run<F, Fut>(&self, open: F)
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Vec<Arc<dyn KeyStore>>>,
    {
        let report = self.report(open).await;
        assert!(report.failed.is_empty(), "{report}");
    }
}

impl Default for Suite {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) fn all() -> impl Iterator<Item = &'static Check> {
    let rooms = [
        insert::CHECKS,
        find::CHECKS,
        fields::CHECKS,
        scope::CHECKS,
        list::CHECKS,
        tenants::CHECKS,
        update::CHECKS,
        rotate::CHECKS,
        revoke::CHECKS,
        revoke_all::CHECKS,
        remove::CHECKS,
        usage::CHECKS,
        rehash::CHECKS,
        log::CHECKS,
        audit::CHECKS,
        feed::CHECKS,
        wait::CHECKS,
        drops::CHECKS,
        quotas::CHECKS,
        tallies::CHECKS,
        codes::CHECKS,
    ];
    rooms.into_iter().flatten()
}

/// In which way a check failed, if it did.
fn message(ended: Result<Result<Checked, Elapsed>, JoinError>) -> Option<String> {
    match ended {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(error))) => {
            let mut message = format!("the store failed: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                message += &format!(": {error}");
                cause = error.source();
            }
            Some(message)
        }
        Ok(Err(_)) => Some(format!("not done after {TOO_LONG:?}: does the store hang?")),
        Err(error) => Some(match error.try_into_panic() {
            Ok(panic) => words(&*panic),
            Err(error) => error.to_string(),
        }),
    }
}

/// So that a deadlock is a failure like any other. No honest store comes near it.
const TOO_LONG: Duration = Duration::from_secs(300);
