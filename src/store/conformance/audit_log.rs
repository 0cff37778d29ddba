//! The audit log: one event per change, written with it; queries, pages and purges.

use std::collections::BTreeMap;

use super::{
    check::{CheckResult, TestStorage, Watch, added_events, checks, race},
    fixtures::{
        SeededRandom, TENANT, at, digest, event, insert_key, just_before, key, key_use, owner,
        owner_of, revocation, rotation,
    },
    write_case::{Write, WriteCase},
};
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind, Outcome},
    model::{EventId, Key, KeyId, OwnerScope, Timestamp},
    store::{InsertOutcome, PreviousSecret, RevokeOutcome, RotateOutcome, UpdateOutcome},
};

checks![
    every_change_writes_its_audit_event,
    refused_changes_write_no_event_and_no_feed_entry,
    every_field_of_an_event_round_trips,
    an_event_is_recorded_once,
    racing_records_of_an_event_add_it_once,
    events_match_the_query_newest_first,
    pages_list_each_event_once_while_events_are_added,
    a_purge_of_events_removes_old_ones_up_to_its_limit,
];

async fn every_change_writes_its_audit_event(storage: TestStorage) -> CheckResult {
    for (n, write) in (1..).zip(Write::ALL) {
        let case = WriteCase::new(write, n);
        case.prepare(&storage).await?;
        let before = storage.log((&case.owner).into()).await?;
        case.run(&*storage.handle()).await?;
        let log = storage.log((&case.owner).into()).await?;
        let new = added_events(&log, &before)
            .unwrap_or_else(|| panic!("{write:?} changed existing events"));
        assert_eq!(
            case.comparable(new),
            case.comparable(case.expected_events()),
            "the events of {write:?}"
        );
    }
    Ok(())
}

async fn refused_changes_write_no_event_and_no_feed_entry(storage: TestStorage) -> CheckResult {
    let (mine, dead) = (key(&owner(1), 1), key(&owner(1), 2));
    storage.add(&mine, &digest(1)).await?;
    storage.add(&dead, &digest(2)).await?;
    let by = revocation(&dead, at(1), "");
    let _revoked = storage.handle().revoke((&dead.owner).into(), dead.id, &by).await?;
    storage.handle().record_uses(&[key_use(&mine, at(1), at(2))]).await?;

    let watch = Watch::start(&storage, "acme", (1..=3).map(digest)).await?;
    let before = watch.snapshot().await?;
    let store = storage.handle();
    let (absent, stale) = (key(&owner(1), 3), Key { revision: 9, ..mine.clone() });
    let created = || event(EventKind::Created, &absent, at(5));
    let updated = |key| event(EventKind::Updated, key, at(5));
    let within = OwnerScope::Owner(&mine.owner);

    let taken = store.insert(insert_key(&absent, &digest(1), None, &created())).await?;
    assert_eq!(taken, InsertOutcome::DigestTaken);
    let limited = store.insert(insert_key(&absent, &digest(3), 1, &created())).await?;
    assert_eq!(limited, InsertOutcome::LimitReached);
    assert_eq!(store.update(&stale, &updated(&stale)).await?, UpdateOutcome::Conflict);
    assert_eq!(store.update(&absent, &updated(&absent)).await?, UpdateOutcome::NotFound);
    for (key, to, wanted) in [
        (&stale, 3, RotateOutcome::Conflict),
        (&absent, 3, RotateOutcome::NotFound),
        (&mine, 2, RotateOutcome::DigestTaken),
    ] {
        let (to, event) = (digest(to), event(EventKind::Rotated, key, at(5)));
        let rotate = rotation(key, &to, PreviousSecret::Replaced, &event);
        assert_eq!(store.rotate(rotate).await?, wanted);
    }
    let by = |key| revocation(key, at(5), "");
    assert_eq!(store.revoke(within, dead.id, &by(&dead)).await?, RevokeOutcome::AlreadyRevoked);
    assert_eq!(store.revoke(within, absent.id, &by(&absent)).await?, RevokeOutcome::NotFound);
    assert_eq!(store.revoke_all(&owner(9), &by(&mine)).await?, []);
    assert!(!store.delete(within, absent.id, &event(EventKind::Deleted, &absent, at(5))).await?);
    let purged = store.purge_keys(at(0), 10, &event(EventKind::Purged, &mine, at(5))).await?;
    assert_eq!(purged, []);
    assert_eq!(store.record_uses(&[key_use(&mine, at(1), at(2))]).await?, []);
    assert!(!store.rehash(&digest(9), &digest(3)).await?);

    assert_eq!(watch.snapshot().await?, before, "a refused change left a trace");
    Ok(())
}

async fn every_field_of_an_event_round_trips(storage: TestStorage) -> CheckResult {
    let key = key(&owner(1), 1);
    let plain = event(EventKind::Created, &key, at(0));
    let bare = AuditEvent {
        account: None,
        key_id: None,
        ip: None,
        user_agent: None,
        reason: None,
        outcome: Outcome::Failure,
        tenant: String::new(),
        actor: String::new(),
        ..event(EventKind::Denied, &key, Timestamp::MIN)
    };
    let hostile = AuditEvent {
        tenant: "a'b\"\\%_\n".into(),
        account: Some("\u{202e}東京 ".into()),
        actor: "two\r\nlines\t\u{1}".into(),
        ip: Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()),
        user_agent: Some("👩‍🚀".repeat(100)),
        reason: Some("null".into()),
        count: u32::MAX,
        ..event(EventKind::Revoked, &key, Timestamp::MAX)
    };
    let empty = AuditEvent {
        account: Some(String::new()),
        user_agent: Some(String::new()),
        reason: Some(String::new()),
        ip: Some([0, 0, 0, 0].into()),
        count: 0,
        ..event(EventKind::Updated, &key, at(0))
    };
    let kinds = EventKind::ALL.map(|kind| event(kind, &key, at(1)));
    let all: Vec<_> = [plain, bare, hostile, empty].into_iter().chain(kinds).collect();
    storage.handle().record_events(&all).await?;
    for wanted in all {
        let log = storage.log(OwnerScope::Tenant(&wanted.tenant)).await?;
        let stored = log.iter().find(|event| event.id == wanted.id);
        assert_eq!(stored, Some(&wanted), "read back");
    }
    Ok(())
}

async fn an_event_is_recorded_once(storage: TestStorage) -> CheckResult {
    let key = key(&owner(1), 1);
    let first = event(EventKind::Denied, &key, at(1));
    let other = event(EventKind::Denied, &key, at(2));
    let again = AuditEvent { at: at(9), count: 9, ..first.clone() };
    // An event that is skipped does not affect the rest of its batch.
    let with_a_new_one = vec![again.clone(), other.clone(), other.clone()];
    for (batch, added) in
        [(vec![first.clone()], 1), (with_a_new_one, 1), (vec![again], 0), (vec![], 0)]
    {
        let counted = storage.handle().record_events(&batch).await?;
        assert_eq!(counted, added, "the number of events added of {batch:?}");
    }
    assert_eq!(
        storage.log(OwnerScope::Tenant(TENANT)).await?,
        [other, first],
        "the first version of each event"
    );
    Ok(())
}

async fn racing_records_of_an_event_add_it_once(storage: TestStorage) -> CheckResult {
    let key = key(&owner(1), 1);
    for round in storage.rounds() {
        let reminder = event(EventKind::Unused, &key, at(round));
        let added = race(8, |_| {
            let (store, reminder) = (storage.handle(), reminder.clone());
            async move { store.record_events(&[reminder]).await }
        });
        let added: u32 = added.await.into_iter().sum::<Result<_, _>>()?;
        assert_eq!(added, 1, "of 8 calls with one event");
    }
    Ok(())
}

async fn events_match_the_query_newest_first(storage: TestStorage) -> CheckResult {
    let all = random_events(150);
    for batch in all.chunks(40) {
        storage.handle().record_events(batch).await?;
    }
    let (ada, namesake) = (owner(1), owner_of("other", "account-1"));
    let bystander = owner(9);
    let within = [
        OwnerScope::Owner(&ada),
        OwnerScope::Owner(&namesake),
        OwnerScope::Owner(&bystander),
        OwnerScope::Tenant(TENANT),
        OwnerScope::Tenant("other"),
        OwnerScope::Tenant(""),
    ];
    let mut random = SeededRandom(2);
    let maybe = |random: &mut SeededRandom| random.below(3) == 0;
    let instants: Vec<_> = (0..=12).flat_map(|s| [at(s), just_before(at(s))]).collect();
    for _ in 0..200 {
        let mut query = AuditQuery::new(*random.pick(&within)).limit(1_000);
        if maybe(&mut random) {
            query = query.key(key(&ada, random.below(4)).id);
        }
        if maybe(&mut random) {
            query = query.kind(*random.pick(&EventKind::ALL));
        }
        if maybe(&mut random) {
            query = query.from(*random.pick(&instants));
        }
        if maybe(&mut random) {
            query = query.until(*random.pick(&instants));
        }
        if maybe(&mut random) {
            query = query.after(random.pick(&all).id);
        }
        if maybe(&mut random) {
            query = query.limit(*random.pick(&[1, 2, 7]));
        }
        let found = storage.handle().events(&query).await?;
        assert_eq!(ids(&found), ids(&expected(&all, &query)), "found by {query:?}");
    }
    Ok(())
}

async fn pages_list_each_event_once_while_events_are_added(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let issued = key(&ada, 1);
    storage.add(&issued, &digest(1)).await?;
    let denied: Vec<_> = (0..40).map(|n| event(EventKind::Denied, &issued, at(n % 3))).collect();
    storage.handle().record_events(&denied).await?;

    for within in [OwnerScope::Owner(&ada), OwnerScope::Tenant(TENANT)] {
        let before = ids(&storage.log(within).await?);
        let mut covered: BTreeMap<EventId, u32> = BTreeMap::new();
        let mut query = AuditQuery::new(within).limit(6);
        for turn in 0.. {
            assert!(turn < 50, "the pages never end");
            let page = storage.handle().events(&query).await?;
            let Some(last) = page.last() else { break };
            query = query.after(last.id);
            for id in ids(&page) {
                *covered.entry(id).or_default() += 1;
            }
            storage.handle().record_events(&[event(EventKind::Denied, &issued, at(1))]).await?;
        }
        let missed = before.iter().find(|id| covered.get(id) != Some(&1));
        assert_eq!(missed, None, "an event is missing or listed twice");
        assert_eq!(covered.len(), before.len(), "events listed");
    }
    Ok(())
}

async fn a_purge_of_events_removes_old_ones_up_to_its_limit(storage: TestStorage) -> CheckResult {
    let mut all = random_events(100);
    storage.handle().record_events(&all).await?;
    let before = at(6);
    let old = all.iter().filter(|event| event.at < before).count() as u32;
    assert_eq!(storage.handle().purge_events(before, old - 3).await?, old - 3, "up to the limit");
    assert_eq!(storage.handle().purge_events(before, old).await?, 3, "the rest");
    assert_eq!(storage.handle().purge_events(before, old).await?, 0, "a third purge finds nothing");
    all.retain(|event| event.at >= before);
    for tenant in TENANTS {
        let query = AuditQuery::new(OwnerScope::Tenant(tenant)).limit(1_000);
        let left = storage.handle().events(&query).await?;
        assert_eq!(ids(&left), ids(&expected(&all, &query)), "left in tenant {tenant:?}");
    }
    Ok(())
}

/// Random events of several tenants, accounts, keys and kinds. Their ids are in random order of time.
fn random_events(count: u64) -> Vec<AuditEvent> {
    let mut random = SeededRandom(count);
    let accounts = [Some("account-1"), Some("account-2"), None];
    let mut events: Vec<_> = (0..count)
        .map(|_| {
            let key = key(&owner(1), random.below(4));
            let key_id: Option<KeyId> = (random.below(4) > 0).then_some(key.id);
            let event = event(*random.pick(&EventKind::ALL), &key, at(random.below(12)));
            let account = random.pick(&accounts).map(Into::into);
            let tenant = (*random.pick(&TENANTS)).into();
            AuditEvent { tenant, account, key_id, ..event }
        })
        .collect();
    random.shuffle(&mut events);
    events
}

/// The events that a query must return.
fn expected(all: &[AuditEvent], query: &AuditQuery<'_>) -> Vec<AuditEvent> {
    let mut wanted: Vec<_> = all.iter().filter(|event| query.matches(event)).collect();
    wanted.sort_by_key(|event| std::cmp::Reverse(event.id));
    wanted.into_iter().take(query.limit as usize).cloned().collect()
}

fn ids(events: &[AuditEvent]) -> Vec<EventId> {
    events.iter().map(|event| event.id).collect()
}

const TENANTS: [&str; 3] = [TENANT, "other", ""];
