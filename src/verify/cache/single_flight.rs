use std::{
    collections::HashMap,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll, Wake, Waker},
};

use crate::{secret::SecretDigest, system::lock};

/// Runs one load at a time per digest; callers that ask meanwhile share its result.
///
/// The load is driven by whichever caller is polled, and wakes all of them. So it needs no task and no runtime, a
/// caller may be dropped or never polled again, and the load is dropped with the last of its callers.
pub(crate) struct SingleFlight<T> {
    in_flight: Mutex<HashMap<SecretDigest, Weak<Flight<T>>>>,
}

struct Flight<T> {
    load: Mutex<Load<T>>,
    wakers: Arc<Wakers>,
}

enum Load<T> {
    Running(BoxFuture<T>),
    Done(Option<T>),
}

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<T: Clone> SingleFlight<T> {
    pub(crate) fn new() -> Self {
        Self { in_flight: Mutex::default() }
    }

    /// Returns the result of the load of this digest: of the one in flight, or of a new one. `None` if it panicked.
    pub(crate) async fn share(
        &self,
        digest: SecretDigest,
        load: impl FnOnce() -> BoxFuture<T>,
    ) -> Option<T> {
        let caller = self.join(digest, load);
        poll_fn(|context| caller.poll(context)).await
    }

    fn join(&self, digest: SecretDigest, load: impl FnOnce() -> BoxFuture<T>) -> Caller<'_, T> {
        let mut in_flight = lock(&self.in_flight);
        let flight = in_flight.get(&digest).and_then(Weak::upgrade).unwrap_or_else(|| {
            let load = Mutex::new(Load::Running(load()));
            let flight = Arc::new(Flight { load, wakers: Arc::default() });
            in_flight.insert(digest, Arc::downgrade(&flight));
            flight
        });
        Caller { flights: self, digest, flight: Some(flight) }
    }
}

impl<T> SingleFlight<T> {
    fn remove(&self, digest: &SecretDigest, flight: &Weak<Flight<T>>) {
        let mut in_flight = lock(&self.in_flight);
        if in_flight.get(digest).is_some_and(|other| other.ptr_eq(flight)) {
            in_flight.remove(digest);
        }
    }
}

struct Caller<'a, T> {
    flights: &'a SingleFlight<T>,
    digest: SecretDigest,
    /// Taken when this is dropped.
    flight: Option<Arc<Flight<T>>>,
}

impl<T: Clone> Caller<'_, T> {
    fn poll(&self, context: &Context<'_>) -> Poll<Option<T>> {
        let Some(flight) = &self.flight else { return Poll::Ready(None) };
        // Before the load is polled, which may wake all callers before it returns.
        flight.wakers.add(context.waker());
        let mut load = lock(&flight.load);
        let future = match &mut *load {
            Load::Done(result) => return Poll::Ready(result.clone()),
            Load::Running(future) => future,
        };
        let waker = Waker::from(flight.wakers.clone());
        let Poll::Ready(result) = poll_caught(future, &mut Context::from_waker(&waker)) else {
            return Poll::Pending;
        };
        // Callers that arrive from now on start a new load.
        self.flights.remove(&self.digest, &Arc::downgrade(flight));
        *load = Load::Done(result.clone());
        waker.wake();
        Poll::Ready(result)
    }
}

impl<T> Drop for Caller<'_, T> {
    /// The last caller removes the load that it abandons. Exactly one of several that are dropped at the same time is
    /// the last.
    fn drop(&mut self) {
        let Some(flight) = self.flight.take() else { return };
        let abandoned = Arc::downgrade(&flight);
        if Arc::into_inner(flight).is_some() {
            self.flights.remove(&self.digest, &abandoned);
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

/// The wakers of all callers of one load.
#[derive(Default)]
struct Wakers(Mutex<Vec<Waker>>);

impl Wakers {
    fn add(&self, waker: &Waker) {
        let mut wakers = lock(&self.0);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        // Taken first: a caller that is woken may add its waker again immediately.
        let wakers = std::mem::take(&mut *lock(&self.0));
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        hint::spin_loop,
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::*;

    #[test]
    fn callers_that_are_dropped_at_the_same_time_leave_nothing_behind() {
        let (loads, arrived) = (SingleFlight::<()>::new(), AtomicUsize::new(0));
        // Spins, so that both threads continue within nanoseconds; now and then it lets the other one run.
        let meet = |times: usize| {
            arrived.fetch_add(1, Ordering::SeqCst);
            for spins in 1usize.. {
                if arrived.load(Ordering::SeqCst) >= 2 * times {
                    break;
                }
                if spins.is_multiple_of(1_000) { thread::yield_now() } else { spin_loop() }
            }
        };
        let join_and_leave = || {
            for round in 0..ROUNDS {
                let caller = loads.join(SecretDigest::nothing(), || Box::pin(pending()));
                meet(3 * round + 1);
                drop(caller);
                meet(3 * round + 2);
                assert!(lock(&loads.in_flight).is_empty(), "in round {round}");
                meet(3 * round + 3);
            }
        };
        thread::scope(|scope| {
            let other = scope.spawn(join_and_leave);
            join_and_leave();
            other.join().unwrap();
        });
    }

    const ROUNDS: usize = 2_000;
}
