use std::{hash::BuildHasher, net::IpAddr};

use crate::verify::cache::bounded::Keyed;
use crate::{
    model::{Rate, Timestamp},
    verify::limits::{
        limited::{Limited, LimitedReason},
        meter::SharedBucket,
    },
};

/// A bucket for each client network, in a table of fixed size. Networks may share one; which ones
/// do, nobody outside can know or choose.
pub(crate) struct PerNetwork {
    hasher: Keyed,
    buckets: Box<[SharedBucket]>,
}

impl PerNetwork {
    pub(crate) fn new(buckets: usize, rate: Rate) -> Self {
        Self {
            hasher: Keyed::default(),
            buckets: (0..buckets).map(|_| SharedBucket::new(rate)).collect(),
        }
    }

    pub(crate) fn bucket(&self, ip: IpAddr) -> &SharedBucket {
        let place = self.hasher.hash_one(network(ip)) % self.buckets.len() as u64;
        &self.buckets[place as usize]
    }
}

/// Who fails too often waits before anything is looked up.
pub(crate) struct Throttle {
    networks: PerNetwork,
}

impl Throttle {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { networks: PerNetwork::new(NETWORKS, rate) }
    }

    pub(crate) fn check(&self, ip: Option<IpAddr>, now: Timestamp) -> Result<(), Box<Limited>> {
        match ip.and_then(|ip| self.networks.bucket(ip).wait(now)) {
            None => Ok(()),
            Some(wait) => Err(Box::new(Limited {
                reason: LimitedReason::Network,
                retry_after: Some(wait),
                rates: Default::default(),
                quotas: Default::default(),
            })),
        }
    }

    pub(crate) fn failed(&self, ip: Option<IpAddr>, now: Timestamp) {
        if let Some(ip) = ip {
            // An empty bucket stays empty; nobody gets into debt.
            let _ = self.networks.bucket(ip).charge(1, now);
        }
    }

    pub(crate) fn succeeded(&self, ip: Option<IpAddr>, now: Timestamp) {
        if let Some(ip) = ip {
            self.networks.bucket(ip).restore(now);
        }
    }
}

/// The /24 of an IPv4 client, the /64 of an IPv6 one: what one customer of a provider has.
fn network(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits() >> 8),
        // Global unicast addresses begin with 001: none of them is as small as an IPv4 network.
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

const NETWORKS: usize = 4_096;
