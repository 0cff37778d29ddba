//! What stands in for `spans.rs` without the feature `tracing`.

use super::ErrorCode;
use crate::verify::Verified;

pub(super) struct Check;

impl Check {
    pub(super) fn begin() -> Self {
        Self
    }

    pub(super) fn around<F: Future>(&self, check: F) -> F {
        check
    }

    pub(super) fn looked_up(&self, _: &'static str) {}

    pub(super) fn passed(&self, _: &Verified) {}

    pub(super) fn refused(&self, _: ErrorCode) {}
}
