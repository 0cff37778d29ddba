//! Each reminder is sent once, by any node.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use keyward::{
    ApiKeys, AuditEvent, AuditQuery, AuditSink, Expiry, KeyStore, MemoryStore, NewKey, Owner,
    OwnerScope, VerifyRequest,
    api::ApiKeysBuilder,
    audit::EventKind,
    manage::{Page, Reminders, Rotation},
    testing::{Events, ManualClock},
};

use super::races::poll_and_drop;
use crate::cache::faulty_store::{Fault, FaultyStore};
use crate::support::{DAY, HOUR, MICRO, Service, format, on_each_store, owner, stores};

#[tokio::test]
async fn a_reminder_found_by_two_nodes_concurrently_is_sent_once() {
    on_each_store(async |handles| {
        let service = Service::with(handles, ApiKeysBuilder::no_automatic_purge);
        for expiry in [Expiry::days(92), Expiry::Never] {
            let new = service.new_key().expiry(expiry);
            drop(service.keys().issue(new, &service.actor).await.unwrap());
        }
        let all = Reminders::default();
        service.clock.advance(DAY * 85 - MICRO);
        assert_eq!(remind_on_both(&service, &all).await, 0);
        service.clock.advance(MICRO);
        assert_eq!(remind_on_both(&service, &all).await, 1, "one key expires soon");
        service.clock.advance(DAY * 5);
        assert_eq!(
            remind_on_both(&service, &all).await,
            4,
            "both secrets are old and both keys are unused"
        );
        service.clock.advance(HOUR);
        assert_eq!(remind_on_both(&service, &all).await, 0);

        let kinds = [EventKind::Expiring, EventKind::RotationDue, EventKind::Unused];
        for (kind, times) in kinds.into_iter().zip([1, 2, 2]) {
            let query = AuditQuery::new(&service.owner).kind(kind);
            assert_eq!(service.keys().events(query).await.unwrap().len(), times, "{kind}");
            let received =
                service.events.kinds().into_iter().filter(|received| *received == kind).count();
            assert_eq!(received, times, "{kind}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_rotation_and_a_use_restart_the_reminder_period() {
    on_each_store(async |handles| {
        let service = Service::with(handles, ApiKeysBuilder::no_automatic_purge);
        let issued = service.issue().await;
        let both = Reminders::none().rotation_after(DAY * 90).unused_for(DAY * 90);
        service.clock.advance(DAY * 50);
        let (keys, id) = (service.keys(), issued.key.id);
        let new =
            keys.rotate(&service.owner, id, Rotation::immediate(), &service.actor).await.unwrap();
        service.clock.advance(DAY);
        service.verify_for(&new, &VerifyRequest::new()).await.unwrap();
        service.nodes.last().unwrap().flush().await.unwrap();

        let due = async || due(&service, &both).await;
        service.clock.advance(DAY * 89 - MICRO);
        assert_eq!(due().await, [], "the key is 140 days old, its secret is not 90");
        service.clock.advance(MICRO);
        assert_eq!(due().await, [EventKind::RotationDue]);
        service.clock.advance(DAY);
        assert_eq!(due().await, [EventKind::RotationDue, EventKind::Unused]);
        assert_eq!(remind_on_both(&service, &both).await, 2);
        drop(keys.rotate(&service.owner, id, Rotation::immediate(), &service.actor).await.unwrap());
        service.clock.advance(DAY * 89);
        assert_eq!(remind_on_both(&service, &both).await, 0);
        service.clock.advance(DAY);
        assert_eq!(remind_on_both(&service, &both).await, 1, "due a second time");
    })
    .await;
}

#[tokio::test]
async fn inactive_keys_cause_no_reminders() {
    on_each_store(async |handles| {
        let service = Service::with(handles, ApiKeysBuilder::no_automatic_purge);
        let (keys, owner, by) = (service.keys(), &service.owner, &service.actor);
        let (revoked, disabled) = (service.issue().await, service.issue().await);
        drop(keys.issue(service.new_key().expiry(Expiry::days(80)), by).await.unwrap());
        keys.revoke(owner, revoked.key.id, "", by).await.unwrap();
        keys.disable(owner, disabled.key.id, by).await.unwrap();
        service.clock.advance(DAY * 100);
        assert_eq!(remind_on_both(&service, &Reminders::default()).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_reminder_that_could_not_be_written_is_sent_by_the_next_call() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    let service = Service::with(vec![Arc::new(store.clone())], ApiKeysBuilder::no_automatic_purge);
    drop(service.issue().await);
    let old = Reminders::none().rotation_after(DAY);
    service.clock.advance(DAY);
    store.set_use_fault(Fault::Unavailable);
    let error = service.keys().remind(&service.owner, &old).await.unwrap_err();
    assert_eq!(error.kind(), keyward::error::ErrorKind::Unavailable);
    store.set_use_fault(Fault::None);
    assert_eq!(remind_on_both(&service, &old).await, 1);
    assert_eq!(remind_on_both(&service, &old).await, 0);
}

#[tokio::test]
async fn each_logged_reminder_reaches_the_sinks_if_its_future_is_dropped() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    let service = Service::with(vec![Arc::new(store)], ApiKeysBuilder::no_automatic_purge);
    let old = Reminders::none().rotation_after(DAY);
    for _ in 0..30 {
        drop(service.issue().await);
    }
    service.clock.advance(DAY);
    for polls in 0..20 {
        poll_and_drop(service.keys().remind(&service.owner, &old), polls).await;
        service.clock.advance(HOUR);
    }
    assert!(
        service.keys().remind(&service.owner, &old).await.unwrap() < 30,
        "some were sent before"
    );
    let query = AuditQuery::new(&service.owner).kind(EventKind::RotationDue).limit(100);
    let logged = service.keys().events(query).await.unwrap();
    let mut received = service.events.all();
    received.retain(|event| event.kind == EventKind::RotationDue);
    let ids = |events: &[AuditEvent]| events.iter().map(|event| event.id).collect::<BTreeSet<_>>();
    assert_eq!((logged.len(), received.len()), (30, 30));
    assert_eq!(ids(&received), ids(&logged));
}

#[tokio::test(start_paused = true)]
async fn one_node_of_the_cluster_sends_reminders_hourly_for_all_tenants() {
    let store = Arc::new(MemoryStore::new());
    let hourly = HourlyNodes::on([store.clone(), store]);
    let [one, two] = &hourly.nodes;
    // More tenants than one page, and one with an empty name.
    let mut all = vec![Owner::account_only("ada").unwrap()];
    all.extend((0..250).map(|n| owner(&format!("tenant {n}"), "ada")));
    for owner in &all {
        hourly.expires_in_eight_days(owner).await;
    }
    run_jobs(one).await;
    run_jobs(two).await;
    assert_eq!(hourly.reminded(), [""; 0]);
    hourly.clock.advance(DAY);
    run_jobs(one).await;
    run_jobs(two).await;
    let mut tenants: Vec<_> = all.iter().map(Owner::tenant).collect();
    tenants.sort();
    assert_eq!(hourly.reminded(), tenants);
    for _ in 0..3 {
        hourly.clock.advance(HOUR);
        run_jobs(two).await;
        run_jobs(one).await;
    }
    assert_eq!(hourly.reminded(), tenants);
    // A new tenant needs no registration.
    let new = owner("a new one", "ada");
    hourly.expires_in_eight_days(&new).await;
    hourly.clock.advance(DAY);
    run_jobs(one).await;
    assert_eq!(hourly.reminded().len(), tenants.len() + 1);
}

#[tokio::test(start_paused = true)]
async fn many_due_reminders_are_spread_over_hours() {
    let store = Arc::new(MemoryStore::new());
    let hourly = HourlyNodes::on([store.clone(), store]);
    for tenant in ["a", "b", "c"] {
        for n in 0..400 {
            hourly.expires_in_eight_days(&owner(tenant, &format!("account {n}"))).await;
        }
    }
    hourly.clock.advance(DAY);
    for (hour, sent) in [500, 1_000, 1_200, 1_200].into_iter().enumerate() {
        run_jobs(&hourly.nodes[hour % 2]).await;
        assert_eq!(hourly.reminded().len(), sent, "hour {hour}");
        hourly.clock.advance(HOUR);
    }
}

#[tokio::test]
async fn a_key_with_a_lifetime_within_the_notice_is_reminded_at_half_its_lifetime() {
    let service = Service::new(stores::memory());
    let new = service.new_key().expiry(Expiry::days(7));
    let _ = service.keys().issue(new, &service.actor).await.unwrap();
    let reminders = Reminders::none().expiring_within(7 * DAY);
    assert_eq!(due(&service, &reminders).await, []);
    service.clock.advance(7 * DAY / 2 - MICRO);
    assert_eq!(due(&service, &reminders).await, []);
    service.clock.advance(MICRO);
    assert_eq!(due(&service, &reminders).await, [EventKind::Expiring]);
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_tenant_does_not_block_reminders_of_other_tenants() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    let hourly = HourlyNodes::on([Arc::new(store.clone()), Arc::new(store.clone())]);
    for tenant in ["a", "b", "c"] {
        hourly.expires_in_eight_days(&owner(tenant, "ada")).await;
    }
    store.corrupt_keys_of("b");
    hourly.clock.advance(DAY);
    run_jobs(&hourly.nodes[0]).await;
    assert_eq!(hourly.reminded(), ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn another_node_sends_the_reminders_that_remain_after_a_shutdown() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    let (clock, events) = (ManualClock::default(), Events::default());
    let sink_of_first = ShutdownSink::default();
    let node = |sink: ShutdownSink| {
        let builder = ApiKeys::builder_on(Arc::new(store.clone()), format()).clock(clock.clone());
        let builder = builder.audit(events.clone()).audit(sink).no_automatic_purge();
        builder.reminders(Reminders::default()).build()
    };
    let nodes = [node(sink_of_first.clone()), node(ShutdownSink::default())];
    let hourly = HourlyNodes { nodes, clock, events };
    for n in 0..20 {
        hourly.expires_in_eight_days(&owner("one", &format!("account {n}"))).await;
    }
    hourly.clock.advance(DAY);
    assert!(sink_of_first.0.set(hourly.nodes[0].clone()).is_ok());
    run_jobs(&hourly.nodes[0]).await;
    let sent = hourly.reminded().len();
    assert!((1..10).contains(&sent), "{sent}");
    hourly.clock.advance(HOUR);
    run_jobs(&hourly.nodes[1]).await;
    assert_eq!(hourly.reminded().len(), 20);
}

/// Shuts down a node when the node reports an event.
#[derive(Clone, Default)]
struct ShutdownSink(Arc<OnceLock<ApiKeys>>);

impl AuditSink for ShutdownSink {
    fn event(&self, _: &AuditEvent) {
        if let Some(keys) = self.0.get().cloned() {
            tokio::spawn(async move { keys.shutdown().await });
        }
    }
}

/// Two nodes whose only hourly job is the reminders.
struct HourlyNodes {
    nodes: [ApiKeys; 2],
    clock: ManualClock,
    events: Events,
}

impl HourlyNodes {
    fn on(stores: [Arc<dyn KeyStore>; 2]) -> Self {
        let (clock, events) = (ManualClock::default(), Events::default());
        let nodes = stores.map(|store| {
            let builder = ApiKeys::builder_on(store, format()).clock(clock.clone());
            let builder = builder.audit(events.clone()).no_automatic_purge();
            builder.reminders(Reminders::default()).build()
        });
        Self { nodes, clock, events }
    }

    async fn expires_in_eight_days(&self, owner: &Owner) {
        let new = NewKey::new(owner, "ci").unwrap().expiry(Expiry::days(8));
        drop(self.nodes[0].issue(new, &keyward::model::Actor::system("test")).await.unwrap());
    }

    /// Returns the tenants of the reminders that were sent, sorted.
    fn reminded(&self) -> Vec<String> {
        let mut events = self.events.all();
        events.retain(|event| event.kind == EventKind::Expiring);
        let mut tenants: Vec<_> = events.into_iter().map(|event| event.tenant).collect();
        tenants.sort();
        tenants
    }
}

async fn remind_on_both(service: &Service, reminders: &Reminders) -> u64 {
    let within = OwnerScope::Tenant(service.owner.tenant());
    let (one, two) = (service.keys(), service.nodes.last().unwrap());
    let (one, two) = tokio::join!(one.remind(within, reminders), two.remind(within, reminders));
    one.unwrap() + two.unwrap()
}

async fn due(service: &Service, reminders: &Reminders) -> Vec<EventKind> {
    let page =
        service.keys().due_reminders(&service.owner, reminders, Page::first()).await.unwrap();
    page.reminders.iter().map(|reminder| reminder.kind).collect()
}

/// Runs the background jobs of a node for one virtual minute.
async fn run_jobs(keys: &ApiKeys) {
    let _denied = keys.verify("lc_live_nothing", &VerifyRequest::new()).await;
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
}
