//! Invalidation epochs under a model checker, which tries the orders in which threads can run.
//!
//! `EPOCH_SCHEDULES` sets the number of schedules. The default keeps CI fast.

use std::{env, panic::catch_unwind, sync::Arc};

use shuttle::{
    check_pct, check_random,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::{AtomicNumber, Epoch, InvalidationEpochs};

impl AtomicNumber for AtomicU64 {
    fn zero() -> Self {
        Self::new(0)
    }

    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::SeqCst)
    }

    fn increment(&self) -> u64 {
        self.fetch_add(1, Ordering::SeqCst)
    }

    fn raise_to(&self, at_least: u64) {
        self.fetch_max(at_least, Ordering::SeqCst);
    }
}

/// A node with one key: its store, its cache, and the last acknowledged change.
struct Node {
    /// The version of the key. A reader must never see a version from before a change that was acknowledged before
    /// its read began.
    stored: Mutex<u64>,
    cached: Mutex<Option<(u64, Epoch)>>,
    epochs: InvalidationEpochs<AtomicU64>,
    acknowledged: AtomicU64,
    scheme: Scheme,
}

#[derive(Clone, Copy)]
enum Scheme {
    Epochs,
    /// Read, then insert; change, then remove.
    Naive,
    /// Invalidates before the change only.
    TooEarly,
}

impl Node {
    fn new(scheme: Scheme) -> Arc<Self> {
        Arc::new(Self {
            stored: Mutex::new(0),
            cached: Mutex::new(None),
            epochs: InvalidationEpochs::new(2),
            acknowledged: AtomicU64::new(0),
            scheme,
        })
    }

    fn verify(&self) {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let slots = [self.epochs.slot(0), self.epochs.slot(1)];
        let cached = *self.cached.lock().unwrap();
        let believed = cached.filter(|(_, epoch)| match self.scheme {
            Scheme::Naive => true,
            Scheme::Epochs | Scheme::TooEarly => self.epochs.is_current(*epoch, slots),
        });
        let seen = believed.map_or_else(|| self.read(), |(version, _)| version);
        assert!(seen >= acknowledged, "saw {seen} after {acknowledged} was acknowledged");
    }

    fn read(&self) -> u64 {
        let epoch = self.epochs.current();
        let version = *self.stored.lock().unwrap();
        *self.cached.lock().unwrap() = Some((version, epoch));
        version
    }

    fn change(&self, everything: bool) {
        if matches!(self.scheme, Scheme::TooEarly) {
            self.epochs.invalidate(self.epochs.slot(0));
        }
        let version = {
            let mut stored = self.stored.lock().unwrap();
            *stored += 1;
            *stored
        };
        match self.scheme {
            Scheme::Naive => *self.cached.lock().unwrap() = None,
            Scheme::TooEarly => {}
            Scheme::Epochs if everything => self.epochs.invalidate_all(),
            Scheme::Epochs => self.epochs.invalidate(self.epochs.slot(0)),
        }
        self.acknowledged.fetch_max(version, Ordering::SeqCst);
    }
}

/// Two threads verify, two change, and the key is verified once more at the end.
fn scenario(scheme: Scheme) {
    let node = Node::new(scheme);
    let mut threads = Vec::new();
    for n in 0..2 {
        let reader = node.clone();
        threads.push(thread::spawn(move || {
            reader.verify();
            reader.verify();
        }));
        let writer = node.clone();
        threads.push(thread::spawn(move || writer.change(n == 1)));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    node.verify();
}

fn schedules() -> usize {
    env::var("EPOCH_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

#[test]
fn no_schedule_brings_an_invalidated_key_back() {
    check_random(|| scenario(Scheme::Epochs), schedules() / 2);
    check_pct(|| scenario(Scheme::Epochs), schedules() / 2, 3);
}

#[test]
fn the_model_catches_a_cache_without_epochs() {
    let naive = catch_unwind(|| check_random(|| scenario(Scheme::Naive), 20_000));
    assert!(naive.is_err(), "plain read-then-insert must be seen to fail");
    let early = catch_unwind(|| check_random(|| scenario(Scheme::TooEarly), 20_000));
    assert!(early.is_err(), "invalidating only before the change must be seen to fail");
}
