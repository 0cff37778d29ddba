//! What the operator is told of each check of a request, by spans and by metrics.

#[cfg(feature = "metrics")]
mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "no_metrics.rs"]
mod metrics;
#[cfg(feature = "tracing")]
mod spans;
#[cfg(not(feature = "tracing"))]
#[path = "no_spans.rs"]
mod spans;

use self::{metrics::Measure, spans::Check};
use super::ErrorCode;
use crate::verify::{Verified, VerifyError};

/// One check, from its begin to its one end.
pub(super) struct Watch {
    span: Check,
    measure: Measure,
}

impl Watch {
    pub(super) fn begin() -> Self {
        Self { span: Check::begin(), measure: Measure::begin() }
    }

    pub(super) fn around<F: Future>(&self, check: F) -> impl Future<Output = F::Output> {
        self.span.around(check)
    }

    pub(super) fn looked_up(&mut self, from_memory: bool) {
        let cache = if from_memory { "hit" } else { "miss" };
        self.span.looked_up(cache);
        self.measure.looked_up(cache);
    }

    pub(super) fn passed(self, verified: &Verified) {
        self.span.passed(verified);
        self.measure.ended("verified");
    }

    /// By what verification found.
    pub(super) fn failed(self, code: ErrorCode, error: &VerifyError) {
        if let VerifyError::Denied(denied) = error {
            self.measure.denied(denied.reason());
        }
        self.refused(code);
    }

    pub(super) fn refused(self, code: ErrorCode) {
        self.span.refused(code);
        self.measure.ended(code.as_str());
    }
}
