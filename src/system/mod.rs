//! What comes from the operating system: time and randomness.

mod clock;
mod lock;
mod prehashed;

pub use clock::{Clock, ClockReading, SystemClock};
pub(crate) use clock::{NodeClock, Now};
pub(crate) use lock::lock;
pub(crate) use prehashed::BuildPrehashed;
