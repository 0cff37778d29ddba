use std::time::Duration;

use crate::{error::Error, verify::whole_seconds};

/// Why a code was not accepted.
///
/// Exhaustive on purpose: these must never be answered alike.
#[derive(Debug, thiserror::Error)]
pub enum TotpError {
    /// It is not the code of this moment: 400.
    #[error("the code is not right: check the app, and that the phone's clock is")]
    WrongCode,
    /// It, or a later one, was accepted before: 400.
    #[error("the code is used up: wait for the next one")]
    UsedCode,
    /// There were too many wrong ones for this account: 429, with `Retry-After`.
    #[error("too many wrong codes: try again in {} s", whole_seconds(*.0).max(1))]
    TooManyAttempts(Duration),
    /// Nobody can tell now: 503.
    #[error(transparent)]
    Failed(#[from] Error),
}
