//! The log itself: what is recorded comes out again, filtered and in pages.

use std::collections::BTreeMap;

use super::{
    sample::{Dice, TENANT, at, digest, event, just_before, key, owner, owner_of},
    storage::{Checked, Storage},
    suite::checks,
};
use crate::{
    audit::{AuditEvent, AuditQuery, EventKind, Outcome},
    model::{EventId, KeyId, OwnerScope, Timestamp},
};

checks![
    every_field_of_an_event_round_trips,
    an_event_is_recorded_once,
    events_match_the_query_newest_first,
    pages_list_each_event_once_while_events_are_added,
    a_purge_of_events_removes_old_ones_up_to_its_limit,
];

async fn every_field_of_an_event_round_trips(storage: Storage) -> Checked {
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
    storage.any().record_events(&all).await?;
    for wanted in all {
        let log = storage.log(OwnerScope::Tenant(&wanted.tenant)).await?;
        let stored = log.iter().find(|event| event.id == wanted.id);
        assert_eq!(stored, Some(&wanted), "read back");
    }
    Ok(())
}

async fn an_event_is_recorded_once(storage: Storage) -> Checked {
    let key = key(&owner(1), 1);
    let first = event(EventKind::Denied, &key, at(1));
    let other = event(EventKind::Denied, &key, at(2));
    let again = AuditEvent { at: at(9), count: 9, ..first.clone() };
    storage.any().record_events(std::slice::from_ref(&first)).await?;
    // What was recorded in vain does not take the rest of its batch with it.
    storage.any().record_events(&[again.clone(), other.clone(), other.clone()]).await?;
    storage.any().record_events(&[again]).await?;
    storage.any().record_events(&[]).await?;
    assert_eq!(storage.log(OwnerScope::Tenant(TENANT)).await?, [other, first], "as recorded first");
    Ok(())
}

async fn events_match_the_query_newest_first(storage: Storage) -> Checked {
    let population = population(150);
    for batch in population.chunks(40) {
        storage.any().record_events(batch).await?;
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
    let mut dice = Dice(2);
    let maybe = |dice: &mut Dice| dice.roll(3) == 0;
    let instants: Vec<_> = (0..=12).flat_map(|s| [at(s), just_before(at(s))]).collect();
    for _ in 0..200 {
        let mut query = AuditQuery::new(*dice.pick(&within)).limit(1_000);
        if maybe(&mut dice) {
            query = query.key(key(&ada, dice.roll(4)).id);
        }
        if maybe(&mut dice) {
            query = query.kind(*dice.pick(&EventKind::ALL));
        }
        if maybe(&mut dice) {
            query = query.from(*dice.pick(&instants));
        }
        if maybe(&mut dice) {
            query = query.until(*dice.pick(&instants));
        }
        if maybe(&mut dice) {
            query = query.after(dice.pick(&population).id);
        }
        if maybe(&mut dice) {
            query = query.limit(*dice.pick(&[1, 2, 7]));
        }
        let found = storage.any().events(&query).await?;
        assert_eq!(ids(&found), ids(&oracle(&population, &query)), "found by {query:?}");
    }
    Ok(())
}

async fn pages_list_each_event_once_while_events_are_added(storage: Storage) -> Checked {
    let ada = owner(1);
    let issued = key(&ada, 1);
    storage.add(&issued, &digest(1)).await?;
    let denied: Vec<_> = (0..40).map(|n| event(EventKind::Denied, &issued, at(n % 3))).collect();
    storage.any().record_events(&denied).await?;

    for within in [OwnerScope::Owner(&ada), OwnerScope::Tenant(TENANT)] {
        let before = ids(&storage.log(within).await?);
        let mut covered: BTreeMap<EventId, u32> = BTreeMap::new();
        let mut query = AuditQuery::new(within).limit(6);
        for turn in 0.. {
            assert!(turn < 50, "the pages do not come to an end");
            let page = storage.any().events(&query).await?;
            let Some(last) = page.last() else { break };
            query = query.after(last.id);
            for id in ids(&page) {
                *covered.entry(id).or_default() += 1;
            }
            storage.any().record_events(&[event(EventKind::Denied, &issued, at(1))]).await?;
        }
        let missed = before.iter().find(|id| covered.get(id) != Some(&1));
        assert_eq!(missed, None, "it is to be on exactly one page");
        assert_eq!(covered.len(), before.len(), "events on the pages");
    }
    Ok(())
}

async fn a_purge_of_events_removes_old_ones_up_to_its_limit(storage: Storage) -> Checked {
    let mut population = population(100);
    storage.any().record_events(&population).await?;
    let before = at(6);
    let old = population.iter().filter(|event| event.at < before).count() as u32;
    assert_eq!(storage.any().purge_events(before, old - 3).await?, old - 3, "up to the limit");
    assert_eq!(storage.any().purge_events(before, old).await?, 3, "the rest");
    assert_eq!(storage.any().purge_events(before, old).await?, 0, "nothing is left");
    population.retain(|event| event.at >= before);
    for tenant in TENANTS {
        let query = AuditQuery::new(OwnerScope::Tenant(tenant)).limit(1_000);
        let left = storage.any().events(&query).await?;
        assert_eq!(ids(&left), ids(&oracle(&population, &query)), "left in tenant {tenant:?}");
    }
    Ok(())
}

/// Events of several tenants, accounts, keys and kinds, whose ids tell nothing of their instants.
fn population(count: u64) -> Vec<AuditEvent> {
    let mut dice = Dice(count);
    let accounts = [Some("account-1"), Some("account-2"), None];
    let mut population: Vec<_> = (0..count)
        .map(|_| {
            let key = key(&owner(1), dice.roll(4));
            let key_id: Option<KeyId> = (dice.roll(4) > 0).then_some(key.id);
            let event = event(*dice.pick(&EventKind::ALL), &key, at(dice.roll(12)));
            let account = dice.pick(&accounts).map(Into::into);
            let tenant = (*dice.pick(&TENANTS)).into();
            AuditEvent { tenant, account, key_id, ..event }
        })
        .collect();
    dice.shuffle(&mut population);
    population
}

/// What a query has to find.
fn oracle(population: &[AuditEvent], query: &AuditQuery<'_>) -> Vec<AuditEvent> {
    let mut wanted: Vec<_> = population.iter().filter(|event| query.matches(event)).collect();
    wanted.sort_by_key(|event| std::cmp::Reverse(event.id));
    wanted.into_iter().take(query.limit as usize).cloned().collect()
}

fn ids(events: &[AuditEvent]) -> Vec<EventId> {
    events.iter().map(|event| event.id).collect()
}

const TENANTS: [&str; 3] = [TENANT, "other", ""];
