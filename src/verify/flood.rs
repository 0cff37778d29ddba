use std::sync::atomic::{AtomicU64, Ordering};

use thread_local::ThreadLocal;

/// Counts what many threads do all the time. Each of them has a number of its own: were there one for
/// all, two threads that refuse garbage would get less done than one.
///
/// It only counts up; whoever reads it remembers how far it was.
#[derive(Default)]
pub(crate) struct Flood(ThreadLocal<Own>);

/// In a line of its own, or its neighbours would be waited for.
#[derive(Default)]
#[repr(align(64))]
struct Own(AtomicU64);

impl Flood {
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        let Own(own) = self.0.get_or_default();
        // No other thread writes there, so nothing gets lost in between.
        own.store(own.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }

    /// Of all threads, those that have ended included.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|Own(own)| own.load(Ordering::Relaxed)).sum()
    }
}
