//! Spans and metrics about each check of a request.

// Without one of these features, part of what a check records is not used.
#![cfg_attr(not(all(feature = "metrics", feature = "tracing")), allow(dead_code, unused_variables))]

use super::responses::ErrorCode;
use crate::verify::{Verified, VerifyError};

/// Records one check of a request. Every check ends in either `verified` or `rejected`.
pub(super) struct CheckRecorder {
    cache: &'static str,
    #[cfg(feature = "metrics")]
    started: std::time::Instant,
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

impl CheckRecorder {
    pub(super) fn start() -> Self {
        Self {
            cache: "none",
            #[cfg(feature = "metrics")]
            started: std::time::Instant::now(),
            #[cfg(feature = "tracing")]
            span: tracing::info_span!(
                target: "keyward::http",
                "api_key",
                key_id = tracing::field::Empty,
                outcome = tracing::field::Empty,
                cache = tracing::field::Empty
            ),
        }
    }

    pub(super) fn instrument<F: Future>(&self, check: F) -> impl Future<Output = F::Output> {
        #[cfg(feature = "tracing")]
        let check = tracing::Instrument::instrument(check, self.span.clone());
        check
    }

    pub(super) fn cache_status(&mut self, is_hit: bool) {
        self.cache = if is_hit { "hit" } else { "miss" };
        #[cfg(feature = "tracing")]
        self.span.record("cache", self.cache);
    }

    pub(super) fn verified(self, verified: &Verified) {
        #[cfg(feature = "tracing")]
        self.span.record("key_id", tracing::field::display(verified.key_id()));
        self.finish("verified");
    }

    /// Records a request that was rejected, with an error if verification rejected it.
    pub(super) fn rejected(self, code: ErrorCode, error: Option<&VerifyError>) {
        #[cfg(feature = "metrics")]
        if let Some(VerifyError::Denied(denied)) = error {
            let reason = denied.reason().as_str();
            metrics::counter!("keyward_denials_total", "reason" => reason).increment(1);
        }
        self.finish(code.as_str());
        #[cfg(feature = "tracing")]
        self.span.in_scope(|| tracing::debug!(target: "keyward::http", outcome = code.as_str()));
    }

    /// No label identifies a key, owner or address, so the number of time series is bounded.
    fn finish(&self, outcome: &'static str) {
        #[cfg(feature = "tracing")]
        self.span.record("outcome", outcome);
        #[cfg(feature = "metrics")]
        {
            let labels = [("outcome", outcome), ("cache", self.cache)];
            metrics::counter!("keyward_checks_total", &labels).increment(1);
            metrics::histogram!("keyward_check_seconds", &labels).record(self.started.elapsed());
        }
    }
}

/// Logs a mistake in the code of the host: with the feature `tracing` each time, otherwise once to stderr.
#[cfg(any(feature = "axum", feature = "actix"))]
pub(super) fn log_mistake(hint: &'static str) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: "keyward::http", "{hint}");
    #[cfg(not(feature = "tracing"))]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| eprintln!("keyward: {hint}"));
    }
}
