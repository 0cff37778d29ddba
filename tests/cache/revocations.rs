//! Two nodes under load, with the system clock: a key that one node revokes is not accepted by the
//! other after the bound. `REVOCATIONS` sets the number of revocations per store and feed state; the
//! default keeps CI fast. With `--nocapture`, it prints how long the revocations took.

use std::{
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use keyward::{
    Actor, ApiKeys, KeyStore, Limits, NewKey, Owner, VerifyError, VerifyRequest,
    accounts::NoAccounts, manage::Issued, verify::CacheOptions,
};
use tokio::{
    task::{JoinSet, yield_now},
    time::sleep,
};

use super::faulty_store::{Fault, FaultyStore};
use crate::support::{format, on_each_store, stores::Handles};

#[tokio::test(flavor = "multi_thread")]
async fn with_the_feed_up_no_revoked_key_is_accepted_after_the_bound() {
    on_each_store(async |handles| race(handles, &[Fault::None]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_feed_failing_no_revoked_key_is_accepted_after_the_bound() {
    on_each_store(async |handles| race(handles, &[Fault::Unavailable]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_feed_hanging_no_revoked_key_is_accepted_after_the_bound() {
    on_each_store(async |handles| race(handles, &[Fault::Hangs]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_feed_flapping_no_revoked_key_is_accepted_after_the_bound() {
    let faults = [Fault::Unavailable, Fault::None, Fault::Hangs, Fault::None];
    on_each_store(async |handles| race(handles, &faults).await).await;
}

/// Revokes all keys on one node while the feed of the other goes through the faults, and verifies the
/// keys on the other node meanwhile.
async fn race(handles: Handles, faults: &[Fault]) {
    let store = FaultyStore::new(handles[handles.len() - 1].clone());
    let (here, there) = (node(handles[0].clone()), node(Arc::new(store.clone())));
    let keys = Arc::new(issue(&here).await);
    there.catch_up().await.unwrap();
    for key in &*keys {
        verify(&there, key).await.expect("it was issued");
    }

    let race = Arc::new(Race {
        there,
        keys,
        revoked: Mutex::default(),
        delays: Mutex::default(),
        accepted: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    });
    let mut tasks = JoinSet::new();
    let (watched, loaded) = (race.clone(), race.clone());
    tasks.spawn(async move { watched.watch().await });
    tasks.spawn(async move { loaded.load().await });
    let (turns, flapping) = (faults.to_vec(), race.clone());
    tasks.spawn(async move {
        for fault in turns.iter().cycle() {
            store.set_feed_fault(*fault);
            if turns.len() == 1 || flapping.over.load(Ordering::Relaxed) {
                break;
            }
            sleep(FLAP_INTERVAL).await;
        }
    });

    // Revokes half of the keys one by one, and half of them per owner.
    for first in (0..race.keys.len()).step_by(KEYS_PER_OWNER) {
        let (indexes, owner) = (first..first + KEYS_PER_OWNER, &race.keys[first].key.owner);
        if (first / KEYS_PER_OWNER).is_multiple_of(2) {
            here.revoke_all(owner, "", &by()).await.unwrap();
            race.add_revoked(indexes);
        } else {
            for index in indexes {
                here.revoke(owner, race.keys[index].key.id, "", &by()).await.unwrap();
                race.add_revoked([index]);
            }
        }
    }
    race.over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }

    let mut delays = race.delays.lock().unwrap().clone();
    assert_eq!(delays.len(), race.keys.len(), "every key was denied in the end");
    delays.sort_unstable();
    let at = |percent: usize| delays[(delays.len() - 1) * percent / 100];
    println!(
        "  {} revoked, feed {faults:?}: p50 {:?}, p99 {:?}, last {:?}; {} accepted meanwhile",
        delays.len(),
        at(50),
        at(99),
        at(100),
        race.accepted.load(Ordering::Relaxed)
    );
}

struct Race {
    there: ApiKeys,
    keys: Arc<Vec<Issued>>,
    /// The indexes of keys with an acknowledged revocation that the other node still accepts, and the
    /// time of the acknowledgment.
    revoked: Mutex<Vec<(usize, Instant)>>,
    /// The time from acknowledgment to denial on the other node, per key.
    delays: Mutex<Vec<Duration>>,
    accepted: AtomicUsize,
    over: AtomicBool,
}

impl Race {
    fn add_revoked(&self, indexes: impl IntoIterator<Item = usize>) {
        let now = Instant::now();
        self.revoked.lock().unwrap().extend(indexes.into_iter().map(|index| (index, now)));
    }

    /// Verifies revoked keys until they are denied.
    async fn watch(&self) {
        loop {
            let over = self.over.load(Ordering::Relaxed);
            let pending = std::mem::take(&mut *self.revoked.lock().unwrap());
            if pending.is_empty() && over {
                return;
            }
            let mut left = Vec::new();
            for (index, acknowledged) in pending {
                let start = Instant::now();
                match verify(&self.there, &self.keys[index]).await {
                    Err(VerifyError::Denied(_)) => {
                        self.delays.lock().unwrap().push(acknowledged.elapsed());
                    }
                    Ok(_) => {
                        let beyond = start.saturating_duration_since(acknowledged + BOUND);
                        assert!(beyond.is_zero(), "accepted {beyond:?} after the bound");
                        self.accepted.fetch_add(1, Ordering::Relaxed);
                        left.push((index, acknowledged));
                    }
                    Err(_) => left.push((index, acknowledged)),
                }
            }
            self.revoked.lock().unwrap().append(&mut left);
            yield_now().await;
        }
    }

    /// Other load of the node.
    async fn load(&self) {
        while !self.over.load(Ordering::Relaxed) {
            for issued in self.keys.iter().step_by(7) {
                let _ = verify(&self.there, issued).await;
                yield_now().await;
            }
        }
    }
}

fn node(store: Arc<dyn KeyStore>) -> ApiKeys {
    let plan = Limits::default().max_active_keys(KEYS_PER_OWNER as u32);
    ApiKeys::builder_on(store, format())
        .accounts(NoAccounts::with_limits(plan))
        .cache(CacheOptions::default().max_staleness(BOUND))
        .build()
}

async fn issue(keys: &ApiKeys) -> Vec<Issued> {
    let count = env::var("REVOCATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    let owners = usize::div_ceil(count, KEYS_PER_OWNER);
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        let keys = keys.clone();
        tasks.spawn(async move {
            let mut issued = Vec::new();
            for n in (worker..owners).step_by(WORKERS) {
                let owner = Owner::new("acme", &format!("u{n}")).unwrap();
                for _ in 0..KEYS_PER_OWNER {
                    let new = NewKey::new(&owner, "ci").unwrap();
                    issued.push(keys.issue(new, &by()).await.unwrap());
                }
            }
            issued
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn verify(keys: &ApiKeys, issued: &Issued) -> Result<(), VerifyError> {
    keys.verify(issued.secret.expose(), &VerifyRequest::new()).await.map(drop)
}

fn by() -> Actor {
    Actor::system("test")
}

const BOUND: Duration = Duration::from_secs(1);
const FLAP_INTERVAL: Duration = Duration::from_millis(20);
const KEYS_PER_OWNER: usize = 50;
const WORKERS: usize = 8;
