use std::{any::Any, fmt, sync::Arc, time::Duration};

use tokio::{runtime, task::JoinError, time::error::Elapsed};

use super::{
    atomicity, audit_log, change_feed,
    check::{Check, CheckResult, TestStorage},
    counters, key_changes, key_reads, key_removal, one_time_codes, scope, usage_history,
};
use crate::store::{Capability, KeyStore};

/// A configurable run of the conformance checks.
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
    checks: Vec<&'static Check>,
}

impl Suite {
    /// Creates a suite of all checks, with 20 rounds per race and a patience of 5 seconds.
    pub fn new() -> Self {
        Self { rounds: 20, patience: Duration::from_secs(5), checks: all().collect() }
    }

    /// Sets how often each race is run. Defaults to 20. More rounds find rarer interleavings.
    pub fn rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds;
        self
    }

    /// Sets how long a store may take to complete or undo a dropped write in the background, and to
    /// wake up a waiting reader. Defaults to 5 seconds.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Leaves out the checks of a capability that the store lacks. A store with a capability must pass
    /// its checks.
    ///
    /// # Examples
    /// ```
    /// use keyward::store::{Capability, conformance::Suite};
    ///
    /// let suite = Suite::new().without(Capability::ChangeFeed).without(Capability::OneTimeCodes);
    /// ```
    pub fn without(mut self, missing: Capability) -> Self {
        self.checks.retain(|check| check.needs != Some(missing));
        self
    }

    /// Runs only the checks with these names.
    ///
    /// # Panics
    /// Panics if no check has one of the names.
    pub fn only<T: AsRef<str>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        let named = |name: T| {
            let found = all().find(|check| check.name == name.as_ref());
            found.unwrap_or_else(|| panic!("no conformance check is named {:?}", name.as_ref()))
        };
        self.checks = names.into_iter().map(named).collect();
        self
    }

    /// Runs the checks one after the other and returns which passed and failed.
    ///
    /// Each check runs in its own task and its own storage: `open` opens fresh, empty storage and
    /// returns one or more handles to it.
    ///
    /// # Panics
    /// Panics on a single-threaded runtime, because races would prove nothing, and if `open` panics
    /// or returns no handle.
    pub async fn report<F, Fut>(&self, mut open: F) -> Report
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Vec<Arc<dyn KeyStore>>>,
    {
        let flavor = runtime::Handle::current().runtime_flavor();
        let single = flavor == runtime::RuntimeFlavor::CurrentThread;
        assert!(!single, "run the conformance suite on a multi-thread runtime");

        let mut report = Report::default();
        for check in &self.checks {
            let storage = TestStorage::new(open().await, self.rounds, self.patience);
            let running = tokio::spawn(tokio::time::timeout(TIME_LIMIT, (check.run)(storage)));
            match failure_message(running.await) {
                None => report.passed.push(check.name),
                Some(message) => report.failed.push(CheckFailure { check: check.name, message }),
            }
        }
        report
    }

    /// Runs the checks like [`report`](Suite::report).
    ///
    /// # Panics
    /// Panics if a check fails; the message lists every failed check. Also panics like
    /// [`report`](Suite::report).
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

/// The result of a run of the suite.
#[derive(Clone, Debug, Default)]
#[must_use]
#[non_exhaustive]
pub struct Report {
    /// The checks that the store passed.
    pub passed: Vec<&'static str>,
    /// The checks that the store failed.
    pub failed: Vec<CheckFailure>,
}

/// A check that a store failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckFailure {
    /// The name of the check: the fact that does not hold for the store.
    pub check: &'static str,
    /// What was observed instead.
    pub message: String,
}

impl Report {
    /// Returns whether this check was run and failed.
    pub fn caught(&self, check: &str) -> bool {
        self.failed.iter().any(|failure| failure.check == check)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, all) = (self.failed.len(), self.failed.len() + self.passed.len());
        write!(f, "{failed} of {all} conformance checks failed")?;
        for CheckFailure { check, message } in &self.failed {
            write!(f, "\n\n{check}\n    {}", message.replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

/// Returns the message of a failed check, or `None` if it passed.
fn failure_message(result: Result<Result<CheckResult, Elapsed>, JoinError>) -> Option<String> {
    match result {
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
        Ok(Err(_)) => Some(format!(
            "the check did not finish within {TIME_LIMIT:?}; the store may be deadlocked"
        )),
        Err(error) => Some(match error.try_into_panic() {
            Ok(panic) => panic_message(&*panic),
            Err(error) => error.to_string(),
        }),
    }
}

/// Returns the message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    text.unwrap_or_else(|| "the check panicked".into())
}

/// Turns a deadlock into a failed check. A correct store is far below this limit.
const TIME_LIMIT: Duration = Duration::from_secs(300);
