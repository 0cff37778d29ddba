use std::{net::IpAddr, time::Duration};

use crate::{
    model::{Actor, Period, Timestamp},
    secret::{Hasher, HmacSha256Hasher, SecretDigest},
    store::{CounterCharge, CounterKey},
    verify::begin_of_hour,
};

/// How often within an hour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hourly {
    pub(super) codes_per_address: u32,
    pub(super) codes_per_network: u32,
    pub(super) attempts_per_network: u32,
}

impl Default for Hourly {
    fn default() -> Self {
        Self { codes_per_address: 5, codes_per_network: 30, attempts_per_network: 60 }
    }
}

/// What is counted, apart from each other: the first word of what is digested.
pub(super) const ADDRESS: &[u8] = b"address ";
pub(super) const CODE: &[u8] = b"code ";
pub(super) const CODES_OF: &[u8] = b"codes of ";
pub(super) const TRIES_OF: &[u8] = b"tries of ";

/// Keyed, so that neither addresses nor networks can be found by trying.
pub(super) fn digest(hasher: &HmacSha256Hasher, what: &[u8], text: &str) -> SecretDigest {
    hasher.digest(&[what, text.as_bytes()].concat())
}

/// That of the network which an actor comes from; none where it is not known. A network is one
/// address of IPv4, or the 64 bits of IPv6 that one subscriber has at least.
pub(super) fn network(hasher: &HmacSha256Hasher, what: &[u8], by: &Actor) -> Option<SecretDigest> {
    let network = match by.address()? {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("{:x}", u128::from(ip) >> 64),
    };
    Some(digest(hasher, what, &network))
}

/// One of so many in the present hour.
pub(super) fn one_of(limit: u32, guest: &SecretDigest, now: Timestamp) -> CounterCharge<'_> {
    // `Ever`, for the hour is said by the window, as the janitor does.
    let (payer, period) = (CounterKey::Anonymous(guest), Period::Ever);
    CounterCharge { payer, period, window: begin_of_hour(now), limit: limit.into(), uses: 1 }
}

/// Until what is spent in this hour is there again.
pub(super) fn rest_of_hour(now: Timestamp) -> Duration {
    now.until_next(Duration::from_secs(3_600))
}
