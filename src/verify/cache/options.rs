use std::time::Duration;

use crate::model::Rate;

/// How verified keys are kept in memory. The defaults are safe and fit most services.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use keyward::{ApiKeys, KeyFormat, MemoryStore, verify::CacheOptions, model::Rate};
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
    pub(crate) max_keys: usize,
    pub(crate) max_unknown: usize,
    pub(crate) max_staleness: Duration,
    pub(crate) strict: bool,
    pub(crate) unknown_lookups: u32,
    pub(crate) failed_attempts: Option<Rate>,
}

impl CacheOptions {
    /// How many keys are kept; 100,000 by default. A cached key takes about a kilobyte; one that threads
    /// use at the same time all along, about five.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// How many unknown digests are remembered as such; 10,000 by default. They have room of their
    /// own: no flood of garbage makes a key be forgotten.
    pub fn max_unknown(mut self, digests: usize) -> Self {
        self.max_unknown = digests;
        self
    }

    /// The bound: for how long at most a key can be accepted after another node ended it, whatever
    /// becomes of the store, the network or the change feed; 5 seconds by default.
    ///
    /// While the change feed flows, other nodes learn of a change as soon as the store tells them.
    /// When it does not, entries are believed only until they are this old, and then the store is
    /// asked. What the host says of an account is asked again after this time in any case.
    pub fn max_staleness(mut self, bound: Duration) -> Self {
        self.max_staleness = bound;
        self
    }

    /// Believes no entry while the change feed is known to be down, instead of believing it within
    /// the bound: every verification then asks the store, and is *unavailable* if that cannot
    /// answer. Off by default.
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// How often a second this node asks the store for keys that turn out not to exist; 1,000 by
    /// default, at least 2.
    ///
    /// A flood of well-formed garbage is answered *unavailable* beyond that, because nobody knows
    /// what is garbage before having asked. Keys that this node has in its memory are not affected,
    /// also where they have to be read again; a key that it never saw competes with the flood. Half
    /// of the lookups are kept for client networks from which no garbage comes, so a flood from a
    /// few networks leaves the new keys of others alone. A lookup that finds a key costs nothing.
    pub fn unknown_lookups_per_second(mut self, lookups: u32) -> Self {
        self.unknown_lookups = lookups;
        self
    }

    /// How many attempts of one client network (an IPv4 /24 or an IPv6 /64) may fail; beyond that
    /// its requests are answered [`Limited`](crate::verify::verify::VerifyError::Limited) before anything is looked
    /// up. Off by default, and without effect on requests whose address is not known.
    ///
    /// A cached key is always answered, and each success makes up for one failure: a network with
    /// one broken client and a hundred good ones stays open. It takes 32 KiB, however many networks
    /// there are; of those, one in 4,096 shares another one's count.
    pub fn failed_attempts_per_network(mut self, rate: Rate) -> Self {
        self.failed_attempts = Some(rate);
        self
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
