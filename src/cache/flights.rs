use std::{
    collections::HashMap,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll},
};

use crate::{hash::Digest, lock::lock};

/// One load at a time for each digest, however many wait for it.
///
/// The load lives in the flight and is driven by whichever waiter comes first; when that one goes
/// away, the next one drives it on from where it was. So it needs no task and no runtime, nobody is
/// hurt by a waiter that is dropped, and when all are, the load is dropped with them.
pub(crate) struct Flights<T> {
    under_way: Mutex<HashMap<Digest, Weak<Flight<T>>>>,
}

/// Locked by the one that drives.
type Flight<T> = tokio::sync::Mutex<Load<T>>;

enum Load<T> {
    Running(BoxFuture<T>),
    Done(Option<T>),
}

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<T: Clone> Flights<T> {
    pub(crate) fn new() -> Self {
        Self { under_way: Mutex::default() }
    }

    /// What the load of this digest comes to: of one that is under way, or of a new one. `None` if
    /// it panicked.
    pub(crate) async fn share(
        &self,
        digest: Digest,
        load: impl FnOnce() -> BoxFuture<T>,
    ) -> Option<T> {
        let waiter = self.join(digest, load);
        let mut state = waiter.flight.lock().await;
        match &mut *state {
            Load::Done(result) => result.clone(),
            Load::Running(future) => {
                let result = poll_fn(|context| poll_caught(future, context)).await;
                // Whoever comes from now on begins anew.
                self.remove(&digest, &waiter.flight);
                *state = Load::Done(result.clone());
                result
            }
        }
    }

    fn join(&self, digest: Digest, load: impl FnOnce() -> BoxFuture<T>) -> Waiter<'_, T> {
        let mut under_way = lock(&self.under_way);
        let flight = under_way.get(&digest).and_then(Weak::upgrade).unwrap_or_else(|| {
            let flight = Arc::new(Flight::new(Load::Running(load())));
            under_way.insert(digest, Arc::downgrade(&flight));
            flight
        });
        Waiter { flights: self, digest, flight }
    }
}

impl<T> Flights<T> {
    fn remove(&self, digest: &Digest, flight: &Arc<Flight<T>>) {
        let mut under_way = lock(&self.under_way);
        if under_way.get(digest).is_some_and(|other| other.as_ptr() == Arc::as_ptr(flight)) {
            under_way.remove(digest);
        }
    }
}

struct Waiter<'a, T> {
    flights: &'a Flights<T>,
    digest: Digest,
    flight: Arc<Flight<T>>,
}

impl<T> Drop for Waiter<'_, T> {
    /// If it was the last one, nobody is left to land the flight.
    fn drop(&mut self) {
        if Arc::strong_count(&self.flight) == 1 {
            self.flights.remove(&self.digest, &self.flight);
        }
    }
}

fn poll_caught<T>(future: &mut BoxFuture<T>, context: &mut Context<'_>) -> Poll<Option<T>> {
    // After a panic the future is not polled again.
    match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(result)) => Poll::Ready(Some(result)),
        Err(_) => Poll::Ready(None),
    }
}
