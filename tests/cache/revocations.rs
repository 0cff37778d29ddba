//! Two nodes under load, by the clock of the machine: what one revokes, the other stops accepting
//! within the bound. `REVOCATIONS` says how many there are for each store and state of its feed;
//! the default keeps CI quick. With `--nocapture` it prints how long they took to arrive.

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
    let moods = [Fault::Unavailable, Fault::None, Fault::Hangs, Fault::None];
    on_each_store(async |handles| race(handles, &moods).await).await;
}

/// Revokes all keys at one node while the feed of the other goes through the moods, and asks the
/// other for them all the while.
async fn race(handles: Handles, moods: &[Fault]) {
    let wrapper = FaultyStore::new(handles[handles.len() - 1].clone());
    let (here, there) = (node(handles[0].clone()), node(Arc::new(wrapper.clone())));
    let keys = Arc::new(issue(&here).await);
    there.catch_up().await.unwrap();
    for key in &*keys {
        verify(&there, key).await.expect("it was issued, and is cached now");
    }

    let race = Arc::new(Race {
        there,
        keys,
        revoked: Mutex::default(),
        took: Mutex::default(),
        accepted: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    });
    let mut tasks = JoinSet::new();
    let (watched, loaded) = (race.clone(), race.clone());
    tasks.spawn(async move { watched.watch().await });
    tasks.spawn(async move { loaded.load().await });
    let (turns, flapping) = (moods.to_vec(), race.clone());
    tasks.spawn(async move {
        for mood in turns.iter().cycle() {
            wrapper.set_feed_fault(*mood);
            if turns.len() == 1 || flapping.over.load(Ordering::Relaxed) {
                break;
            }
            sleep(FLAP).await;
        }
    });

    // Half of them one by one, and half of them all of an owner's at once.
    for first in (0..race.keys.len()).step_by(OF_ONE) {
        let (places, owner) = (first..first + OF_ONE, &race.keys[first].key.owner);
        if (first / OF_ONE).is_multiple_of(2) {
            here.revoke_all(owner, "", &by()).await.unwrap();
            race.are_revoked(places);
        } else {
            for place in places {
                here.revoke(owner, race.keys[place].key.id, "", &by()).await.unwrap();
                race.are_revoked([place]);
            }
        }
    }
    race.over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }

    let mut took = race.took.lock().unwrap().clone();
    assert_eq!(took.len(), race.keys.len(), "each of them was refused in the end");
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(
        "  {} revoked, feed {moods:?}: p50 {:?}, p99 {:?}, last {:?}; {} accepted meanwhile",
        took.len(),
        at(50),
        at(99),
        at(100),
        race.accepted.load(Ordering::Relaxed)
    );
}

struct Race {
    there: ApiKeys,
    keys: Arc<Vec<Issued>>,
    /// The places of those whose revocation was acknowledged, and when; not refused there yet.
    revoked: Mutex<Vec<(usize, Instant)>>,
    /// How long each took to be refused there.
    took: Mutex<Vec<Duration>>,
    accepted: AtomicUsize,
    over: AtomicBool,
}

impl Race {
    fn are_revoked(&self, places: impl IntoIterator<Item = usize>) {
        let now = Instant::now();
        self.revoked.lock().unwrap().extend(places.into_iter().map(|place| (place, now)));
    }

    /// Asks for what was revoked until it is refused.
    async fn watch(&self) {
        loop {
            let over = self.over.load(Ordering::Relaxed);
            let asked = std::mem::take(&mut *self.revoked.lock().unwrap());
            if asked.is_empty() && over {
                return;
            }
            let mut left = Vec::new();
            for (place, acknowledged) in asked {
                let begun = Instant::now();
                match verify(&self.there, &self.keys[place]).await {
                    Err(VerifyError::Denied(_)) => {
                        self.took.lock().unwrap().push(acknowledged.elapsed());
                    }
                    Ok(_) => {
                        let beyond = begun.saturating_duration_since(acknowledged + BOUND);
                        assert!(beyond.is_zero(), "accepted {beyond:?} beyond the bound");
                        self.accepted.fetch_add(1, Ordering::Relaxed);
                        left.push((place, acknowledged));
                    }
                    Err(_) => left.push((place, acknowledged)),
                }
            }
            self.revoked.lock().unwrap().append(&mut left);
            yield_now().await;
        }
    }

    /// What else the node has to do.
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
    let plan = Limits::default().max_active_keys(OF_ONE as u32);
    ApiKeys::builder_on(store, format())
        .accounts(NoAccounts::with_limits(plan))
        .cache(CacheOptions::default().max_staleness(BOUND))
        .build()
}

async fn issue(keys: &ApiKeys) -> Vec<Issued> {
    let count = env::var("REVOCATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    let owners = usize::div_ceil(count, OF_ONE);
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        let keys = keys.clone();
        tasks.spawn(async move {
            let mut issued = Vec::new();
            for n in (worker..owners).step_by(WORKERS) {
                let owner = Owner::new("acme", &format!("u{n}")).unwrap();
                for _ in 0..OF_ONE {
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
const FLAP: Duration = Duration::from_millis(20);
const OF_ONE: usize = 50;
const WORKERS: usize = 8;
