use std::time::Duration;

/// Who did not answer, and for how long he was waited for.
#[derive(Debug, thiserror::Error)]
#[error("{0} gave no answer within {1:?}")]
pub(crate) struct TimedOut(pub(crate) &'static str, pub(crate) Duration);
