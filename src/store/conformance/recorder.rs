//! Notes which methods a check calls, so that a failure names them.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    audit::{AuditEvent, AuditQuery},
    model::{Key, KeyId, Owner, OwnerScope, Timestamp},
    secret::SecretDigest,
    store::{
        ChangeBatch, ChangeFeed, ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, Counters,
        FeedMode, FoundKey, HourlyUsage, InsertKey, InsertOutcome, KeyQuery, KeyStore, KeyUse,
        OneTimeCode, OneTimeCodes, RevokeOutcome, RotateOutcome, RotateSecret, StoreClock,
        StoreError, UpdateOutcome, UsageHistory,
    },
};

/// The calls of one check, through all handles.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    /// The last calls, oldest first. A method that was called several times in a row is listed once.
    last: VecDeque<&'static str>,
    /// The method that returned an error last.
    failed: Option<&'static str>,
    /// How many calls of a method have not returned.
    running: BTreeMap<&'static str, usize>,
}

impl Calls {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the last calls, oldest first.
    pub(super) fn last(&self) -> Vec<&'static str> {
        self.log().last.iter().copied().collect()
    }

    /// Returns the method that returned an error last.
    pub(super) fn failed(&self) -> Option<&'static str> {
        self.log().failed
    }

    /// Returns the methods with calls that have not returned.
    pub(super) fn running(&self) -> Vec<&'static str> {
        self.log().running.keys().copied().collect()
    }

    async fn record<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let running = Running::start(self, method);
        let result = call.await;
        if result.is_err() {
            running.calls.log().failed = Some(method);
        }
        result
    }
}

/// A call that has not returned. Its future may be dropped.
struct Running<'a> {
    calls: &'a Calls,
    method: &'static str,
}

impl<'a> Running<'a> {
    fn start(calls: &'a Calls, method: &'static str) -> Self {
        let mut log = calls.log();
        if log.last.back() != Some(&method) {
            log.last.push_back(method);
        }
        if log.last.len() > LAST_CALLS {
            log.last.pop_front();
        }
        *log.running.entry(method).or_default() += 1;
        Self { calls, method }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut log = self.calls.log();
        match log.running.get_mut(self.method) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = log.running.remove(self.method),
        }
    }
}

/// A store whose calls are recorded.
pub(super) struct RecordedStore {
    pub(super) store: Arc<dyn KeyStore>,
    pub(super) calls: Calls,
}

impl fmt::Debug for RecordedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedStore").finish_non_exhaustive()
    }
}

/// A store has what it had when the recorded store was asked for it.
impl RecordedStore {
    fn store(&self) -> &dyn KeyStore {
        &*self.store
    }

    fn feed(&self) -> &dyn ChangeFeed {
        self.store.change_feed().expect(SAME)
    }

    fn quotas(&self) -> &dyn Counters {
        self.store.counters().expect(SAME)
    }

    fn history(&self) -> &dyn UsageHistory {
        self.store.usage_history().expect(SAME)
    }

    fn codes(&self) -> &dyn OneTimeCodes {
        self.store.one_time_codes().expect(SAME)
    }

    fn server_clock(&self) -> &dyn StoreClock {
        self.store.clock().expect(SAME)
    }
}

/// Implements a trait by recording each call.
macro_rules! record {
    ($trait:ident by $inner:ident { $($accessors:tt)* } {
        $($method:ident($($name:ident: $type:ty),*) -> $answer:ty;)*
    }) => {
        #[async_trait]
        impl $trait for RecordedStore {
            $($accessors)*

            $(async fn $method(&self, $($name: $type),*) -> Result<$answer, StoreError> {
                let call = self.$inner().$method($($name),*);
                self.calls.record(stringify!($method), call).await
            })*
        }
    };
}

record! { KeyStore by store {
    fn change_feed(&self) -> Option<&dyn ChangeFeed> {
        self.store.change_feed().map(|_| self as _)
    }

    fn counters(&self) -> Option<&dyn Counters> {
        self.store.counters().map(|_| self as _)
    }

    fn usage_history(&self) -> Option<&dyn UsageHistory> {
        self.store.usage_history().map(|_| self as _)
    }

    fn one_time_codes(&self) -> Option<&dyn OneTimeCodes> {
        self.store.one_time_codes().map(|_| self as _)
    }

    fn clock(&self) -> Option<&dyn StoreClock> {
        self.store.clock().map(|_| self as _)
    }
} {
    insert(new: InsertKey<'_>) -> InsertOutcome;
    find(digests: &[SecretDigest]) -> Option<FoundKey>;
    get(within: OwnerScope<'_>, id: KeyId) -> Option<Arc<Key>>;
    list(query: &KeyQuery<'_>) -> Vec<Arc<Key>>;
    tenants(after: Option<&str>, limit: u32) -> Vec<String>;
    update(key: &Key, event: &AuditEvent) -> UpdateOutcome;
    rotate(rotate: RotateSecret<'_>) -> RotateOutcome;
    revoke(within: OwnerScope<'_>, id: KeyId, event: &AuditEvent) -> RevokeOutcome;
    revoke_all(owner: &Owner, event: &AuditEvent) -> Vec<AuditEvent>;
    delete(within: OwnerScope<'_>, id: KeyId, event: &AuditEvent) -> bool;
    purge_keys(before: Timestamp, limit: u32, event: &AuditEvent) -> Vec<AuditEvent>;
    record_uses(uses: &[KeyUse]) -> Vec<AuditEvent>;
    rehash(from: &SecretDigest, to: &SecretDigest) -> bool;
    record_events(events: &[AuditEvent]) -> u32;
    events(query: &AuditQuery<'_>) -> Vec<AuditEvent>;
    purge_events(before: Timestamp, limit: u32) -> u32;
} }

record! { StoreClock by server_clock {} {
    now() -> Timestamp;
} }

record! { ChangeFeed by feed {} {
    changes(after: Option<u64>) -> ChangeBatch;
    wait_for_changes(after: u64, at_most: Duration) -> FeedMode;
    announce_account_change(owner: &Owner, at: Timestamp) -> u32;
    purge_changes(before: Timestamp) -> u32;
} }

record! { Counters by quotas {} {
    charge(charges: &[CounterCharge<'_>]) -> ChargeOutcome;
    refund(charges: &[CounterCharge<'_>]) -> ();
    purge_counters(before: Timestamp, limit: u32) -> u32;
} }

record! { UsageHistory by history {} {
    add_usage(usage: &[HourlyUsage]) -> ();
    hourly_usage(within: OwnerScope<'_>, id: KeyId, from: Timestamp) -> Vec<HourlyUsage>;
    purge_usage(before: Timestamp, limit: u32) -> u32;
} }

record! { OneTimeCodes by codes {} {
    put_code(address: &SecretDigest, code: &OneTimeCode) -> ();
    try_code(attempt: &CodeAttempt) -> CodeOutcome;
    purge_codes(before: Timestamp, limit: u32) -> u32;
} }

const SAME: &str = "what a store returns for a subject does not change while it exists";
/// Enough to see which write preceded the read that a check compares.
const LAST_CALLS: usize = 6;
