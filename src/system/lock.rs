use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also if another thread panicked while it held the lock: no code of this crate panics
/// between two writes that belong together.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
