//! Texts and lists at their maximum ([`bounds`](crate::model::bounds)) come back unchanged.

use std::net::Ipv6Addr;

use super::{
    check::{CheckResult, TestStorage, checks},
    counters::one_use,
    fixtures::{at, digest, event, insert_key, key, key_use, name, owner_of, revocation, revoked},
};
use crate::{
    audit::{AuditEvent, EventKind},
    model::{
        Access, Key, Metadata, Networks, Owner, OwnerScope, RetiringSecret,
        bounds::{
            MAX_ACTOR_CHARS, MAX_METADATA_KEY_CHARS, MAX_METADATA_PAIRS, MAX_METADATA_VALUE_CHARS,
            MAX_NAME_CHARS, MAX_NETWORKS, MAX_OWNER_CHARS, MAX_REASON_CHARS, MAX_SCOPE_CHARS,
            MAX_SCOPES, MAX_USER_AGENT_CHARS,
        },
    },
    store::{
        ChargeOutcome, CounterCharge, CounterKey, InsertOutcome, PreviousSecret, RevokeOutcome,
        RotateOutcome, RotateSecret, UpdateOutcome,
    },
};

checks![
    a_key_at_every_maximum_round_trips,
    an_update_to_every_maximum_round_trips,
    events_at_every_maximum_round_trip;
    Counters:
    counters_of_the_longest_owners_are_independent,
];

async fn a_key_at_every_maximum_round_trips(storage: TestStorage) -> CheckResult {
    let issued = Key { issue_token: Some([0xff; 32]), ..largest(&key(&longest_owner('a'), 1)) };
    let created = largest_event(&event(EventKind::Created, &issued, at(0)));
    let inserted = storage.handle().insert(insert_key(&issued, &digest(1), 1, &created)).await?;
    assert_eq!(inserted, InsertOutcome::Inserted);
    assert_stored(&storage, &issued, &[&created]).await?;

    let rotated = largest_event(&event(EventKind::Rotated, &issued, at(1)));
    let (hint, token) = (text(HINT_CHARS), Some([0xff; 32]));
    let previous = PreviousSecret::EndsAt(at(90));
    let new = digest(2);
    let rotate =
        RotateSecret { key: &issued, digest: &new, hint: &hint, previous, token, event: &rotated };
    assert_eq!(storage.handle().rotate(rotate).await?, RotateOutcome::Rotated);
    let by = AuditEvent {
        reason: Some(text(MAX_REASON_CHARS)),
        ..largest_event(&revocation(&issued, at(2), ""))
    };
    let within = OwnerScope::Owner(&issued.owner);
    assert_eq!(storage.handle().revoke(within, issued.id, &by).await?, RevokeOutcome::Revoked);
    let wanted = Key {
        retiring: Some(RetiringSecret { hint: issued.hint.clone(), ends_at: at(90) }),
        hint,
        rotated_at: Some(at(1)),
        rotation_token: token,
        revision: 1,
        ..issued.clone()
    };
    assert_stored(&storage, &revoked(wanted, &by), &[&by, &rotated, &created]).await
}

async fn an_update_to_every_maximum_round_trips(storage: TestStorage) -> CheckResult {
    let issued = key(&longest_owner('b'), 1);
    storage.add(&issued, &digest(1)).await?;
    let created = storage.log((&issued.owner).into()).await?;
    // A hint is not updated.
    let wanted = Key { hint: issued.hint.clone(), ..largest(&issued) };
    let updated = largest_event(&event(EventKind::Updated, &issued, at(1)));
    assert_eq!(storage.handle().update(&wanted, &updated).await?, UpdateOutcome::Updated);
    let wanted = Key { revision: 1, ..wanted };
    assert_stored(&storage, &wanted, &[&updated, &created[0]]).await
}

async fn events_at_every_maximum_round_trip(storage: TestStorage) -> CheckResult {
    let issued = key(&longest_owner('c'), 1);
    storage.add(&issued, &digest(1)).await?;
    let created = storage.log((&issued.owner).into()).await?;
    let mut uses = key_use(&issued, at(1), at(2));
    uses.user_agent = Some(text(MAX_USER_AGENT_CHARS));
    storage.handle().record_uses(std::slice::from_ref(&uses)).await?;
    let denied =
        AuditEvent { count: u32::MAX, ..largest_event(&event(EventKind::Denied, &issued, at(3))) };
    storage.handle().record_events(std::slice::from_ref(&denied)).await?;
    let log = storage.log((&issued.owner).into()).await?;
    assert_eq!(log, [denied, uses.first_use(), created[0].clone()], "the events, newest first");
    Ok(())
}

async fn counters_of_the_longest_owners_are_independent(storage: TestStorage) -> CheckResult {
    let owners = ['d', 'e'].map(longest_owner);
    for uses in 1..=2 {
        for owner in &owners {
            let charge = CounterCharge { limit: 2, ..one_use(CounterKey::Owner(owner)) };
            let charged = storage.handle().quotas().charge(&[charge]).await?;
            assert_eq!(charged, ChargeOutcome::Granted(vec![uses]), "use {uses} of an owner");
        }
    }
    Ok(())
}

/// Asserts that a key is read back unchanged in every way, and that its owner has these events.
async fn assert_stored(storage: &TestStorage, key: &Key, log: &[&AuditEvent]) -> CheckResult {
    assert_eq!(storage.key(key).await?, *key, "read by its id");
    let found = storage.handle().find(&[digest(1)]).await?.expect("the digest finds the key");
    assert_eq!(*found.key, *key, "found by its digest");
    for within in [OwnerScope::Owner(&key.owner), OwnerScope::Tenant(key.owner.tenant())] {
        let listed = storage.keys(within).await?;
        assert_eq!(listed.iter().map(|key| &**key).collect::<Vec<_>>(), [key], "listed");
        let events = storage.log(within).await?;
        assert_eq!(events.iter().collect::<Vec<_>>(), log, "the events, newest first");
    }
    Ok(())
}

/// The key with every text and list at its maximum.
fn largest(key: &Key) -> Key {
    let scope = |n: usize| format!("{n:03}{}", "s".repeat(MAX_SCOPE_CHARS - 3));
    let network = |n: usize| Ipv6Addr::from(u128::MAX - n as u128).to_string();
    let pair = |n: usize| {
        let key = format!("{n:02}{}", text(MAX_METADATA_KEY_CHARS - 2));
        (key, text(MAX_METADATA_VALUE_CHARS))
    };
    let networks: Vec<String> = (0..MAX_NETWORKS).map(network).collect();
    Key {
        name: name(&text(MAX_NAME_CHARS)),
        hint: text(HINT_CHARS),
        access: Access::only((0..MAX_SCOPES).map(scope)).expect("within the bounds"),
        networks: Networks::only(&networks).expect("within the bounds"),
        metadata: Metadata::new((0..MAX_METADATA_PAIRS).map(pair)).expect("within the bounds"),
        ..key.clone()
    }
}

/// The event with the longest actor and user agent, and an address in its longest form.
fn largest_event(event: &AuditEvent) -> AuditEvent {
    AuditEvent {
        actor: text(MAX_ACTOR_CHARS),
        user_agent: Some(text(MAX_USER_AGENT_CHARS)),
        reason: Some(text(MAX_REASON_CHARS)),
        ip: Some(Ipv6Addr::from(u128::MAX).into()),
        ..event.clone()
    }
}

/// An owner with the longest ids. Two of them differ in the last character only.
fn longest_owner(last: char) -> Owner {
    let id = format!("{}{last}", text(MAX_OWNER_CHARS - 1));
    owner_of(&id, &id)
}

/// A text of this many characters. Each takes four bytes of UTF-8.
fn text(chars: usize) -> String {
    "\u{1f511}".repeat(chars)
}

/// As many as the longest secret has.
const HINT_CHARS: usize = 512;
