//! One span for each check of a request: outcome, key id, and whether memory knew the answer.

use tracing::{Instrument, Span, field::Empty};

use super::ErrorCode;
use crate::verify::Verified;

pub(super) struct Check(Span);

impl Check {
    pub(super) fn begin() -> Self {
        Self(tracing::info_span!(
            target: "keyward::http",
            "api_key",
            key_id = Empty,
            outcome = Empty,
            cache = Empty
        ))
    }

    pub(super) fn around<F: Future>(&self, check: F) -> impl Future<Output = F::Output> {
        check.instrument(self.0.clone())
    }

    pub(super) fn looked_up(&self, cache: &'static str) {
        self.0.record("cache", cache);
    }

    pub(super) fn passed(&self, verified: &Verified) {
        self.0.record("key_id", tracing::field::display(verified.key_id()));
        self.0.record("outcome", "verified");
    }

    pub(super) fn refused(&self, code: ErrorCode) {
        self.0.record("outcome", code.as_str());
        self.0.in_scope(|| tracing::debug!(target: "keyward::http", outcome = code.as_str()));
    }
}
