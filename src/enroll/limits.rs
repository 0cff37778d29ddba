use std::{net::IpAddr, time::Duration};

use crate::{
    model::{Actor, Period, Timestamp},
    secret::{Hasher, HmacSha256Hasher, SecretDigest},
    store::{CounterCharge, CounterKey},
};

/// Maximum numbers per hour.
#[derive(Clone, Copy, Debug)]
pub(super) struct HourlyLimits {
    pub(super) codes_per_address: u32,
    pub(super) codes_per_network: u32,
    pub(super) attempts_per_network: u32,
}

impl Default for HourlyLimits {
    fn default() -> Self {
        Self { codes_per_address: 5, codes_per_network: 30, attempts_per_network: 60 }
    }
}

/// Prefixes of the digested text, so that digests of different kinds never collide.
pub(super) const ADDRESS: &[u8] = b"address ";
pub(super) const CODE: &[u8] = b"code ";
pub(super) const REQUESTED_CODES: &[u8] = b"codes of ";
pub(super) const ATTEMPTS: &[u8] = b"tries of ";

/// Returns a keyed digest, which cannot be reversed by trying all addresses or networks.
pub(super) fn digest(hasher: &HmacSha256Hasher, prefix: &[u8], text: &str) -> SecretDigest {
    hasher.digest(&[prefix, text.as_bytes()].concat())
}

/// Returns the digest of the actor's network, or `None` if the actor has no IP address. A network is one
/// IPv4 address or one IPv6 /64, the smallest block that a subscriber has.
pub(super) fn network_digest(
    hasher: &HmacSha256Hasher,
    prefix: &[u8],
    by: &Actor,
) -> Option<SecretDigest> {
    let network = match by.address()? {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("{:x}", u128::from(ip) >> 64),
    };
    Some(digest(hasher, prefix, &network))
}

/// Returns a charge of one use in the current hour.
pub(super) fn hourly_charge(
    limit: u32,
    counter: &SecretDigest,
    now: Timestamp,
) -> CounterCharge<'_> {
    CounterCharge {
        counter_key: CounterKey::Anonymous(counter),
        // Stores have no hourly period: the window's start identifies the hour.
        period: Period::Ever,
        window: now.rounded_down_to(HOUR),
        limit: limit.into(),
        uses: 1,
    }
}

/// Returns the time until the hourly limits reset.
pub(super) fn until_next_hour(now: Timestamp) -> Duration {
    now.until_next(HOUR)
}

const HOUR: Duration = Duration::from_secs(3_600);
