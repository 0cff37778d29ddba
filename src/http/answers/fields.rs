use std::{fmt::Write as _, time::Duration};

use http::{HeaderName, HeaderValue};

use crate::{
    model::Period,
    verify::{QuotaState, QuotaStates, RateState, RateStates, Verified, whole_seconds},
};

/// The header fields by which a request that was let through learns what is left of its limits.
pub fn rate_limit_headers(verified: &Verified) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    limit_fields(&verified.rates(), &verified.quotas()).into_iter().flatten()
}

/// `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers, if there is a limit.
pub(super) fn limit_fields(
    rates: &RateStates,
    quotas: &QuotaStates,
) -> Option<[(HeaderName, HeaderValue); 2]> {
    let mut fields = Fields::default();
    fields.rate("key", rates.key);
    fields.rate("owner", rates.owner);
    fields.quota("key-quota", quotas.key);
    fields.quota("owner-quota", quotas.owner);
    let value = |text: String| HeaderValue::try_from(text).ok();
    (!fields.policy.is_empty()).then_some(())?;
    let policy = (RATE_LIMIT_POLICY.clone(), value(fields.policy)?);
    Some([policy, (RATE_LIMIT.clone(), value(fields.limit)?)])
}

#[derive(Default)]
struct Fields {
    policy: String,
    limit: String,
}

impl Fields {
    fn rate(&mut self, name: &str, state: Option<RateState>) {
        let Some(RateState { rate, remaining, reset, .. }) = state else { return };
        let window = whole_seconds(rate.period).max(1);
        self.add(name, rate.uses.get().into(), Some(window), remaining.into(), Some(reset));
    }

    /// A month has no length that could be told, and what never ends has none either.
    fn quota(&mut self, name: &str, state: Option<QuotaState>) {
        let Some(QuotaState { quota, remaining, reset, .. }) = state else { return };
        let window = (quota.period() == Period::Day).then_some(86_400);
        self.add(name, quota.uses(), window, remaining, reset);
    }

    fn add(
        &mut self,
        name: &str,
        quota: u64,
        window: Option<u64>,
        remaining: u64,
        reset: Option<Duration>,
    ) {
        let comma = if self.policy.is_empty() { "" } else { ", " };
        let Self { policy, limit } = self;
        // Writing to a String cannot fail.
        let _ = write!(policy, "{comma}\"{name}\";q={quota}");
        let _ = window.map(|window| write!(policy, ";w={window}"));
        let _ = write!(limit, "{comma}\"{name}\";r={remaining}");
        let _ = reset.map(|reset| write!(limit, ";t={}", whole_seconds(reset)));
    }
}

static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
