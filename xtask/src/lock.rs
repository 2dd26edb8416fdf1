//! Mutexes whose owner may have panicked: nobody leaves anything half done in them.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits for what is in there.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes it out, when nobody else has it any more.
pub(crate) fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
