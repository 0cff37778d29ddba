//! Spans and metrics about each check of a request.

use self::{metrics::CheckMetrics, spans::CheckSpan};
use super::responses::ErrorCode;
use crate::verify::{Verified, VerifyError};

/// Records one check of a request. Every check ends in exactly one of `verified`, `failed` and
/// `rejected`.
pub(super) struct CheckRecorder {
    span: CheckSpan,
    metrics: CheckMetrics,
}

impl CheckRecorder {
    pub(super) fn start() -> Self {
        Self { span: CheckSpan::start(), metrics: CheckMetrics::start() }
    }

    pub(super) fn instrument<F: Future>(&self, check: F) -> impl Future<Output = F::Output> {
        self.span.instrument(check)
    }

    pub(super) fn cache_status(&mut self, is_hit: bool) {
        let cache = if is_hit { "hit" } else { "miss" };
        self.span.cache_status(cache);
        self.metrics.cache_status(cache);
    }

    pub(super) fn verified(self, verified: &Verified) {
        self.span.verified(verified);
        self.metrics.finish("verified");
    }

    /// Records a request that verification rejected.
    pub(super) fn failed(self, code: ErrorCode, error: &VerifyError) {
        if let VerifyError::Denied(denied) = error {
            self.metrics.denied(denied.reason());
        }
        self.rejected(code);
    }

    /// Records a request that was rejected with or without verification.
    pub(super) fn rejected(self, code: ErrorCode) {
        self.span.rejected(code);
        self.metrics.finish(code.as_str());
    }
}

#[cfg(feature = "metrics")]
mod metrics {
    use std::time::Instant;

    use metrics::{counter, histogram};

    use crate::verify::DeniedReason;

    /// No label identifies a key, owner or address, so the number of time series is bounded.
    pub(super) struct CheckMetrics {
        started: Instant,
        cache: &'static str,
    }

    impl CheckMetrics {
        pub(super) fn start() -> Self {
            Self { started: Instant::now(), cache: "none" }
        }

        pub(super) fn cache_status(&mut self, cache: &'static str) {
            self.cache = cache;
        }

        pub(super) fn denied(&self, reason: DeniedReason) {
            counter!("keyward_denials_total", "reason" => reason.as_str()).increment(1);
        }

        pub(super) fn finish(self, outcome: &'static str) {
            let Self { started, cache } = self;
            counter!("keyward_checks_total", "outcome" => outcome, "cache" => cache).increment(1);
            histogram!("keyward_check_seconds", "outcome" => outcome, "cache" => cache)
                .record(started.elapsed());
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod metrics {
    use crate::verify::DeniedReason;

    pub(super) struct CheckMetrics;

    impl CheckMetrics {
        pub(super) fn start() -> Self {
            Self
        }

        pub(super) fn cache_status(&mut self, _: &'static str) {}

        pub(super) fn denied(&self, _: DeniedReason) {}

        pub(super) fn finish(self, _: &'static str) {}
    }
}

#[cfg(feature = "tracing")]
mod spans {
    use tracing::{Instrument, Span, field::Empty};

    use super::super::responses::ErrorCode;
    use crate::verify::Verified;

    pub(super) struct CheckSpan(Span);

    impl CheckSpan {
        pub(super) fn start() -> Self {
            Self(tracing::info_span!(
                target: "keyward::http",
                "api_key",
                key_id = Empty,
                outcome = Empty,
                cache = Empty
            ))
        }

        pub(super) fn instrument<F: Future>(&self, check: F) -> impl Future<Output = F::Output> {
            check.instrument(self.0.clone())
        }

        pub(super) fn cache_status(&self, cache: &'static str) {
            self.0.record("cache", cache);
        }

        pub(super) fn verified(&self, verified: &Verified) {
            self.0.record("key_id", tracing::field::display(verified.key_id()));
            self.0.record("outcome", "verified");
        }

        pub(super) fn rejected(&self, code: ErrorCode) {
            self.0.record("outcome", code.as_str());
            self.0.in_scope(|| tracing::debug!(target: "keyward::http", outcome = code.as_str()));
        }
    }
}

#[cfg(not(feature = "tracing"))]
mod spans {
    use super::super::responses::ErrorCode;
    use crate::verify::Verified;

    pub(super) struct CheckSpan;

    impl CheckSpan {
        pub(super) fn start() -> Self {
            Self
        }

        pub(super) fn instrument<F: Future>(&self, check: F) -> F {
            check
        }

        pub(super) fn cache_status(&self, _: &'static str) {}

        pub(super) fn verified(&self, _: &Verified) {}

        pub(super) fn rejected(&self, _: ErrorCode) {}
    }
}
