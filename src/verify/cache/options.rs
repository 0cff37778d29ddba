use std::time::Duration;

use crate::model::Rate;

/// How verified keys are cached in memory. The defaults are safe and fit most services.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use keyward::{ApiKeys, KeyFormat, MemoryStore, model::Rate, verify::CacheOptions};
///
/// let options = CacheOptions::default()
///     .max_keys(1_000_000)
///     .max_staleness(Duration::from_secs(2))
///     .failed_attempts_per_network(Rate::per_minute(300));
/// let keys = ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build()?)
///     .cache(options)
///     .build();
/// # Ok::<(), keyward::secret::FormatError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct CacheOptions {
    pub(super) max_keys: usize,
    pub(super) max_unknown: usize,
    pub(super) max_staleness: Duration,
    pub(super) strict: bool,
    pub(super) unknown_lookups: u32,
    pub(super) failed_attempts: Option<Rate>,
}

impl CacheOptions {
    /// Sets the maximum number of cached keys. Defaults to 100,000; at most 16,777,216. A cached key takes about 400
    /// bytes, from when it is cached.
    pub fn max_keys(self, keys: usize) -> Self {
        Self { max_keys: keys, ..self }
    }

    /// Sets the maximum number of cached unknown digests. Defaults to 10,000.
    ///
    /// They do not share space with cached keys: a flood of garbage evicts no key.
    pub fn max_unknown(self, digests: usize) -> Self {
        Self { max_unknown: digests, ..self }
    }

    /// Sets the revocation bound: the longest time for which a key can be accepted after another node ended it,
    /// whatever happens to the store, the network or the change feed. Defaults to 5 seconds.
    ///
    /// While the change feed works, a node learns of a change within milliseconds if the store pushes changes, and within
    /// a quarter of the bound if it has to be polled. An entry is trusted for this time after it was read, or after the
    /// feed was last read to its end, whichever is later; then the store is read. The host's accounts are read again
    /// after this time in any case. If the store has no change feed, each entry is read again after this time.
    ///
    /// The age of what was read is checked when a request is answered, also for a request that had to wait: for a
    /// look-up, its own or that of another request, for the host's accounts, or for a rate limiter or a quota. If it is
    /// older than the bound by then, it is read again. A second reading that takes longer than the bound is answered
    /// *unavailable*. So the bound has to be longer than the store and the accounts take to answer. Without a cache, the
    /// bound for requests that wait is 5 seconds.
    ///
    /// # Pauses
    /// - **A stopped process** (`SIGSTOP`, a frozen cgroup) keeps the bound exactly: the clocks go on.
    /// - **A suspended machine** (a laptop that sleeps) keeps the bound exactly on Linux, where `CLOCK_BOOTTIME` counts
    ///   the suspension. On other systems, the jump of the wall clock after the resume ends the trust in all entries.
    /// - **A paused virtual machine** may see no clock move. Then the bound counts from the resume: a key that ended
    ///   during the pause can be accepted for the bound after it. As soon as the wall clock jumps by more than half a
    ///   second against the monotonic clock, in either direction, everything that was read before is read again.
    ///
    /// A request whose thread is paused between the decision and the answer is not decided again.
    pub fn max_staleness(self, bound: Duration) -> Self {
        Self { max_staleness: bound, ..self }
    }

    /// Fails closed: trusts no entry while the last reading of the change feed has failed, or none was made yet, or if the
    /// store has no change feed. Each verification then reads the store, and is *unavailable* if the store does not answer.
    /// Off by default.
    pub fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    /// Sets how many look-ups per second may find no key. Defaults to 1,000; the minimum is 2.
    ///
    /// Beyond it, well-formed but unknown secrets are answered *unavailable*, because only the store can tell that they
    /// are unknown. Cached keys are not affected, also if they have to be read again; a key that is not in the cache
    /// competes with the flood. Half of the look-ups are reserved for client networks that sent no unknown
    /// secret, so that a flood from a few networks does not block new keys of others. Requests
    /// without a known address have only the other half. A look-up that finds a key is not counted.
    pub fn unknown_lookups_per_second(self, lookups: u32) -> Self {
        Self { unknown_lookups: lookups, ..self }
    }

    /// Sets how many unknown secrets one client network (an IPv4 /24 or an IPv6 /64) may present. Beyond it, requests
    /// of the network are answered [`Limited`](crate::VerifyError::Limited) before anything is looked up. Off by
    /// default.
    ///
    /// All requests without a known address share one limit: a third of the rate. A service that never passes an
    /// address MUST set a rate for all of its clients together.
    ///
    /// A cached key is always answered, and each success makes up for one failure: a network with one broken client and
    /// a hundred good ones is not limited. Both hold without an address, too. The table takes 32 KiB for any number of
    /// networks; 1 of 4,096 networks shares the count of another one.
    pub fn failed_attempts_per_network(self, rate: Rate) -> Self {
        Self { failed_attempts: Some(rate), ..self }
    }

    /// Options of a cache that holds nothing and limits nothing. A look-up that takes longer than the bound is repeated
    /// all the same.
    pub(crate) fn disabled() -> Self {
        Self { max_keys: 0, max_unknown: 0, ..Self::default() }
    }

    /// Returns the revocation bound, also without a cache.
    pub(crate) fn bound(options: Option<&Self>) -> Duration {
        options.map_or_else(|| Self::default().max_staleness, |options| options.max_staleness)
    }
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            max_keys: 100_000,
            max_unknown: 10_000,
            max_staleness: Duration::from_secs(5),
            strict: false,
            unknown_lookups: 1_000,
            failed_attempts: None,
        }
    }
}
