use std::{hash::BuildHasher, net::IpAddr, time::Duration};

use super::{
    cache::KeyedHash,
    limits::{Limited, LimitedReason, RateBucket},
};
use crate::model::{Rate, Timestamp};

/// Limits what unknown secrets cost: the look-ups that find nothing, and the failed attempts of a network.
pub(crate) struct Throttle {
    lookups: Option<UnknownLookups>,
    failures: Option<NetworkBuckets>,
}

impl Throttle {
    pub(crate) fn new(unknown_lookups: Option<u32>, failed_attempts: Option<Rate>) -> Self {
        Self {
            lookups: unknown_lookups.map(UnknownLookups::new),
            failures: failed_attempts.map(|rate| NetworkBuckets::new(FAILURE_BUCKETS, rate)),
        }
    }

    /// Returns an error if too many attempts of the network failed.
    pub(crate) fn check(&self, ip: Option<IpAddr>, now: Timestamp) -> Result<(), Box<Limited>> {
        let Some((failures, ip)) = self.failures.as_ref().zip(ip) else { return Ok(()) };
        match failures.bucket(ip).wait(now) {
            None => Ok(()),
            Some(wait) => Err(Box::new(Limited {
                reason: LimitedReason::Network,
                retry_after: Some(wait),
                rates: Default::default(),
                quotas: Default::default(),
            })),
        }
    }

    pub(crate) fn record_failure(&self, ip: Option<IpAddr>, now: Timestamp) {
        if let Some((failures, ip)) = self.failures.as_ref().zip(ip) {
            // An empty bucket stays empty; a network does not get into debt.
            let _ = failures.bucket(ip).charge(1, now);
        }
    }

    #[inline]
    pub(crate) fn record_success(&self, ip: Option<IpAddr>, now: Timestamp) {
        if let Some((failures, ip)) = self.failures.as_ref().zip(ip) {
            failures.bucket(ip).restore_one(now);
        }
    }

    /// Returns whether the store may be asked for a digest that may be unknown.
    pub(crate) fn may_look_up(&self, ip: Option<IpAddr>, now: Timestamp) -> bool {
        self.lookups.as_ref().is_none_or(|lookups| lookups.may_look_up(ip, now))
    }

    /// Counts a look-up that found nothing.
    pub(crate) fn record_unknown(&self, ip: Option<IpAddr>, now: Timestamp) {
        if let Some(lookups) = &self.lookups {
            lookups.record_unknown(ip, now);
        }
    }
}

/// Limits how often the store is asked for digests that it does not have.
///
/// Whether a digest is unknown is known only afterwards, so look-ups are counted afterwards: one that finds a key is
/// free, and those in flight together when the last permit is used are made up for by a longer wait. Half of the
/// permits are shared; the other half is spread over networks, so that those that send no garbage have some left.
struct UnknownLookups {
    shared: RateBucket,
    reserved: NetworkBuckets,
}

impl UnknownLookups {
    fn new(per_second: u32) -> Self {
        let half = per_second.max(2) / 2;
        let period = Duration::from_secs(1) * LOOKUP_BUCKETS as u32;
        let reserved = Rate { period, ..Rate::per_second(half) }.burst(1);
        Self {
            shared: RateBucket::new(Rate::per_second(half)),
            reserved: NetworkBuckets::new(LOOKUP_BUCKETS, reserved),
        }
    }

    fn may_look_up(&self, ip: Option<IpAddr>, now: Timestamp) -> bool {
        let has_room = |bucket: &RateBucket| bucket.wait(now).is_none();
        has_room(&self.shared) || ip.is_some_and(|ip| has_room(self.reserved.bucket(ip)))
    }

    fn record_unknown(&self, ip: Option<IpAddr>, now: Timestamp) {
        match ip {
            Some(ip) if self.shared.wait(now).is_some() => self.reserved.bucket(ip).overdraw(now),
            _ => self.shared.overdraw(now),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_in_flight_together_are_made_up_for_by_waiting() {
        let (lookups, now) = (UnknownLookups::new(20), Timestamp::MIN);
        for _ in 0..100 {
            assert!(lookups.may_look_up(None, now), "a look-up that finds a key is free");
        }
        for _ in 0..100 {
            lookups.record_unknown(None, now);
        }
        assert!(!lookups.may_look_up(None, now.after(Duration::from_secs(9))));
        assert!(lookups.may_look_up(None, now.after(Duration::from_secs(10))));
    }
}
