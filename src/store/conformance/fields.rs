//! Fields: what goes in comes out, whatever text and numbers it is made of.

use std::{num::NonZeroU32, time::Duration};

use super::{
    sample::{at, digest, event, key, name, owner_of, revocation, revoked, row, used},
    storage::{Checked, Storage},
    suite::checks,
};
use crate::{
    audit::EventKind,
    model::{
        Access, Key, KeyLimits, Metadata, Networks, Owner, OwnerScope, Quota, Rate, Retiring,
        Timestamp,
    },
    store::{InsertOutcome, PreviousSecret, RotateOutcome, RotateSecret},
};

checks![
    every_field_of_a_key_round_trips,
    every_field_set_by_a_write_round_trips,
    owners_are_compared_exactly,
];

async fn every_field_of_a_key_round_trips(storage: Storage) -> Checked {
    for (n, key) in (1..).zip(varied_keys()) {
        storage.add(&key, &digest(n)).await?;
        assert_eq!(storage.key(&key).await?, key, "read by its id");
        let found = storage.any().find(&[digest(n)]).await?.expect("a key is found by its digest");
        assert_eq!(*found.key, key, "found by its digest");
        let listed = storage.keys((&key.owner).into()).await?;
        assert!(listed.iter().any(|listed| **listed == key), "listed: {listed:#?}, not {key:#?}");
    }
    // Each takes on the fields of the next one.
    let keys: Vec<Key> = varied_keys().collect();
    for (old, new) in keys.iter().zip(keys.iter().cycle().skip(1)) {
        let owner = old.owner.clone();
        let wanted = Key { id: old.id, owner, revision: old.revision, ..new.clone() };
        storage.update(&wanted, at(1)).await?;
        let Key { name, access, limits, networks, metadata, disabled_at, .. } = wanted;
        let revision = old.revision + 1;
        let old = old.clone();
        let wanted =
            Key { name, access, limits, networks, metadata, disabled_at, revision, ..old.clone() };
        assert_eq!(storage.key(&old).await?, wanted, "after an update");
    }
    Ok(())
}

async fn every_field_set_by_a_write_round_trips(storage: Storage) -> Checked {
    for (n, text) in (1..).zip(HOSTILE) {
        let issued = Key { hint: text.into(), ..key(&owner_of("acme", text), n) };
        let (old, new) = (digest(n), digest(n + 1_000));
        storage.add(&issued, &old).await?;

        let ends_at = Timestamp::MAX;
        let at_rotation = event(EventKind::Rotated, &issued, at(n));
        let hint = format!("{text}r");
        let token = Some([n as u8; 32]);
        let rotate = RotateSecret {
            key: &issued,
            digest: &new,
            hint: &hint,
            previous: PreviousSecret::EndsAt(ends_at),
            token,
            event: &at_rotation,
        };
        assert_eq!(storage.any().rotate(rotate).await?, RotateOutcome::Rotated);
        let mut uses = used(&issued, Timestamp::MIN, Timestamp::MAX);
        uses.ip = Some(if n % 2 == 0 { [192, 0, 2, 1].into() } else { [0x2001; 8].into() });
        storage.any().record_uses(std::slice::from_ref(&uses)).await?;
        let by = revocation(&issued, at(n + 1), text);
        let _now = storage.any().revoke(OwnerScope::Tenant("acme"), issued.id, &by).await?;

        let wanted = Key {
            hint,
            retiring: Some(Retiring { hint: text.into(), ends_at }),
            rotated_at: Some(at(n)),
            rotation_token: token,
            first_used_at: Some(Timestamp::MIN),
            last_used_at: Some(Timestamp::MAX),
            last_used_ip: uses.ip,
            revision: issued.revision + 1,
            ..issued
        };
        let wanted = revoked(wanted, &by);
        assert_eq!(storage.key(&wanted).await?, wanted, "read by its id");
        for secret in [old, new] {
            let found = storage.any().find(&[secret]).await?.expect("both secrets are stored");
            assert_eq!(*found.key, wanted, "found by a digest");
        }
    }
    Ok(())
}

async fn owners_are_compared_exactly(storage: Storage) -> Checked {
    // What is cut off to fit is no longer what it was.
    let long = ["東".repeat(199), "東".repeat(200)];
    let owners = NAMESAKES.into_iter().chain(long.iter().map(|tenant| (&**tenant, "account")));
    let owners: Vec<Owner> = owners.map(|(tenant, account)| owner_of(tenant, account)).collect();
    for (n, owner) in (1..).zip(&owners) {
        let key = key(owner, n);
        let created = event(EventKind::Created, &key, at(0));
        let inserted = storage.any().insert(row(&key, &digest(n), 1, &created)).await?;
        assert_eq!(inserted, InsertOutcome::Inserted, "the one key of {owner:?}");
    }
    for (n, owner) in (1..).zip(&owners) {
        let within = OwnerScope::Owner(owner);
        let own: Vec<_> = storage.keys(within).await?.iter().map(|key| key.id).collect();
        assert_eq!(own, [key(owner, n).id], "the keys of {owner:?}");
        assert_eq!(storage.log(within).await?.len(), 1, "events of {owner:?}");
        for (m, other) in (1..).zip(&owners) {
            let seen = storage.any().get(within, key(other, m).id).await?;
            assert_eq!(seen.is_some(), n == m, "{owner:?} reads the key of {other:?}");
        }
        let tenant = OwnerScope::Tenant(owner.tenant());
        let same = owners.iter().filter(|other| other.tenant() == owner.tenant()).count();
        assert_eq!(storage.keys(tenant).await?.len(), same, "keys of tenant {:?}", owner.tenant());
        assert_eq!(storage.log(tenant).await?.len(), same, "events of {:?}", owner.tenant());
    }
    Ok(())
}

/// Keys that have among them every value that a store might confuse with another or not hold.
fn varied_keys() -> impl Iterator<Item = Key> {
    let only = |scopes: &[&str]| Access::only(scopes).expect("valid scopes");
    let networks = |all: &[&str]| Networks::only(all).expect("valid networks");
    let rate = |uses, period, burst| Rate { uses, period, burst };
    let (one, most) = (NonZeroU32::MIN, NonZeroU32::MAX);

    let accesses = [
        Access::Inherited,
        only(&[]),
        only(&["builds:read"]),
        only(&["%", "_", "'", ",", "a;b", "{}", "[]", "*", "NULL"]),
    ];
    let limits = [
        KeyLimits::default(),
        KeyLimits { rate: Some(Rate::per_second(7).burst(1)), ..KeyLimits::default() },
        KeyLimits { quota: Some(Quota::total(0)), ..KeyLimits::default() },
        KeyLimits { quota: Some(Quota::per_day(u64::MAX)), ..KeyLimits::default() },
        KeyLimits { rate: Some(Rate::per_minute(1)), quota: Some(Quota::per_month(7)) },
        KeyLimits {
            rate: Some(rate(most, Duration::from_micros(1_500), one)),
            ..KeyLimits::default()
        },
        KeyLimits {
            rate: Some(rate(one, Duration::from_secs(366 * 86_400), most)),
            ..KeyLimits::default()
        },
    ];
    let networks = [
        Networks::Any,
        networks(&[]),
        networks(&["192.0.2.7", "2001:db8::1"]),
        networks(&["0.0.0.0/0", "192.0.2.7/24", "::/0", "2001:db8::1/32"]),
    ];
    let instants = [None, Some(Timestamp::MIN), Some(Timestamp::MAX), Some(at(1))];
    let revisions = [0, 1, i64::MAX as u64 - 1];
    (0..HOSTILE.len() * 4).map(move |i| {
        // Steps of different lengths, so that values meet in many combinations.
        let text = HOSTILE[i % HOSTILE.len()];
        let instant = |step: usize| instants[(i / step + step) % instants.len()];
        let owner = owner_of(if i % 3 == 0 { "" } else { text }, text);
        Key {
            name: name(text),
            hint: text.into(),
            access: accesses[i % accesses.len()].clone(),
            limits: limits[(i / 2) % limits.len()],
            networks: networks[(i / 3) % networks.len()].clone(),
            metadata: metadata(text, i % 3),
            created_at: instant(1).unwrap_or(at(0)),
            expires_at: instant(2),
            disabled_at: instant(3),
            revision: revisions[i % revisions.len()],
            ..key(&owner, i as u64 + 1)
        }
    })
}

/// None, one pair, or as much as there may be.
fn metadata(text: &str, size: usize) -> Metadata {
    let short: String = text.chars().take(60).collect();
    let pairs = match size {
        0 => vec![],
        1 => vec![(short, String::new())],
        _ => (0..50).map(|i| (format!("{short}{i}"), text.repeat(3))).collect(),
    };
    Metadata::new(pairs).expect("within the bounds of metadata")
}

/// Text that breaks what is put together from text.
const HOSTILE: [&str; 12] = [
    "plain",
    "two\nlines\r\n and a\ttab",
    "👩‍🚀 Zoë 東京 \u{1F3F4}",
    "\u{202e}desrever\u{202c}\u{200b}",
    "'; DROP TABLE keys; --",
    "\"quoted\" `back` \\ \\\\ \\n",
    "100%_of_*",
    "null",
    "{\"a\":[1,2]}",
    ":colon:{hash}:*",
    "e\u{301} is not \u{e9}",
    "\u{1}\u{7f}\u{85}\u{fffd}\u{10ffff}",
];

/// Owners that a careless store takes for one another.
const NAMESAKES: [(&str, &str); 20] = [
    ("", "account"),
    ("", "Account"),
    ("acme", "account"),
    ("ACME", "account"),
    ("acme", "ACCOUNT"),
    ("acme ", "account"),
    ("acme", "account "),
    (" acme", "account"),
    ("a", "bc"),
    ("ab", "c"),
    ("a:b", "c"),
    ("a", "b:c"),
    ("%", "account"),
    ("_cme", "account"),
    ("acme", "%"),
    ("acme", "a_count"),
    ("acm\u{e9}", "account"),
    ("acme\u{301}", "account"),
    ("stra\u{df}e", "account"),
    ("strasse", "account"),
];
