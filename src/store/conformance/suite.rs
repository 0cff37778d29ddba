use std::{any::Any, fmt, sync::Arc, time::Duration};

use tokio::{runtime, task::JoinError, time::error::Elapsed};

use super::{
    atomicity, audit_log, change_feed,
    check::{Check, CheckResult, TestStorage},
    counters, key_changes, key_reads, key_removal, one_time_codes, scope, usage_history,
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
            let storage = TestStorage::new(open().await, self.rounds, self.patience);
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
    let modules = [
        key_reads::CHECKS,
        key_changes::CHECKS,
        key_removal::CHECKS,
        scope::CHECKS,
        audit_log::CHECKS,
        change_feed::CHECKS,
        usage_history::CHECKS,
        counters::CHECKS,
        one_time_codes::CHECKS,
        atomicity::CHECKS,
    ];
    modules.into_iter().flatten()
}

/// What a run of the suite found.
#[derive(Clone, Debug, Default)]
#[must_use]
#[non_exhaustive]
pub struct Report {
    /// The checks that the store passed.
    pub passed: Vec<&'static str>,
    /// The checks that it failed, and how.
    pub failed: Vec<Failure>,
}

/// A check that a store failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The name of the check: the fact that does not hold.
    pub check: &'static str,
    /// What was seen instead.
    pub message: String,
}

impl Report {
    /// Whether this check was run and failed.
    pub fn caught(&self, check: &str) -> bool {
        self.failed.iter().any(|failure| failure.check == check)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, all) = (self.failed.len(), self.failed.len() + self.passed.len());
        write!(f, "{failed} of {all} conformance checks failed")?;
        for Failure { check, message } in &self.failed {
            write!(f, "\n\n{check}\n    {}", message.replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

/// In which way a check failed, if it did.
fn message(ended: Result<Result<CheckResult, Elapsed>, JoinError>) -> Option<String> {
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

/// What a panic said.
pub(super) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    text.unwrap_or_else(|| "it panicked".into())
}

/// So that a deadlock is a failure like any other. No honest store comes near it.
const TOO_LONG: Duration = Duration::from_secs(300);
