//! Nodes whose clocks are wrong, on a server whose clock they are compared with, and on one machine.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use keyward::{
    ErrorKind, Expiry, KeyStore, Limits, OwnerScope, Timestamp, VerifyError, VerifyRequest,
    api::{ApiKeysBuilder, Health},
    audit::EventKind,
    manage::{Issued, Page, Reminders, Retention, Rotation},
    model::{KeyLimits, Period, Quota},
    store::{ChargeOutcome, CounterCharge, CounterKey},
    system::{Clock, ClockReading},
    testing::ManualClock,
    verify::CacheOptions,
};

use crate::{
    cache::faulty_store::{Fault, FaultyStore},
    support::{DAY, HOUR, SECOND, Service, stores},
};

/// A clock that the test sets, and that a node takes for a real one.
struct Real(ManualClock);

impl Clock for Real {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn reading(&self) -> ClockReading {
        self.0.reading()
    }
}

/// Nodes with a clock each, on a server with a clock.
struct World {
    service: Service,
    store: FaultyStore,
    clocks: Vec<ManualClock>,
    server: ManualClock,
}

const BOUND: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Ahead,
    Behind,
}

use Direction::{Ahead, Behind};

impl World {
    fn new() -> Self {
        Self::with(|builder| builder)
    }

    fn with(adapt: impl Fn(ApiKeysBuilder) -> ApiKeysBuilder) -> Self {
        let server = ManualClock::default();
        let store = FaultyStore::new(stores::memory().remove(0)).with_clock(&server);
        Self::on(store, server, adapt)
    }

    /// On one machine: the store has no clock.
    fn on_one_machine() -> Self {
        let store = FaultyStore::new(stores::memory().remove(0));
        Self::on(store, ManualClock::default(), |builder| builder)
    }

    fn on(
        store: FaultyStore,
        server: ManualClock,
        adapt: impl Fn(ApiKeysBuilder) -> ApiKeysBuilder,
    ) -> Self {
        let clocks = [ManualClock::default(), ManualClock::default()];
        let left = Mutex::new(VecDeque::from(clocks.clone()));
        let handles: Vec<Arc<dyn KeyStore>> =
            clocks.iter().map(|_| Arc::new(store.clone()) as _).collect();
        let service = Service::with(handles, |builder| {
            let clock = Real(left.lock().unwrap().pop_front().unwrap());
            adapt(builder.clock(clock).cache(CacheOptions::default().max_staleness(MINUTE)))
        });
        Self { service, store, clocks: clocks.into(), server }
    }

    /// Lets time pass everywhere.
    fn pass(&self, time: Duration) {
        self.service.clock.advance(time);
        self.server.advance(time);
        self.clocks.iter().for_each(|clock| clock.advance(time));
    }

    fn jump(&self, node: usize, by: Duration, direction: Direction) {
        jump(&self.clocks[node], by, direction);
    }

    async fn says(&self, node: usize, issued: &Issued) -> &'static str {
        let verified =
            self.service.nodes[node].verify(issued.secret.expose(), &VerifyRequest::new()).await;
        match verified {
            Ok(_) => "ok",
            Err(VerifyError::Denied(denied)) => denied.reason().as_str(),
            Err(VerifyError::Limited(_)) => "limited",
            Err(VerifyError::Unavailable(_)) => "unavailable",
        }
    }

    /// Returns why a request is *unavailable*.
    async fn refusal(&self, node: usize, issued: &Issued) -> String {
        let verified =
            self.service.nodes[node].verify(issued.secret.expose(), &VerifyRequest::new()).await;
        let Err(VerifyError::Unavailable(error)) = verified else { panic!("{verified:?}") };
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        error.to_string()
    }

    async fn issue(&self, node: usize, expiry: Expiry) -> Result<Issued, keyward::Error> {
        let new = self.service.new_key().expiry(expiry);
        self.service.nodes[node].issue(new, &self.service.actor).await
    }

    fn health(&self, node: usize) -> Health {
        self.service.nodes[node].health()
    }
}

fn jump(clock: &ManualClock, by: Duration, direction: Direction) {
    let now = clock.now();
    clock.set(match direction {
        Ahead => now.after(by),
        Behind => now.before(by),
    });
}

fn back(direction: Direction) -> Direction {
    if direction == Ahead { Behind } else { Ahead }
}

#[tokio::test]
async fn a_node_whose_clock_is_wrong_for_a_moment_denies_nothing_and_recovers() {
    for by in [MINUTE, HOUR, DAY, YEAR] {
        for direction in [Ahead, Behind] {
            let world = World::new();
            let issued = world.issue(0, Expiry::After(MINUTE * 10)).await.unwrap();
            assert_eq!(world.says(0, &issued).await, "ok");
            world.jump(0, by, direction);
            for _ in 0..5 {
                world.pass(SECOND / 2);
                assert_eq!(world.says(0, &issued).await, "unavailable", "{by:?} {direction:?}");
                assert_eq!(world.says(1, &issued).await, "ok", "the clock of this node is right");
            }
            world.jump(0, by, back(direction));
            assert_eq!(world.says(0, &issued).await, "ok", "{by:?} {direction:?}");
            assert_eq!(world.health(0).clock_set_back, Duration::ZERO);
            world.pass(MINUTE * 10 - SECOND * 3);
            assert_eq!(world.says(0, &issued).await, "ok", "{by:?} {direction:?}");
            world.pass(SECOND);
            assert_eq!(world.says(0, &issued).await, "expired", "{by:?} {direction:?}");
        }
    }
}

#[tokio::test]
async fn no_set_back_makes_a_key_or_an_overlap_live_longer() {
    for by in [MINUTE, HOUR, DAY, YEAR] {
        let world = World::new();
        let short = world.issue(0, Expiry::After(SECOND * 2)).await.unwrap();
        let old = world.issue(0, Expiry::Never).await.unwrap();
        let (ada, by_ada) = (&world.service.owner, &world.service.actor);
        let overlap = Rotation::overlap(SECOND * 2);
        let _new = world.service.nodes[0].rotate(ada, old.key.id, overlap, by_ada).await.unwrap();
        for node in 0..2 {
            assert_eq!(world.says(node, &short).await, "ok");
            assert_eq!(world.says(node, &old).await, "ok");
        }
        world.jump(0, by, Behind);
        world.pass(SECOND * 2);
        for issued in [&short, &old] {
            assert_eq!(world.says(0, issued).await, "unavailable");
            assert_ne!(world.says(1, issued).await, "ok");
        }
        world.jump(0, by, Ahead);
        assert_eq!(world.says(0, &short).await, "expired");
        assert_eq!(world.says(0, &old).await, "secret_retired");
    }
}

#[tokio::test]
async fn a_wrong_clock_lets_no_owner_have_more_keys() {
    let world = World::new();
    world.service.host.limit(&world.service.owner, Limits::default().max_active_keys(5));
    for _ in 0..5 {
        let _issued = world.issue(0, Expiry::After(MINUTE * 30)).await.unwrap();
    }
    for (by, direction) in [(HOUR, Ahead), (YEAR, Ahead), (HOUR, Behind)] {
        world.jump(1, by, direction);
        let refused = world.issue(1, Expiry::Never).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
        world.jump(1, by, back(direction));
        let refused = world.issue(1, Expiry::Never).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LimitReached);
    }
    world.pass(MINUTE * 30);
    let _issued = world.issue(1, Expiry::Never).await.unwrap();
}

#[tokio::test]
async fn a_wrong_clock_closes_no_quota() {
    let world = World::new();
    let limits = KeyLimits { quota: Some(Quota::per_day(2)), ..KeyLimits::default() };
    let new = || world.service.new_key().limits(limits);
    let issued = world.service.keys().issue(new(), &world.service.actor).await.unwrap();
    world.jump(1, YEAR, Ahead);
    assert_eq!(world.says(1, &issued).await, "unavailable");
    assert_eq!(world.store.charges(), 0);
    for expected in ["ok", "ok", "limited"] {
        assert_eq!(world.says(0, &issued).await, expected);
    }
    world.pass(DAY);
    assert_eq!(world.says(0, &issued).await, "ok", "on the next day");

    // A clock that was wrong for longer, or a node of an earlier version, has charged a period in a year.
    let hurt = world.service.keys().issue(new(), &world.service.actor).await.unwrap();
    let (period, counter_key) = (Period::Day, CounterKey::Key(hurt.key.id));
    let window = period.begins_at(world.server.now().after(YEAR));
    let latest_window = Timestamp::MAX;
    let charge = CounterCharge { counter_key, period, window, latest_window, limit: 2, uses: 2 };
    let charged = world.store.counters().unwrap().charge(&[charge]).await.unwrap();
    assert_eq!(charged, ChargeOutcome::Granted(vec![2]));
    for expected in ["ok", "ok", "limited"] {
        assert_eq!(world.says(0, &hurt).await, expected);
    }
}

#[tokio::test]
async fn the_error_names_the_offset_and_what_to_do() {
    let world = World::new();
    let issued = world.issue(0, Expiry::Never).await.unwrap();
    world.jump(0, HOUR, Ahead);
    let ahead = world.refusal(0, &issued).await;
    assert_eq!(
        ahead,
        "this node's clock is 3600 s ahead of the key store's clock, more than the 5s that are allowed, so nothing is \
         decided by it: check the time synchronization (NTP) of both machines"
    );
    world.jump(0, HOUR + SECOND * 7, Behind);
    let behind = world.refusal(0, &issued).await;
    assert!(
        behind.starts_with("this node's clock is 7 s behind the key store's clock"),
        "{behind}"
    );
    let refused = world.issue(0, Expiry::Never).await.unwrap_err();
    assert_eq!(refused.to_string(), behind);
}

#[tokio::test]
async fn health_reports_the_offset_and_the_refusal() {
    let world = World::new();
    let health = world.health(0);
    assert_eq!((health.clock_offset_ms, health.clock_refused), (None, false), "not compared yet");
    let issued = world.issue(0, Expiry::Never).await.unwrap();
    for (by, direction, offset, refused) in [
        (SECOND * 3, Ahead, 3_000, false),
        (SECOND * 3, Behind, 0, false),
        (BOUND, Behind, -5_000, false),
        (SECOND / 1_000, Behind, -5_001, false),
        (SECOND, Behind, -6_001, true),
        (SECOND * 12, Ahead, 5_999, true),
        (SECOND, Behind, 4_999, false),
    ] {
        world.jump(0, by, direction);
        let expected = if refused { "unavailable" } else { "ok" };
        let _ = world.says(0, &issued).await;
        let health = world.health(0);
        assert_eq!(health.clock_offset_ms, Some(offset));
        if by > SECOND / 2 {
            assert_eq!(health.clock_refused, refused, "{offset}");
            assert_eq!(world.says(0, &issued).await, expected, "{offset}");
        }
    }
    let health = world.health(1);
    assert_eq!(
        (health.clock_offset_ms, health.clock_refused),
        (None, false),
        "it was not used yet"
    );
}

#[tokio::test]
async fn clocks_within_the_bound_move_an_end_by_no_more_than_it() {
    for direction in [Ahead, Behind] {
        let world = World::new();
        world.jump(1, BOUND, direction);
        let issued = world.issue(0, Expiry::After(MINUTE)).await.unwrap();
        assert_eq!(world.says(1, &issued).await, "ok");
        world.pass(MINUTE - BOUND - SECOND / 1_000);
        assert_eq!(world.says(1, &issued).await, "ok");
        world.pass(BOUND * 2 + SECOND / 1_000);
        assert_eq!(world.says(1, &issued).await, "expired", "{direction:?}");
    }
}

/// A failover to a server whose clock differs.
#[tokio::test]
async fn a_wrong_clock_of_the_server_is_noticed_within_five_seconds_and_named() {
    let world = World::new();
    let issued = world.issue(0, Expiry::Never).await.unwrap();
    assert_eq!(world.says(0, &issued).await, "ok");
    jump(&world.server, HOUR, Behind);
    world.pass(SECOND * 5);
    let refused = world.issue(0, Expiry::Never).await.unwrap_err();
    let sentence = "this node's clock is 3600 s ahead of the key store's clock";
    assert!(refused.to_string().starts_with(sentence), "{refused}");
    assert!(world.refusal(0, &issued).await.starts_with(sentence));
    assert_eq!(world.health(0).clock_offset_ms, Some(3_600_000));
    let reads = world.store.clock_reads();
    for _ in 0..10 {
        assert_eq!(world.says(0, &issued).await, "unavailable");
    }
    assert_eq!(world.store.clock_reads(), reads, "the server is asked once a second");
    jump(&world.server, HOUR, Ahead);
    world.pass(SECOND);
    assert_eq!(world.says(0, &issued).await, "ok");
}

#[tokio::test]
async fn a_jump_of_the_servers_clock_ends_the_trust_in_all_that_was_read_before() {
    let world = World::new();
    let issued = world.issue(0, Expiry::Never).await.unwrap();
    assert_eq!(world.says(0, &issued).await, "ok");
    // What this call needs, beside a comparison of the clocks, changes nothing.
    let compare = async || {
        world.pass(SECOND * 5);
        let _reminded = world.service.nodes[0]
            .remind(OwnerScope::Tenant("nothing"), &Reminders::default())
            .await;
        assert_eq!(world.says(0, &issued).await, "ok");
        world.store.finds()
    };
    assert_eq!(compare().await, 1);
    for (n, direction) in [Ahead, Behind].into_iter().enumerate() {
        jump(&world.server, SECOND * 2, direction);
        assert_eq!(compare().await, n + 2, "{direction:?}");
        assert_eq!(compare().await, n + 2, "no jump");
        jump(&world.server, SECOND / 2, direction);
        assert_eq!(compare().await, n + 2, "a step of a time synchronization");
    }
}

/// No verification has read the clock since the jump.
#[tokio::test]
async fn a_jump_that_a_comparison_finds_first_ends_the_trust_as_well() {
    let world = World::new();
    let issued = world.issue(0, Expiry::Never).await.unwrap();
    for finds in 1..4 {
        assert_eq!(world.says(0, &issued).await, "ok");
        assert_eq!(world.store.finds(), finds);
        world.jump(0, SECOND, Ahead);
        world.pass(SECOND * 5);
        world.service.nodes[0].purge(Retention::default(), |_| ()).await.unwrap();
    }
}

#[tokio::test]
async fn a_look_up_under_way_when_the_clock_jumps_is_not_decided_by_it() {
    for direction in [Ahead, Behind] {
        let world = Arc::new(World::new());
        let issued = Arc::new(world.issue(0, Expiry::After(MINUTE)).await.unwrap());
        world.store.hold_finds();
        let verified = tokio::spawn({
            let (world, issued) = (world.clone(), issued.clone());
            async move { world.says(0, &issued).await }
        });
        while world.store.finds() == 0 {
            tokio::task::yield_now().await;
        }
        world.jump(0, HOUR, direction);
        world.store.release_finds(10);
        assert_eq!(verified.await.unwrap(), "unavailable", "{direction:?}");
    }
}

#[tokio::test]
async fn the_first_callers_share_one_reading_of_the_servers_clock() {
    let world = Arc::new(World::new());
    world.store.hold_clock();
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.issue(0, Expiry::Never).await.map(drop) })
        })
        .collect();
    while world.store.clock_reads() == 0 {
        tokio::task::yield_now().await;
    }
    world.store.release_clock();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(world.store.clock_reads(), 1);
}

#[tokio::test]
async fn nothing_is_decided_before_the_clocks_were_compared() {
    let world = World::new();
    let issued = world.issue(0, Expiry::Never).await.unwrap();
    world.store.set_clock_fault(Fault::Unavailable);
    let sentence = "cannot use the key store";
    assert!(world.refusal(1, &issued).await.starts_with(sentence));
    assert!(world.issue(1, Expiry::Never).await.unwrap_err().to_string().starts_with(sentence));
    assert_eq!(world.says(0, &issued).await, "ok", "this node has compared them");
    world.pass(MINUTE);
    assert_eq!(world.says(0, &issued).await, "ok");
    world.store.set_clock_fault(Fault::None);
    assert_eq!(world.says(1, &issued).await, "ok");
}

/// The process was stopped meanwhile, so the answer says little about the time.
#[tokio::test]
async fn a_slow_answer_of_the_server_is_not_believed() {
    let world = Arc::new(World::new());
    let issued = Arc::new(world.issue(0, Expiry::Never).await.unwrap());
    world.store.hold_clock();
    let verified = tokio::spawn({
        let (world, issued) = (world.clone(), issued.clone());
        async move { world.refusal(1, &issued).await }
    });
    while world.store.clock_reads() < 2 {
        tokio::task::yield_now().await;
    }
    world.pass(HOUR);
    world.store.release_clock();
    let refusal = verified.await.unwrap();
    assert!(refusal.contains("could not be compared"), "{refusal}");
    assert_eq!(world.says(1, &issued).await, "ok");
}

#[tokio::test]
async fn nothing_else_is_decided_by_a_wrong_clock() {
    let world = World::new();
    let (ada, by) = (&world.service.owner, &world.service.actor);
    let node = &world.service.nodes[0];
    let issued = world.issue(0, Expiry::Never).await.unwrap();
    let ended = world.issue(0, Expiry::Never).await.unwrap();
    node.revoke(ada, ended.key.id, "", by).await.unwrap();
    let verified = node.verify(issued.secret.expose(), &VerifyRequest::new()).await.unwrap();
    world.jump(0, YEAR, Ahead);
    let id = issued.key.id;
    let disabled = node.disable(ada, id, by).await.map(drop);
    let enabled = node.enable(ada, id, by).await.map(drop);
    let rotated = node.rotate(ada, id, Rotation::immediate(), by).await.map(drop);
    let purged = node.purge(Retention::default(), |_| ()).await.map(drop);
    let reminded = node.remind(ada, &Reminders::default()).await.map(drop);
    let identified = node.identify(issued.secret.expose()).await.map(drop);
    let reserved = match node.reserve(&verified, 1).await.map(drop) {
        Err(VerifyError::Unavailable(error)) => Err(error),
        other => panic!("{other:?}"),
    };
    for refused in [disabled, enabled, rotated, purged, reminded, identified, reserved] {
        let refused = refused.unwrap_err();
        assert!(refused.to_string().contains("31536000 s ahead"), "{refused}");
    }
    assert!(node.get(ada, ended.key.id).await.is_ok(), "it was not purged");
    assert_eq!(node.list(ada, Page::first()).await.unwrap().keys.len(), 2, "reading goes on");
}

#[tokio::test]
async fn a_key_can_be_ended_whatever_the_clock_shows() {
    for direction in [Ahead, Behind] {
        let world = World::new();
        let (ada, by) = (&world.service.owner, &world.service.actor);
        let node = &world.service.nodes[0];
        let mut keys = Vec::new();
        for _ in 0..3 {
            keys.push(world.issue(1, Expiry::Never).await.unwrap());
        }
        // Also by a node that has compared nothing yet.
        world.jump(0, YEAR, direction);
        node.revoke(ada, keys[0].key.id, "", by).await.unwrap();
        node.delete(ada, keys[1].key.id, by).await.unwrap();
        assert_eq!(node.revoke_all(ada, "", by).await.unwrap(), [keys[2].key.id]);
        let events = world.service.events.all();
        let ended = events.iter().filter(|event| event.kind != EventKind::Created);
        let mut count = 0;
        for event in ended {
            let (at, now) = (event.at, world.server.now());
            assert!((now.before(BOUND)..=now.after(BOUND)).contains(&at), "{at}");
            count += 1;
        }
        assert_eq!(count, 3);
        assert_ne!(world.says(1, &keys[0]).await, "ok");
    }
}

#[tokio::test]
async fn the_bound_can_be_set() {
    for (bound, by, expected) in [
        (MINUTE, MINUTE, "ok"),
        (MINUTE, MINUTE + SECOND, "unavailable"),
        (SECOND, SECOND * 2, "unavailable"),
        (Duration::MAX, YEAR, "ok"),
    ] {
        for direction in [Ahead, Behind] {
            let world = World::with(|builder| builder.max_clock_offset(bound));
            let issued = world.issue(1, Expiry::Never).await.unwrap();
            world.jump(0, by, direction);
            assert_eq!(world.says(0, &issued).await, expected, "{bound:?} {by:?} {direction:?}");
        }
    }
}

/// The clock of a test is compared with no server's.
#[tokio::test]
async fn a_manual_clock_is_believed() {
    let server = ManualClock::default();
    let store = FaultyStore::new(stores::memory().remove(0)).with_clock(&server);
    let service = Service::new(vec![Arc::new(store.clone())]);
    let issued = service.issue().await;
    service.clock.set(service.now().after(YEAR));
    service.verify(&issued).await.unwrap();
    assert_eq!(store.clock_reads(), 0);
    assert!(!service.keys().health().clock_refused);
}

#[tokio::test]
async fn on_one_machine_a_clock_that_is_ahead_for_a_moment_denies_nothing() {
    for by in [MINUTE, DAY, YEAR] {
        let world = World::on_one_machine();
        let issued = world.issue(0, Expiry::After(MINUTE * 10)).await.unwrap();
        assert_eq!(world.says(0, &issued).await, "ok");
        world.jump(0, by, Ahead);
        let refusal = world.refusal(0, &issued).await;
        let seconds = by.as_secs();
        assert_eq!(
            refusal,
            format!(
                "this node's clock jumped: it is {seconds} s ahead of the time that has passed, more than the 5s that \
                 are allowed; it is believed if it stays so for 60s: check the machine's time synchronization (NTP)"
            )
        );
        assert!(world.health(0).clock_refused);
        assert!(world.issue(0, Expiry::Never).await.unwrap_err().is_unavailable());
        world.pass(SECOND * 5 / 2);
        assert_eq!(world.says(0, &issued).await, "unavailable");
        world.jump(0, by, Behind);
        assert_eq!(world.says(0, &issued).await, "ok");
        world.pass(MINUTE * 10);
        assert_eq!(world.says(0, &issued).await, "expired");
    }
}

/// A virtual machine that was paused, or a machine that had a wrong clock when it was started.
#[tokio::test]
async fn on_one_machine_a_clock_that_stays_ahead_is_believed_after_a_minute() {
    let world = World::on_one_machine();
    let short = world.issue(0, Expiry::After(MINUTE * 30)).await.unwrap();
    let long = world.issue(0, Expiry::After(DAY)).await.unwrap();
    world.jump(0, HOUR, Ahead);
    assert_eq!(world.says(0, &long).await, "unavailable");
    world.pass(MINUTE - SECOND);
    assert_eq!(world.says(0, &long).await, "unavailable");
    world.pass(SECOND);
    assert_eq!(world.says(0, &long).await, "ok");
    assert_eq!(world.says(0, &short).await, "expired");
    assert!(!world.health(0).clock_refused);
}

#[tokio::test]
async fn on_one_machine_time_goes_on_when_the_clock_is_set_back() {
    for by in [MINUTE, HOUR, YEAR] {
        let world = World::on_one_machine();
        let short = world.issue(0, Expiry::After(SECOND * 2)).await.unwrap();
        let long = world.issue(0, Expiry::After(MINUTE * 10)).await.unwrap();
        let old = world.issue(0, Expiry::Never).await.unwrap();
        let overlap = Rotation::overlap(SECOND * 2);
        let (ada, by_ada) = (&world.service.owner, &world.service.actor);
        let _new = world.service.nodes[0].rotate(ada, old.key.id, overlap, by_ada).await.unwrap();
        world.jump(0, by, Behind);
        for issued in [&short, &long, &old] {
            assert_eq!(world.says(0, issued).await, "ok");
        }
        assert_eq!(world.health(0).clock_set_back, by);
        world.pass(SECOND * 2);
        assert_eq!(world.says(0, &short).await, "expired");
        assert_eq!(world.says(0, &old).await, "secret_retired");
        world.pass(MINUTE * 10 - SECOND * 3);
        assert_eq!(world.says(0, &long).await, "ok");
        world.pass(SECOND);
        assert_eq!(world.says(0, &long).await, "expired");
        // The clock is right again.
        world.jump(0, by, Ahead);
        assert_eq!(world.health(0).clock_set_back, Duration::ZERO);
        let again = world.issue(0, Expiry::After(SECOND)).await.unwrap();
        assert_eq!(again.key.created_at, world.clocks[0].now());
    }
}

/// All clocks were a year ahead, that of the server too.
#[tokio::test]
async fn what_was_held_because_of_a_wrong_clock_is_forgotten_when_it_is_right() {
    let world = World::new();
    let set_all = |direction| {
        jump(&world.server, YEAR, direction);
        (0..2).for_each(|node| world.jump(node, YEAR, direction));
    };
    set_all(Ahead);
    let early = world.issue(0, Expiry::Never).await.unwrap();
    assert_eq!(world.says(0, &early).await, "ok");
    set_all(Behind);
    let late = world.issue(0, Expiry::After(MINUTE)).await.unwrap();
    let now = world.server.now();
    assert!(late.key.created_at <= now.after(BOUND), "{} at {now}", late.key.created_at);
    assert!(late.key.id < early.key.id, "ids follow the time");
    assert_eq!(world.says(0, &late).await, "ok");
    world.pass(MINUTE + BOUND);
    assert_eq!(world.says(0, &late).await, "expired");
}

#[tokio::test]
async fn verification_compares_the_clocks_in_the_background() {
    tokio::time::pause();
    let world = World::new();
    let issued = world.issue(0, Expiry::Never).await.unwrap();
    assert_eq!(world.says(0, &issued).await, "ok");
    let reads = world.store.clock_reads();
    for n in 1..4 {
        world.pass(SECOND * 6);
        tokio::time::sleep(SECOND * 6).await;
        assert!(world.store.clock_reads() >= reads + n);
    }
    jump(&world.server, HOUR, Ahead);
    world.pass(SECOND * 6);
    tokio::time::sleep(SECOND * 6).await;
    assert_eq!(world.says(0, &issued).await, "unavailable");
}
