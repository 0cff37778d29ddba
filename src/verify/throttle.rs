use std::{iter, net::IpAddr};

use super::{
    cache::KeyedHash,
    limits::{Limited, RateBucket},
};
use crate::model::{Rate, Timestamp};

/// Limits what unknown secrets cost: the look-ups that find nothing, and the failed attempts of a network.
pub(crate) struct Throttle {
    lookups: Option<UnknownLookups>,
    failures: Option<FailedAttempts>,
}

impl Throttle {
    pub(crate) fn new(unknown_lookups: Option<u32>, failed_attempts: Option<Rate>) -> Self {
        let lookups = unknown_lookups.map(|per_second| {
            let shared = Rate::per_second(per_second.max(2) / 2);
            let period = shared.period * 2 * LOOKUP_BUCKETS as u32;
            let reserved = Rate { period, ..shared }.burst(1);
            UnknownLookups {
                shared: RateBucket::new(shared),
                reserved: [0, 1].map(|_| NetworkBuckets::new(LOOKUP_BUCKETS, reserved)),
            }
        });
        let failures = failed_attempts.map(FailedAttempts::new);
        Self { lookups, failures }
    }

    /// Returns an error if too many attempts of the network failed.
    pub(crate) fn check(&self, ip: Option<IpAddr>, now: Timestamp) -> Result<(), Box<Limited>> {
        match self.failures_of(ip).and_then(|failures| failures.wait(1, now)) {
            None => Ok(()),
            Some(wait) => Err(Limited::by_failures(wait)),
        }
    }

    pub(crate) fn record_failure(&self, ip: Option<IpAddr>, now: Timestamp) {
        if let Some(failures) = self.failures_of(ip) {
            // An empty bucket stays empty; a network does not get into debt.
            let _ = failures.charge(1, now);
        }
    }

    #[inline]
    pub(crate) fn record_success(&self, ip: Option<IpAddr>, now: Timestamp) {
        if let Some(failures) = self.failures_of(ip) {
            failures.restore_one(now);
        }
    }

    #[inline]
    fn failures_of(&self, ip: Option<IpAddr>) -> Option<&RateBucket> {
        let FailedAttempts { networks, without_address } = self.failures.as_ref()?;
        Some(ip.map_or(without_address, |ip| networks.bucket(ip)))
    }

    /// Returns whether the store may be asked for a digest that may be unknown.
    pub(crate) fn may_look_up(&self, ip: Option<IpAddr>, now: Timestamp) -> bool {
        self.lookups.as_ref().is_none_or(|lookups| lookups.bucket(ip, now).is_some())
    }

    /// Counts a look-up that found nothing.
    pub(crate) fn record_unknown(&self, ip: Option<IpAddr>, now: Timestamp) {
        if let Some(lookups) = &self.lookups {
            let bucket = lookups.bucket(ip, now).or_else(|| lookups.of_network(ip).next());
            bucket.unwrap_or(&lookups.shared).overdraw(now);
        }
    }
}

/// Limits the failed attempts of each network, and of all clients without a known address together.
struct FailedAttempts {
    networks: NetworkBuckets,
    without_address: RateBucket,
}

impl FailedAttempts {
    fn new(rate: Rate) -> Self {
        let third = Rate { period: rate.period.saturating_mul(3), ..rate };
        let third = third.burst(rate.burst.get().div_ceil(3));
        Self {
            networks: NetworkBuckets::new(FAILURE_BUCKETS, rate),
            without_address: RateBucket::new(third),
        }
    }
}

/// Limits how often the store is asked for digests that it does not have.
///
/// Whether a digest is unknown is known only afterwards, so look-ups are counted afterwards: one that finds a key is
/// free, and those in flight together when the last permit is used are made up for by a longer wait. Half of the
/// permits are shared; the other half is spread over networks, so that those that send no garbage have some left. Each
/// network has one bucket in each of two tables. If it shares one with a network that floods, it almost never shares both.
struct UnknownLookups {
    shared: RateBucket,
    reserved: [NetworkBuckets; 2],
}

impl UnknownLookups {
    /// Returns the bucket from which the network may take a permit now, if there is one.
    fn bucket(&self, ip: Option<IpAddr>, now: Timestamp) -> Option<&RateBucket> {
        let mut all = iter::once(&self.shared).chain(self.of_network(ip));
        all.find(|bucket| bucket.wait(1, now).is_none())
    }

    fn of_network(&self, ip: Option<IpAddr>) -> impl Iterator<Item = &RateBucket> {
        ip.into_iter().flat_map(|ip| self.reserved.iter().map(move |buckets| buckets.bucket(ip)))
    }
}

/// A bucket per client network, in a table of fixed size. Networks may share a bucket; which ones do cannot be known
/// or chosen from outside.
struct NetworkBuckets {
    hash: KeyedHash,
    buckets: Box<[RateBucket]>,
}

impl NetworkBuckets {
    fn new(buckets: usize, rate: Rate) -> Self {
        let buckets = (0..buckets).map(|_| RateBucket::new(rate)).collect();
        Self { hash: KeyedHash::default(), buckets }
    }

    fn bucket(&self, ip: IpAddr) -> &RateBucket {
        let place = self.hash.hash_one(network(ip)) % self.buckets.len() as u64;
        &self.buckets[place as usize]
    }
}

/// Returns the /24 of an IPv4 client or the /64 of an IPv6 client: what one customer of a provider has.
fn network(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits() >> 8),
        // Global unicast addresses begin with 001: none is as small as an IPv4 network.
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

const FAILURE_BUCKETS: usize = 4_096;
const LOOKUP_BUCKETS: usize = 256;
