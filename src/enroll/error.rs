use std::time::Duration;

use crate::{error::Error, verify::whole_seconds};

/// Why no code was sent, or no key issued.
///
/// Exhaustive on purpose: these must never be answered alike.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// It is not the code that was sent last, or that one is used up: 400.
    #[error("the code is not right, or used up: check it, or request another")]
    WrongCode,
    /// It was the right code, and comes too late: 400.
    #[error("the code is too old: request another")]
    ExpiredCode,
    /// There were too many of them for this address or network: 429, with `Retry-After`.
    #[error("too many attempts: try again in {} s", whole_seconds(*.0).max(1))]
    TooManyAttempts(Duration),
    /// Nobody can tell now (503), or the owner can have no more keys: as when one is issued.
    #[error(transparent)]
    Failed(#[from] Error),
}
