use std::{
    any::Any,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{runtime, sync::mpsc, task::JoinError, time::error::Elapsed};

use super::{
    atomicity, audit_log, change_feed,
    check::{Check, CheckResult, TestStorage},
    clock, counters, key_changes, key_reads, key_removal, one_time_codes,
    recorder::Calls,
    reopening, scope, sizes, usage_history,
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
#[derive(Clone)]
#[must_use = "a suite does nothing until it is run"]
pub struct Suite {
    rounds: u32,
    patience: Duration,
    checks: Vec<&'static Check>,
    on_progress: Arc<dyn Fn(&Progress<'_>) + Send + Sync>,
}

impl Suite {
    /// Creates a suite of all checks, with 20 rounds per race and a patience of 5 seconds.
    pub fn new() -> Self {
        let patience = Duration::from_secs(5);
        Self { rounds: 20, patience, checks: all().collect(), on_progress: Arc::new(|_| ()) }
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

    /// Calls a function when a check begins and when it has ended.
    ///
    /// # Examples
    /// ```
    /// use keyward::store::conformance::Suite;
    ///
    /// // [7/120] find_returns_the_latest_committed_key: passed in 12 ms
    /// let suite = Suite::new().on_progress(|progress| println!("{progress}"));
    /// ```
    pub fn on_progress(
        mut self,
        on_progress: impl Fn(&Progress<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.on_progress = Arc::new(on_progress);
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
    /// returns one or more handles to it. Checks that open storage again are
    /// [skipped](Report::skipped): see [`report_reopening`](Suite::report_reopening).
    ///
    /// # Panics
    /// Panics on a single-threaded runtime, because races would prove nothing, and if `open` panics
    /// or returns no handle.
    pub async fn report<F, Fut>(&self, mut open: F) -> Report
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Vec<Arc<dyn KeyStore>>>,
    {
        self.run_checks(false, async || (), async |()| open().await).await
    }

    /// Runs the checks like [`report`](Suite::report), and those that open storage again to read what
    /// was acknowledged before.
    ///
    /// `create` creates fresh, empty storage, such as a folder or a database. `open` opens it and
    /// returns one or more handles; a check may call it several times for one storage. Before it is
    /// called again, the suite drops all handles. What `create` returned is dropped after the check.
    ///
    /// A process that is aborted drops nothing. To test what it leaves behind, keep a clone of each
    /// handle in what `create` returned, so that the store cannot flush anything when it is dropped,
    /// and open a copy of its files.
    ///
    /// # Panics
    /// Panics like [`report`](Suite::report), and if `create` panics.
    ///
    /// # Examples
    /// ```no_run
    /// use std::sync::Arc;
    ///
    /// use keyward::{KeyStore, store::conformance::Suite};
    ///
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example() {
    /// use keyward::SqliteStore;
    ///
    /// let create = async || tempfile::tempdir().expect("a temporary folder");
    /// let open = async |folder: &mut tempfile::TempDir| {
    ///     let store = SqliteStore::open(folder.path().join("keys.db")).await.expect("it can be opened");
    ///     vec![Arc::new(store) as Arc<dyn KeyStore>]
    /// };
    /// let report = Suite::new().report_reopening(create, open).await;
    /// assert!(report.failed.is_empty(), "{report}");
    /// # }
    /// ```
    pub async fn report_reopening<S>(
        &self,
        create: impl AsyncFnMut() -> S,
        open: impl AsyncFnMut(&mut S) -> Vec<Arc<dyn KeyStore>>,
    ) -> Report {
        self.run_checks(true, create, open).await
    }

    async fn run_checks<S>(
        &self,
        can_reopen: bool,
        mut create: impl AsyncFnMut() -> S,
        mut open: impl AsyncFnMut(&mut S) -> Vec<Arc<dyn KeyStore>>,
    ) -> Report {
        let flavor = runtime::Handle::current().runtime_flavor();
        let single = flavor == runtime::RuntimeFlavor::CurrentThread;
        assert!(!single, "run the conformance suite on a multi-thread runtime");

        let (checks, skipped): (Vec<_>, Vec<_>) =
            self.checks.iter().copied().partition(|check| can_reopen || !check.reopens);
        let skipped = skipped.iter().map(|check| check.name).collect();
        let mut report = Report { skipped, ..Report::default() };
        for (number, &check) in (1..).zip(&checks) {
            let progress =
                |state| Progress { check: check.name, number, total: checks.len(), state };
            (self.on_progress)(&progress(CheckState::Started));
            let mut storage = create().await;
            let (calls, (reopen, mut requests)) = (Calls::default(), mpsc::channel(1));
            let handles = open(&mut storage).await;
            let test = TestStorage::new(handles, calls.clone(), self.rounds, self.patience, reopen);
            let started = Instant::now();
            let running = tokio::spawn(tokio::time::timeout(TIME_LIMIT, (check.run)(test)));
            // Ends when the check has ended, because it has the only sender.
            while let Some(request) = requests.recv().await {
                // A check that was stopped needs no handles.
                let _ = request.send(open(&mut storage).await);
            }
            let result = running.await;
            let took = started.elapsed();
            report.durations.push((check.name, took));
            match failure_message(result, &calls) {
                None => {
                    report.passed.push(check.name);
                    (self.on_progress)(&progress(CheckState::Passed(took)));
                }
                Some(message) => {
                    let failure = CheckFailure { check: check.name, message, calls: calls.last() };
                    (self.on_progress)(&progress(CheckState::Failed(took, &failure)));
                    report.failed.push(failure);
                }
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

    /// Runs the checks like [`report_reopening`](Suite::report_reopening).
    ///
    /// # Panics
    /// Panics if a check fails; the message lists every failed check. Also panics like
    /// [`report_reopening`](Suite::report_reopening).
    pub async fn run_reopening<S>(
        &self,
        create: impl AsyncFnMut() -> S,
        open: impl AsyncFnMut(&mut S) -> Vec<Arc<dyn KeyStore>>,
    ) {
        let report = self.report_reopening(create, open).await;
        assert!(report.failed.is_empty(), "{report}");
    }
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, patience, checks, on_progress: _ } = self;
        let mut suite = f.debug_struct("Suite");
        suite.field("rounds", rounds).field("patience", patience).field("checks", checks);
        suite.finish_non_exhaustive()
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
        clock::CHECKS,
        atomicity::CHECKS,
        sizes::CHECKS,
        reopening::CHECKS,
    ];
    modules.into_iter().flatten()
}

/// The progress of a run of the suite, for [`Suite::on_progress`].
///
/// `Display` writes one line: `[7/120] find_returns_the_latest_committed_key: passed in 12 ms`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The name of the check.
    pub check: &'static str,
    /// The position of the check among those that run, from 1 on.
    pub number: usize,
    /// How many checks run.
    pub total: usize,
    /// What happened.
    pub state: CheckState<'a>,
}

/// What happened to a check.
///
/// Exhaustive on purpose: these are all cases.
#[derive(Clone, Copy, Debug)]
pub enum CheckState<'a> {
    /// It begins.
    Started,
    /// It passed in this time.
    Passed(Duration),
    /// It failed after this time.
    Failed(Duration, &'a CheckFailure),
}

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, number, total, state } = self;
        write!(f, "[{number}/{total}] {check}")?;
        match state {
            CheckState::Started => Ok(()),
            CheckState::Passed(took) => write!(f, ": passed in {} ms", took.as_millis()),
            CheckState::Failed(took, _) => write!(f, ": failed after {} ms", took.as_millis()),
        }
    }
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
    /// The checks that were not run because they open storage again, which only
    /// [`Suite::report_reopening`] can do.
    pub skipped: Vec<&'static str>,
    /// How long each check took, in the order in which they ran.
    pub durations: Vec<(&'static str, Duration)>,
}

/// A check that a store failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckFailure {
    /// The name of the check: the fact that does not hold for the store.
    pub check: &'static str,
    /// What was observed instead, and which method failed if one did.
    pub message: String,
    /// The methods that the check called last, oldest first. A read that found something wrong comes
    /// last, after the write that caused it.
    pub calls: Vec<&'static str>,
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
        for failure in &self.failed {
            write!(f, "\n\n{failure}")?;
        }
        Ok(())
    }
}

impl fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, message, calls } = self;
        write!(f, "{check}\n    {}", message.replace('\n', "\n    "))?;
        write!(f, "\n    last calls: {}", calls.join(", "))
    }
}

/// Returns the message of a failed check, or `None` if it passed.
fn failure_message(
    result: Result<Result<CheckResult, Elapsed>, JoinError>,
    calls: &Calls,
) -> Option<String> {
    match result {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(error))) => Some(match calls.failed() {
            Some(method) => format!("`{method}` failed: {error}"),
            None => format!("the store failed: {error}"),
        }),
        Ok(Err(_)) => Some(match calls.running().as_slice() {
            [] => format!("the check did not finish within {TIME_LIMIT:?}"),
            running => format!(
                "the check did not finish within {TIME_LIMIT:?}; the store may be deadlocked. \
                 Calls that have not returned: {}",
                running.join(", ")
            ),
        }),
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
