//! Counters and a histogram. No label tells one key, owner or address from another, so their number
//! is checked_text, whoever asks for whatever.

use std::time::Instant;

use metrics::{counter, histogram};

use crate::verify::DeniedReason;

pub(super) struct Measure {
    begun: Instant,
    cache: &'static str,
}

impl Measure {
    pub(super) fn begin() -> Self {
        Self { begun: Instant::now(), cache: "none" }
    }

    pub(super) fn looked_up(&mut self, cache: &'static str) {
        self.cache = cache;
    }

    pub(super) fn denied(&self, reason: DeniedReason) {
        counter!("keyward_denials_total", "reason" => reason.as_str()).increment(1);
    }

    pub(super) fn ended(self, outcome: &'static str) {
        let Self { begun, cache } = self;
        counter!("keyward_checks_total", "outcome" => outcome, "cache" => cache).increment(1);
        histogram!("keyward_check_seconds", "outcome" => outcome, "cache" => cache)
            .record(begun.elapsed());
    }
}
