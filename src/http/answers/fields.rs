use std::{fmt::Write as _, time::Duration};

use http::{HeaderName, HeaderValue};

use crate::limits::{RateState, RateStates};

/// The header fields by which a request that was let through learns what is left of its rates.
pub fn success_fields(rates: &RateStates) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    rate_fields(rates).into_iter().flatten()
}

/// `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers, if there is a rate.
pub(super) fn rate_fields(rates: &RateStates) -> Option<[(HeaderName, HeaderValue); 2]> {
    let states = [("key", rates.key), ("owner", rates.owner)];
    let (mut policy, mut limit) = (String::new(), String::new());
    for (name, RateState { rate, remaining, reset, .. }) in
        states.into_iter().filter_map(|(name, state)| Some((name, state?)))
    {
        let comma = if policy.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ =
            write!(policy, "{comma}\"{name}\";q={};w={}", rate.uses, seconds(rate.period).max(1));
        let _ = write!(limit, "{comma}\"{name}\";r={remaining};t={}", seconds(reset));
    }
    let value = |text: String| HeaderValue::try_from(text).ok();
    (!policy.is_empty()).then_some(())?;
    Some([(RATE_LIMIT_POLICY.clone(), value(policy)?), (RATE_LIMIT.clone(), value(limit)?)])
}

fn seconds(duration: Duration) -> u128 {
    duration.as_millis().div_ceil(1_000)
}

static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
