use std::{
    collections::HashMap,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll, Wake, Waker},
};

use crate::{secret::SecretDigest, system::lock};

/// One load at a time for each digest, however many wait for it.
///
/// The load lives in the flight, is driven by whichever waiter is polled, and wakes all of them. So
/// it needs no task and no runtime, nobody is hurt by a waiter that is dropped or not polled any
/// more, and when all are gone, the load goes with them.
pub(crate) struct Flights<T> {
    under_way: Mutex<HashMap<SecretDigest, Weak<Flight<T>>>>,
}

struct Flight<T> {
    load: Mutex<Load<T>>,
    waiting: Arc<Waiting>,
}

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
        digest: SecretDigest,
        load: impl FnOnce() -> BoxFuture<T>,
    ) -> Option<T> {
        let waiter = self.join(digest, load);
        poll_fn(|context| waiter.poll(context)).await
    }

    fn join(&self, digest: SecretDigest, load: impl FnOnce() -> BoxFuture<T>) -> Waiter<'_, T> {
        let mut under_way = lock(&self.under_way);
        let flight = under_way.get(&digest).and_then(Weak::upgrade).unwrap_or_else(|| {
            let flight = Arc::new(Flight {
                load: Mutex::new(Load::Running(load())),
                waiting: Arc::default(),
            });
            under_way.insert(digest, Arc::downgrade(&flight));
            flight
        });
        Waiter { flights: self, digest, flight }
    }
}

impl<T> Flights<T> {
    fn remove(&self, digest: &SecretDigest, flight: &Arc<Flight<T>>) {
        let mut under_way = lock(&self.under_way);
        if under_way.get(digest).is_some_and(|other| other.as_ptr() == Arc::as_ptr(flight)) {
            under_way.remove(digest);
        }
    }
}

struct Waiter<'a, T> {
    flights: &'a Flights<T>,
    digest: SecretDigest,
    flight: Arc<Flight<T>>,
}

impl<T: Clone> Waiter<'_, T> {
    fn poll(&self, context: &Context<'_>) -> Poll<Option<T>> {
        // Before the load is polled, or it could wake nobody in between.
        self.flight.waiting.add(context.waker());
        let mut load = lock(&self.flight.load);
        let future = match &mut *load {
            Load::Done(result) => return Poll::Ready(result.clone()),
            Load::Running(future) => future,
        };
        let waker = Waker::from(self.flight.waiting.clone());
        let Poll::Ready(result) = poll_caught(future, &mut Context::from_waker(&waker)) else {
            return Poll::Pending;
        };
        // Whoever comes from now on begins anew.
        self.flights.remove(&self.digest, &self.flight);
        *load = Load::Done(result.clone());
        waker.wake();
        Poll::Ready(result)
    }
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

/// Those who wait for one load.
#[derive(Default)]
struct Waiting(Mutex<Vec<Waker>>);

impl Waiting {
    fn add(&self, waker: &Waker) {
        let mut wakers = lock(&self.0);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        // Taken first: whoever is woken may come back here at once.
        let wakers = std::mem::take(&mut *lock(&self.0));
        wakers.into_iter().for_each(Waker::wake);
    }
}
