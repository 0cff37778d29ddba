//! The fence under a model checker, which tries the orders in which threads can take turns.
//!
//! `FENCE_SCHEDULES` sets how many; the default keeps CI quick.

use std::{env, panic::catch_unwind, sync::Arc};

use shuttle::{
    check_pct, check_random,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use crate::verify::cache::fence::{Counter, Fence, Token};

impl Counter for AtomicU64 {
    fn zero() -> Self {
        Self::new(0)
    }

    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::SeqCst)
    }

    fn increase(&self) -> u64 {
        self.fetch_add(1, Ordering::SeqCst)
    }

    fn raise_to(&self, at_least: u64) {
        self.fetch_max(at_least, Ordering::SeqCst);
    }
}

/// A node with one key: its store, its cache, and what became of the key.
struct Node {
    /// How often the key was changed; the reader shall never see an earlier number than was
    /// acknowledged before its read began.
    stored: Mutex<u64>,
    cached: Mutex<Option<(u64, Token)>>,
    fence: Fence<AtomicU64>,
    acknowledged: AtomicU64,
    way: Way,
}

#[derive(Clone, Copy)]
enum Way {
    Fenced,
    /// As one writes it without thinking: read, then insert; change, then remove.
    Naive,
    /// The invalidation comes before the change only.
    TooEarly,
}

impl Node {
    fn new(way: Way) -> Arc<Self> {
        Arc::new(Self {
            stored: Mutex::new(0),
            cached: Mutex::new(None),
            fence: Fence::new(2),
            acknowledged: AtomicU64::new(0),
            way,
        })
    }

    fn verify(&self) {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let places = [self.fence.place(0), self.fence.place(1)];
        let cached = *self.cached.lock().unwrap();
        let believed = cached.filter(|(_, token)| match self.way {
            Way::Naive => true,
            Way::Fenced | Way::TooEarly => self.fence.holds(*token, places),
        });
        let seen = believed.map_or_else(|| self.read(), |(version, _)| version);
        assert!(seen >= acknowledged, "saw {seen} after {acknowledged} was acknowledged");
    }

    fn read(&self) -> u64 {
        let token = self.fence.begin();
        let version = *self.stored.lock().unwrap();
        *self.cached.lock().unwrap() = Some((version, token));
        version
    }

    fn change(&self, everything: bool) {
        if matches!(self.way, Way::TooEarly) {
            self.fence.invalidate(self.fence.place(0));
        }
        let version = {
            let mut stored = self.stored.lock().unwrap();
            *stored += 1;
            *stored
        };
        match self.way {
            Way::Naive => *self.cached.lock().unwrap() = None,
            Way::TooEarly => {}
            Way::Fenced if everything => self.fence.invalidate_all(),
            Way::Fenced => self.fence.invalidate(self.fence.place(0)),
        }
        self.acknowledged.fetch_max(version, Ordering::SeqCst);
    }
}

/// Two that verify and two that change, and one more verification when all is done.
fn scenario(way: Way) {
    let node = Node::new(way);
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
    env::var("FENCE_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

#[test]
fn no_order_of_threads_brings_an_invalidated_key_back() {
    check_random(|| scenario(Way::Fenced), schedules() / 2);
    check_pct(|| scenario(Way::Fenced), schedules() / 2, 3);
}

#[test]
fn the_model_catches_a_cache_without_a_fence() {
    let naive = catch_unwind(|| check_random(|| scenario(Way::Naive), 20_000));
    assert!(naive.is_err(), "plain read-then-insert must be seen to fail");
    let early = catch_unwind(|| check_random(|| scenario(Way::TooEarly), 20_000));
    assert!(early.is_err(), "invalidating only before the change must be seen to fail");
}
