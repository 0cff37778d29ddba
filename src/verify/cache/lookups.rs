use std::{net::IpAddr, time::Duration};

use crate::verify::cache::networks::PerNetwork;
use crate::{
    model::{Rate, Timestamp},
    verify::limits::meter::SharedBucket,
};

/// How often the store is asked for what it does not have.
///
/// Nobody knows before asking, so it is counted after: a lookup that finds a key costs nothing, and
/// those under way together when the last permit goes are paid for by waiting longer. Half of the
/// permits are for whoever comes first; the other half is spread over the networks, so that those
/// from which no garbage comes have some left.
pub(crate) struct Lookups {
    shared: SharedBucket,
    reserved: PerNetwork,
}

impl Lookups {
    pub(crate) fn new(per_second: u32) -> Self {
        let half = per_second.max(2) / 2;
        // One in so many seconds is what a network's share of the half comes down to.
        let period = Duration::from_secs(1) * NETWORKS as u32;
        let reserved = Rate { period, ..Rate::per_second(half) }.burst(1);
        Self {
            shared: SharedBucket::new(Rate::per_second(half)),
            reserved: PerNetwork::new(NETWORKS, reserved),
        }
    }

    pub(crate) fn may_ask(&self, ip: Option<IpAddr>, now: Timestamp) -> bool {
        let open = |bucket: &SharedBucket| bucket.wait(now).is_none();
        open(&self.shared) || ip.is_some_and(|ip| open(self.reserved.bucket(ip)))
    }

    /// There was nothing to be found.
    pub(crate) fn in_vain(&self, ip: Option<IpAddr>, now: Timestamp) {
        match ip {
            Some(ip) if self.shared.wait(now).is_some() => self.reserved.bucket(ip).overdraw(now),
            _ => self.shared.overdraw(now),
        }
    }
}

const NETWORKS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_held_to_the_stated_number_and_leaves_something_to_other_networks() {
        let lookups = Lookups::new(1_000);
        let (flooder, mut now) = ("192.0.2.7".parse().ok(), Timestamp::MIN);
        let mut asked = 0;
        for _ in 0..100_000 {
            now = now.after(Duration::from_micros(100));
            if lookups.may_ask(flooder, now) {
                asked += 1;
                lookups.in_vain(flooder, now);
            }
        }
        assert!(asked <= 10_000, "of 1,000 a second in 10 seconds: {asked}");
        assert!(asked >= 5_000, "half of them is for everyone: {asked}");

        assert!(!lookups.may_ask(flooder, now) && !lookups.may_ask(None, now));
        let clients = (0..=255u8).map(|n| Some(IpAddr::from([198, 51, n, 1])));
        let served = clients.filter(|client| lookups.may_ask(*client, now)).count();
        assert!(served >= 240, "all but those that share the flooder's place: {served}");
    }

    #[test]
    fn what_was_asked_at_the_same_time_is_paid_for_by_waiting() {
        let (lookups, now) = (Lookups::new(20), Timestamp::MIN);
        for _ in 0..100 {
            assert!(lookups.may_ask(None, now), "finding costs nothing");
        }
        for _ in 0..100 {
            lookups.in_vain(None, now);
        }
        assert!(!lookups.may_ask(None, now.after(Duration::from_secs(9))));
        assert!(lookups.may_ask(None, now.after(Duration::from_secs(10))));
    }
}
