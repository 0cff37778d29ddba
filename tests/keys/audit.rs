use std::{collections::BTreeSet, sync::Arc, time::Duration};

use keyward::{
    Actor, ApiKeys, AuditEvent, AuditQuery, AuditSink, MemoryStore, NewKey, OwnerScope,
    VerifyRequest,
    audit::{EventKind, Outcome},
    manage::{KeyChange, Rotation},
    system::Clock as _,
    testing::TestKeys,
};

use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use crate::{
    cache::faulty_store::{Fault, FaultyStore},
    support::{DAY, HOUR, MICRO, SECOND, Service, format, on_each_store, owner, stores},
};

#[tokio::test]
async fn every_change_is_logged_with_its_actor_and_origin_and_sent_to_the_sinks() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let issued = service.issue().await;
        let id = issued.key.id;
        let change = KeyChange::default().name("renamed").unwrap();
        keys.update(ada, id, &change, by).await.unwrap();
        keys.disable(ada, id, by).await.unwrap();
        keys.enable(ada, id, by).await.unwrap();
        let _ = keys.rotate(ada, id, Rotation::immediate(), by).await.unwrap();
        keys.revoke(ada, id, "laptop lost", by).await.unwrap();
        keys.delete(ada, id, by).await.unwrap();

        let mut stored = keys.events(AuditQuery::new(ada)).await.unwrap();
        stored.reverse();
        assert_eq!(stored, service.events.all(), "sinks receive the stored events");
        let kinds: Vec<EventKind> = stored.iter().map(|event| event.kind).collect();
        use EventKind::*;
        assert_eq!(kinds, [Created, Updated, Disabled, Enabled, Rotated, Revoked, Deleted]);
        for event in &stored {
            assert_eq!(event.at, service.now());
            assert_eq!(event.actor, "ada@example.com");
            assert_eq!(event.ip, "192.0.2.7".parse().ok());
            assert_eq!(event.user_agent.as_deref(), Some("Mozilla/5.0"));
            assert_eq!(event.outcome, Outcome::Success);
            assert_eq!((event.tenant.as_str(), event.account.as_deref()), ("acme", Some("ada")));
            assert_eq!(event.key_id, Some(id));
        }
        assert_eq!(stored[5].reason.as_deref(), Some("laptop lost"));
    })
    .await;
}

#[tokio::test]
async fn the_first_use_is_logged_once() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let issued = service.issue().await;
        for node in service.nodes.iter().chain(&service.nodes) {
            let request =
                VerifyRequest::new().ip("198.51.100.9".parse().unwrap()).user_agent("curl/8");
            node.verify(issued.secret.expose(), &request).await.unwrap();
            node.flush().await.unwrap();
            service.clock.advance(HOUR);
        }
        let query = AuditQuery::new(&service.owner).kind(EventKind::FirstUsed);
        let events = service.keys().events(query).await.unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].user_agent.as_deref(), Some("curl/8"));
        assert_eq!(events[0].ip, "198.51.100.9".parse().ok());
        let received = service.events.kinds();
        assert_eq!(received.iter().filter(|kind| **kind == EventKind::FirstUsed).count(), 1);
    })
    .await;
}

/// The writer task ends with its runtime. The runtimes' clock is paused and advances only in `sleep`, so the
/// test does not wait.
#[test]
fn malformed_keys_alone_restart_the_writer() {
    let service = Service::new(stores::memory());
    for wait in [Duration::ZERO, SECOND * 120] {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().unwrap().block_on(async {
            service.keys().verify("garbage", &VerifyRequest::new()).await.unwrap_err();
            tokio::time::sleep(wait).await;
        });
    }
    let received: Vec<u32> = service.events.all().iter().map(|event| event.count).collect();
    assert_eq!(received, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_denied_attempt_is_counted_once_while_threads_deny_and_the_writer_writes() {
    let service = Arc::new(Service::new(stores::memory()));
    let unknown = Arc::new(format().generate().unwrap());
    let mut tasks = JoinSet::new();
    for task in 0..4 {
        let (service, unknown) = (service.clone(), unknown.clone());
        tasks.spawn(async move {
            for round in 0..5_000 {
                for text in ["garbage", unknown.expose()] {
                    service.keys().verify(text, &VerifyRequest::new()).await.unwrap_err();
                }
                if round % 50 == task {
                    service.keys().flush().await.unwrap();
                }
            }
        });
    }
    tasks.join_all().await;
    service.keys().flush().await.unwrap();
    for reason in ["malformed", "unknown"] {
        let events = service.events.all().into_iter();
        let same = events.filter(|event| event.reason.as_deref() == Some(reason));
        assert_eq!(same.map(|event| event.count).sum::<u32>(), 20_000, "{reason}");
    }
}

#[tokio::test]
async fn aggregated_attempts_are_described_by_the_first_of_them() {
    let service = Service::new(stores::memory());
    for agents in [["wget", "curl"], ["curl", "wget"]] {
        for agent in agents {
            let request = VerifyRequest::new().user_agent(agent);
            service.keys().verify("garbage", &request).await.unwrap_err();
        }
        service.keys().flush().await.unwrap();
    }
    let events = service.events.all().into_iter();
    let described: Vec<_> = events.map(|event| (event.count, event.user_agent.unwrap())).collect();
    assert_eq!(described, [(2, "wget".into()), (2, "curl".into())]);
}

#[tokio::test]
async fn a_flood_of_denials_is_aggregated_into_few_rows() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let mut revoked = Vec::new();
        for _ in 0..300 {
            revoked.push(service.issue().await);
        }
        keys.revoke_all(ada, "", by).await.unwrap();
        let before = service.events.all().len();
        let request =
            VerifyRequest::new().ip("203.0.113.5".parse().unwrap()).user_agent("scanner/1");
        for n in 0..5_000 {
            let garbage = format!("garbage number {n}");
            assert!(keys.verify(&garbage, &request).await.is_err());
        }
        for _ in 0..100 {
            let guess = format().generate().unwrap();
            assert!(keys.verify(guess.expose(), &request).await.is_err());
        }
        for issued in revoked.iter().cycle().take(900) {
            assert!(keys.verify(issued.secret.expose(), &request).await.is_err());
        }
        keys.flush().await.unwrap();
        let received = &service.events.all()[before..];
        assert!(received.iter().all(|event| event.kind == EventKind::Denied));
        assert!(received.len() <= 256 + 3, "{} rows", received.len());
        let count = |reason: &str| -> u32 {
            let same = received.iter().filter(|event| event.reason.as_deref() == Some(reason));
            same.map(|event| event.count).sum()
        };
        assert_eq!((count("malformed"), count("unknown"), count("revoked")), (5_000, 100, 900));
        assert!(received.iter().all(|event| event.ip == "203.0.113.5".parse().ok()));
        assert!(received.iter().all(|event| event.outcome == Outcome::Failure));

        let query = AuditQuery::new(ada).kind(EventKind::Denied).limit(1_000);
        let of_keys = keys.events(query).await.unwrap();
        assert_eq!(of_keys.len(), 256, "events of the owner's keys");
        let without_owner = AuditQuery::new(OwnerScope::Tenant("")).kind(EventKind::Denied);
        assert_eq!(keys.events(without_owner).await.unwrap().len(), 3, "events without an owner");
    })
    .await;
}

#[tokio::test]
async fn the_log_is_queried_by_owner_key_kind_and_time_in_pages() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let bob = owner("acme", "bob");
        let mut ids = Vec::new();
        for _ in 0..10 {
            ids.push(service.issue().await.key.id);
            let _ = keys.issue(NewKey::new(&bob, "b").unwrap(), by).await.unwrap();
            service.clock.advance(DAY);
        }
        keys.revoke(ada, ids[3], "", by).await.unwrap();
        let count = async |query| keys.events(query).await.unwrap().len();
        assert_eq!(count(AuditQuery::new(ada)).await, 11);
        assert_eq!(count(AuditQuery::new(OwnerScope::Tenant("acme"))).await, 21);
        assert_eq!(count(AuditQuery::new(ada).key(ids[3])).await, 2);
        assert_eq!(count(AuditQuery::new(&bob).key(ids[3])).await, 0);
        assert_eq!(count(AuditQuery::new(ada).kind(EventKind::Revoked)).await, 1);
        let start = service.now().before(DAY * 10);
        let days = |n| start.after(DAY * n);
        assert_eq!(count(AuditQuery::new(ada).from(days(2)).until(days(5))).await, 3);

        let mut query = AuditQuery::new(OwnerScope::Tenant("acme")).limit(4);
        let mut seen: Vec<AuditEvent> = Vec::new();
        loop {
            let page = keys.events(query).await.unwrap();
            let Some(last) = page.last() else { break };
            query = query.after(last.id);
            seen.extend(page);
            let _ = service.issue().await;
        }
        assert_eq!(seen.len(), 21);
        assert!(seen.is_sorted_by(|a, b| a.id > b.id), "newest first, each event once");
    })
    .await;
}

#[tokio::test]
async fn hostile_text_is_stored_unchanged_and_displayed_as_one_escaped_line() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let hostile =
            "x\n2026-01-01 key.created success\r\u{1b}[2J\u{202e}gpj.exe\u{2066}\u{feff}'\";--";
        let by = keyward::model::Actor::account(hostile).user_agent(hostile);
        let evil = owner(hostile, hostile);
        let new = NewKey::new(&evil, hostile).unwrap();
        let issued = service.keys().issue(new, &by).await.unwrap();
        service.keys().revoke(&evil, issued.key.id, hostile, &by).await.unwrap();
        let key = service.keys().get(&evil, issued.key.id).await.unwrap();
        assert_eq!(key.name.as_str(), hostile);
        let events = service.keys().events(AuditQuery::new(&evil)).await.unwrap();
        assert_eq!(events.len(), 2);
        for event in events {
            assert_eq!(event.actor, hostile);
            let line = event.to_string();
            let harmless = |c: char| !c.is_control() && !"\u{202e}\u{2066}\u{feff}".contains(c);
            assert!(line.chars().all(harmless), "{line}");
            assert!(line.contains(r"\\u{a}2026") || line.contains(r"\u{a}2026"), "{line}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_host_event_is_in_the_same_log_on_every_node_and_sent_to_the_sinks() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let issued = service.issue().await;
        let verified = service.verify(&issued).await.unwrap();
        let key = keyward::model::Actor::key(&verified).ip("198.51.100.9".parse().unwrap());
        keys.record_event(ada, "session.begun", Outcome::Failure, by).await.unwrap();
        keys.record_event(ada, "extension.deployed", Outcome::Success, &key).await.unwrap();

        let query = AuditQuery::new(ada).kind(EventKind::HostEvent);
        let is_host_event = |event: &AuditEvent| event.kind == EventKind::HostEvent;
        let mut events = service.nodes.last().unwrap().events(query).await.unwrap();
        events.reverse();
        let received: Vec<_> = service.events.all().into_iter().filter(is_host_event).collect();
        assert_eq!(events, received, "sinks receive the stored events");
        let [by_ada, by_key] = events.try_into().unwrap();
        let fields = |event: &AuditEvent| (event.outcome, event.reason.clone(), event.key_id);
        assert_eq!(fields(&by_ada), (Outcome::Failure, Some("session.begun".into()), None));
        assert_eq!((by_ada.at, by_ada.actor.as_str()), (service.now(), "ada@example.com"));
        assert_eq!(by_ada.user_agent.as_deref(), Some("Mozilla/5.0"));
        let deployed = Some("extension.deployed".into());
        assert_eq!(fields(&by_key), (Outcome::Success, deployed, Some(issued.key.id)));
        assert_eq!(by_key.ip, "198.51.100.9".parse().ok());
        assert_eq!((by_key.tenant.as_str(), by_key.account.as_deref()), ("acme", Some("ada")));
    })
    .await;
}

#[tokio::test]
async fn a_host_event_with_hostile_text_is_truncated_and_displayed_as_one_line() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let hostile = format!("x\0\n2026-01-01 key.created\u{202e}{}", "ä".repeat(100_000));
        keys.record_event(ada, &hostile, Outcome::Success, by).await.unwrap();
        keys.record_event(ada, "", Outcome::Success, by).await.unwrap();
        let events = keys.events(AuditQuery::new(ada)).await.unwrap();
        assert_eq!(events[0].reason, None);
        let kept = events[1].reason.as_deref().unwrap();
        assert_eq!(kept.chars().count(), 1_000);
        assert!(kept.starts_with("x\u{fffd}\n2026"), "{kept}");
        let line = events[1].to_string();
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line}");
    })
    .await;
}

#[tokio::test]
async fn a_host_event_that_cannot_be_written_is_unavailable_and_not_sent_to_the_sinks() {
    let store = FaultyStore::new(stores::memory().remove(0));
    let service = Service::new(vec![Arc::new(store.clone())]);
    store.set_use_fault(Fault::Unavailable);
    let result =
        service.keys().record_event(&service.owner, "x", Outcome::Success, &service.actor).await;
    assert!(result.unwrap_err().is_unavailable());
    assert!(service.events.all().is_empty());
}

struct Panicking;

impl AuditSink for Panicking {
    fn event(&self, _: &AuditEvent) {
        panic!("a bug in the host's sink");
    }
}

#[tokio::test]
async fn a_panicking_sink_affects_neither_the_change_nor_other_sinks() {
    let service = Service::with(stores::memory(), |builder| builder.audit(Panicking));
    let after = keyward::testing::Events::default();
    let keys = ApiKeys::builder(MemoryStore::new(), format())
        .audit(Panicking)
        .audit(after.clone())
        .build();
    assert!(keys.issue(service.new_key(), &service.actor).await.is_ok());
    assert_eq!(after.kinds(), [EventKind::Created]);
}

#[tokio::test]
async fn the_tracing_sink_writes_one_line_per_event() {
    let service = Service::with(stores::memory(), |b| b.audit(keyward::audit::TracingSink));
    let lines = capture(async {
        let new = NewKey::new(&owner("acme", "a\nb"), "x").unwrap();
        let _ = service.keys().issue(new, &service.actor).await.unwrap();
        service.clock.advance(SECOND);
    })
    .await;
    let lines: Vec<&str> = lines.lines().filter(|line| line.contains("keyward::audit")).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for part in ["INFO", "key.created", "success", "ada@example.com", r"a\\u{a}b", "192.0.2.7"] {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
}

/// Returns the log of a future as text. The sinks run in a task of this thread's runtime.
async fn capture(work: impl Future<Output = ()>) -> String {
    use std::sync::Mutex;
    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    work.await;
    String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
}

#[tokio::test]
async fn ids_increase_and_times_stay_while_the_clock_stands_still_or_goes_back() {
    let test = TestKeys::new();
    let (noon, by) = (test.clock.now().after(HOUR), Actor::system("test"));
    for n in 0..20_000 {
        test.clock.set(noon.before(MICRO * (n % 3)));
        test.keys.record_event(&test.owner, "noted", Outcome::Success, &by).await.unwrap();
    }
    assert_eq!(test.keys.health().clock_set_back, MICRO * (19_999 % 3));
    let events = test.events.all();
    assert_eq!(events.len(), 20_000);
    assert!(events.is_sorted_by(|earlier, later| earlier.id < later.id));
    for event in events {
        assert_eq!(event.at, noon, "a time that has passed stays passed");
        assert_eq!(event.id.as_bytes()[6] >> 4, 7, "the version of the UUID");
    }
}

#[tokio::test]
async fn events_of_one_change_get_distinct_ids() {
    let test = TestKeys::new();
    let issued = test.issue(["a"]).await;
    let first = &test.events.all()[0];
    let group: BTreeSet<_> = (0..1_000).map(|n| first.for_key(n, &issued.key).id).collect();
    assert_eq!(group.len(), 1_000);
    assert_eq!(first.for_key(0, &issued.key).id, first.id);
}

/// A sink with a queue of its own.
struct Queue(mpsc::UnboundedSender<AuditEvent>);

impl AuditSink for Queue {
    fn event(&self, event: &AuditEvent) {
        let _ = self.0.send(event.clone());
    }
}

#[tokio::test]
async fn a_sink_reaches_the_keys_and_is_dropped_with_them() {
    let (sender, mut queue) = mpsc::unbounded_channel();
    let mut weak = None;
    let keys = ApiKeys::builder(MemoryStore::new(), format()).audit_with(|keys| {
        assert!(keys.upgrade().is_none(), "they are not built yet");
        weak = Some(keys);
        Queue(sender)
    });
    let (keys, weak) = (keys.build(), weak.unwrap());
    let new = NewKey::new(&owner("acme", "ada"), "ci").unwrap();
    let issued = keys.issue(new, &Actor::system("test")).await.unwrap();
    let event = queue.recv().await.unwrap();
    let reached = weak.upgrade().expect("they are built");
    let tenant = OwnerScope::Tenant(&event.tenant);
    let key = reached.get(tenant, event.key_id.unwrap()).await.unwrap();
    assert_eq!(key.name.as_str(), "ci");
    drop(reached);

    // Starts the background tasks, which must not keep the sink.
    keys.verify(issued.secret.expose(), &VerifyRequest::new()).await.unwrap();
    keys.shutdown().await.unwrap();
    drop(keys);
    let rest = async { while queue.recv().await.is_some() {} };
    timeout(60 * SECOND, rest).await.expect("the sink is dropped");
    assert!(weak.upgrade().is_none());
}
