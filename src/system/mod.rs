//! What comes from the operating system: time and randomness.

mod clock;
mod coarse;
mod lock;
mod prehashed;

pub(crate) use clock::Ratchet;
pub use clock::{Clock, Moment, SystemClock};
pub(crate) use lock::lock;
pub(crate) use prehashed::BuildPrehashed;
