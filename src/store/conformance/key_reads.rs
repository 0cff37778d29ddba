//! Reading keys: fields round-trip, digests and owners are compared exactly, lists are complete.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use super::{
    check::{CheckResult, TestStorage, checks},
    fixtures::{
        SeededRandom, all_keys, at, digest, event, insert_key, just_before, key, key_use, name,
        owner, owner_of, revocation, revoked,
    },
};
use crate::{
    audit::EventKind,
    model::{
        Access, Key, KeyId, KeyLimits, Metadata, Networks, Owner, OwnerScope, Quota, Rate,
        RetiringSecret, Status, Timestamp,
    },
    secret::{HasherTag, SecretDigest},
    store::{
        InsertOutcome, KeyQuery, PreviousSecret, RevokeOutcome, RotateOutcome, RotateSecret,
        StoreError,
    },
};

checks![
    find_returns_the_key_of_any_candidate_digest,
    digests_are_compared_whole_including_the_hasher_tag,
    find_returns_the_latest_committed_key,
    find_reports_the_digest_that_matched,
    every_field_of_a_key_round_trips,
    every_field_set_by_a_write_round_trips,
    owners_are_compared_exactly,
    owners_are_told_apart_whatever_separates_their_names,
    keys_are_listed_newest_first_up_to_the_limit,
    a_status_filter_agrees_with_key_status,
    pages_list_each_key_once_while_keys_are_added,
    each_tenant_that_has_keys_is_listed_once,
    pages_list_each_tenant_once_while_others_appear_and_disappear,
];

async fn find_returns_the_key_of_any_candidate_digest(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    for n in 1..=20 {
        storage.add(&key(&ada, n), &digest(n)).await?;
    }
    // The candidates of one secret under a current and two retired hashers. One is stored.
    for (n, position) in [(7, 0), (8, 1), (9, 2)] {
        let mut candidates = [digest(101), digest(102), digest(103)];
        candidates[position] = digest(n);
        let found = storage.handle().find(&candidates).await?;
        let found =
            found.unwrap_or_else(|| panic!("the candidate at index {position} was not found"));
        assert_eq!(*found.key, key(&ada, n), "the key of the candidate at index {position}");
        assert_eq!(found.digest.to_bytes(), digest(n).to_bytes(), "the digest that matched");
        assert_eq!(found.ends_at, None, "a current secret does not end");
    }
    let absent = storage.handle().find(&[digest(101), digest(102)]).await?;
    assert!(absent.is_none(), "unknown digests found {absent:?}");
    let none = storage.handle().find(&[]).await?;
    assert!(none.is_none(), "an empty list of digests found {none:?}");
    Ok(())
}

async fn digests_are_compared_whole_including_the_hasher_tag(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let stored = digest(1).to_bytes();
    let under = |tag: HasherTag| {
        let bytes = stored[3..].try_into().expect("a digest has three bytes of tag and 32 of hash");
        SecretDigest::from_parts(tag, bytes)
    };
    storage.add(&key(&ada, 1), &digest(1)).await?;

    // Some bits are those that text collations ignore: letter case and trailing spaces.
    for bit in [0, 5, 23, 24, 29, 151, 274, 279] {
        let mut other = stored;
        other[bit / 8] ^= 0x80 >> (bit % 8);
        let other = SecretDigest::from_bytes(&other).expect("any 35 bytes are a digest");
        let holder = storage.holder(&other).await?;
        assert_eq!(holder, None, "a digest that differs in bit {bit} found a key");
    }
    for (n, tag) in
        [(2, HasherTag::SHA512), (3, HasherTag::custom(1)), (4, HasherTag::custom(0x100))]
    {
        assert_eq!(storage.holder(&under(tag)).await?, None, "the same hash under {tag:?}");
        storage.add(&key(&ada, n), &under(tag)).await?;
        assert_eq!(storage.holder(&under(tag)).await?, Some((key(&ada, n).id, None)));
    }
    assert_eq!(storage.holder(&digest(1)).await?, Some((key(&ada, 1).id, None)));
    Ok(())
}

async fn find_returns_the_latest_committed_key(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let status = async || {
        let found = storage.handle().find(&[digest(1)]).await?;
        Ok::<_, StoreError>(found.map(|found| found.key.status(at(5))))
    };
    let issued = key(&ada, 1);
    assert_eq!(status().await?, None);
    storage.add(&issued, &digest(1)).await?;
    assert_eq!(status().await?, Some(Status::Active));
    storage.update(&Key { disabled_at: Some(at(1)), ..issued.clone() }, at(1)).await?;
    assert_eq!(status().await?, Some(Status::Disabled));

    // The retiring secret finds the same key, in the same state.
    let disabled = storage.key(&issued).await?;
    storage.rotate(&disabled, &digest(2), PreviousSecret::EndsAt(at(50))).await?;
    let by = revocation(&issued, at(2), "leaked");
    let _revoked = storage.handle().revoke((&ada).into(), issued.id, &by).await?;
    assert_eq!(status().await?, Some(Status::Revoked), "a revoked key stays until it is purged");
    let by = event(EventKind::Deleted, &issued, at(3));
    let deleted = storage.handle().delete((&ada).into(), issued.id, &by).await?;
    assert!(deleted);
    assert_eq!(status().await?, None, "a deleted key was found");
    Ok(())
}

async fn every_field_of_a_key_round_trips(storage: TestStorage) -> CheckResult {
    for (n, key) in (1..).zip(varied_keys()) {
        storage.add(&key, &digest(n)).await?;
        assert_eq!(storage.key(&key).await?, key, "read by its id");
        let found = storage.handle().find(&[digest(n)]).await?.expect("the digest finds the key");
        assert_eq!(*found.key, key, "found by its digest");
        let listed = storage.keys((&key.owner).into()).await?;
        assert!(listed.iter().any(|listed| **listed == key), "listed: {listed:#?}, not {key:#?}");
    }
    // Update each key with the fields of the next one.
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

async fn find_reports_the_digest_that_matched(storage: TestStorage) -> CheckResult {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    storage.rotate(&issued, &digest(2), PreviousSecret::EndsAt(at(90))).await?;
    for (from, to) in [(1, 3), (2, 4)] {
        assert!(storage.handle().rehash(&digest(from), &digest(to)).await?);
    }
    let unknown = digest(9);
    for (presented, ends_at) in [(3, Some(at(90))), (4, None)] {
        let found = storage.handle().find(&[unknown, digest(presented)]).await?;
        let found = found.expect("the secret has this digest now");
        assert_eq!((found.digest, found.ends_at), (digest(presented), ends_at));
    }
    Ok(())
}

async fn owners_are_told_apart_whatever_separates_their_names(storage: TestStorage) -> CheckResult {
    let mut owners = Vec::new();
    for separator in
        ["/", ":", "|", ",", " ", "_", "-", ".", "\u{1}", "\u{1f}", "\t", "\n", "\u{ff}"]
    {
        owners.push(owner_of(&format!("a{separator}b"), "c"));
        owners.push(owner_of("a", &format!("b{separator}c")));
    }
    for (n, owner) in (1..).zip(&owners) {
        storage.add(&key(owner, n), &digest(n)).await?;
    }
    for (n, owner) in (1..).zip(&owners) {
        let listed = storage.keys(owner.into()).await?;
        let listed: Vec<KeyId> = listed.iter().map(|key| key.id).collect();
        assert_eq!(listed, [key(owner, n).id], "the keys of {owner:?}");
        let created = storage.log(owner.into()).await?;
        assert_eq!(created.len(), 1, "the events of {owner:?}");
        let (second, unused) = (key(owner, n + 100), digest(n + 100));
        let created = event(EventKind::Created, &second, at(0));
        let outcome = storage.handle().insert(insert_key(&second, &unused, 1, &created)).await?;
        assert_eq!(outcome, InsertOutcome::LimitReached, "the limit of {owner:?}");
        let by = revocation(&key(owner, n), at(1), "");
        let revoked = storage.handle().revoke_all(owner, &by).await?;
        assert_eq!(revoked.len(), 1, "the keys revoked of {owner:?}");
    }
    Ok(())
}

async fn every_field_set_by_a_write_round_trips(storage: TestStorage) -> CheckResult {
    for (n, text) in (1..).zip(HOSTILE_TEXTS) {
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
        assert_eq!(storage.handle().rotate(rotate).await?, RotateOutcome::Rotated);
        let mut uses = key_use(&issued, Timestamp::MIN, Timestamp::MAX);
        uses.digest = new;
        uses.ip = Some(if n % 2 == 0 { [192, 0, 2, 1].into() } else { [0x2001; 8].into() });
        storage.handle().record_uses(std::slice::from_ref(&uses)).await?;
        let by = revocation(&issued, at(n + 1), text);
        let _revoked = storage.handle().revoke(OwnerScope::Tenant("acme"), issued.id, &by).await?;

        let wanted = Key {
            hint,
            retiring: Some(RetiringSecret { hint: text.into(), ends_at }),
            rotated_at: Some(at(n)),
            rotation_token: token,
            first_used_at: Some(Timestamp::MIN),
            secret_first_used_at: Some(Timestamp::MIN),
            last_used_at: Some(Timestamp::MAX),
            last_used_ip: uses.ip,
            revision: issued.revision + 1,
            ..issued
        };
        let wanted = revoked(wanted, &by);
        assert_eq!(storage.key(&wanted).await?, wanted, "read by its id");
        for secret in [old, new] {
            let found = storage.handle().find(&[secret]).await?.expect("both secrets are stored");
            assert_eq!(*found.key, wanted, "found by a digest");
        }
    }
    Ok(())
}

async fn owners_are_compared_exactly(storage: TestStorage) -> CheckResult {
    // A store must not truncate long ids.
    let long = ["東".repeat(199), "東".repeat(200)];
    let owners = SIMILAR_OWNERS.into_iter().chain(long.iter().map(|tenant| (&**tenant, "account")));
    let owners: Vec<Owner> = owners.map(|(tenant, account)| owner_of(tenant, account)).collect();
    for (n, owner) in (1..).zip(&owners) {
        let key = key(owner, n);
        let created = event(EventKind::Created, &key, at(0));
        let inserted = storage.handle().insert(insert_key(&key, &digest(n), 1, &created)).await?;
        assert_eq!(inserted, InsertOutcome::Inserted, "the one key of {owner:?}");
    }
    for (n, owner) in (1..).zip(&owners) {
        let within = OwnerScope::Owner(owner);
        let own: Vec<_> = storage.keys(within).await?.iter().map(|key| key.id).collect();
        assert_eq!(own, [key(owner, n).id], "the keys of {owner:?}");
        assert_eq!(storage.log(within).await?.len(), 1, "events of {owner:?}");
        for (m, other) in (1..).zip(&owners) {
            let seen = storage.handle().get(within, key(other, m).id).await?;
            assert_eq!(seen.is_some(), n == m, "{owner:?} reads the key of {other:?}");
        }
        let tenant = OwnerScope::Tenant(owner.tenant());
        let same = owners.iter().filter(|other| other.tenant() == owner.tenant()).count();
        assert_eq!(storage.keys(tenant).await?.len(), same, "keys of tenant {:?}", owner.tenant());
        assert_eq!(storage.log(tenant).await?.len(), same, "events of {:?}", owner.tenant());
    }
    Ok(())
}

/// Keys that together have every value that a store might confuse with another or cannot represent.
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
    (0..HOSTILE_TEXTS.len() * 4).map(move |i| {
        // Different cycle lengths, to combine the values in many ways.
        let text = HOSTILE_TEXTS[i % HOSTILE_TEXTS.len()];
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
            issue_token: (i % 2 == 0).then_some([i as u8; 32]),
            ..key(&owner, i as u64 + 1)
        }
    })
}

/// No pairs, one pair, or the largest allowed metadata.
fn metadata(text: &str, size: usize) -> Metadata {
    let short: String = text.chars().take(60).collect();
    let pairs = match size {
        0 => vec![],
        1 => vec![(short, String::new())],
        _ => (0..50).map(|i| (format!("{short}{i}"), text.repeat(3))).collect(),
    };
    Metadata::new(pairs).expect("the metadata is within its bounds")
}

/// Text that breaks queries, formats and encodings built by concatenation.
const HOSTILE_TEXTS: [&str; 12] = [
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

/// Owners that a careless store confuses with each other.
const SIMILAR_OWNERS: [(&str, &str); 20] = [
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

async fn keys_are_listed_newest_first_up_to_the_limit(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let mut numbers: Vec<u64> = (1..=30).collect();
    SeededRandom(1).shuffle(&mut numbers);
    for n in numbers {
        // The order follows the ids, not the instants of creation.
        let key = Key { created_at: at(30 - n), ..key(&ada, n) };
        storage.add(&key, &digest(n)).await?;
    }
    for within in [OwnerScope::Owner(&ada), OwnerScope::Tenant(ada.tenant())] {
        let newest: Vec<KeyId> = (1..=30).rev().map(|n| key(&ada, n).id).collect();
        for limit in [1_000, 30, 29, 1] {
            let page = storage.handle().list(&KeyQuery { limit, ..all_keys(within) }).await?;
            assert_eq!(ids(&page), newest[..newest.len().min(limit as usize)], "limit {limit}");
        }
        let after = Some(newest[9]);
        let page = storage.handle().list(&KeyQuery { after, limit: 5, ..all_keys(within) }).await?;
        assert_eq!(ids(&page), newest[10..15], "five keys after the tenth");
    }
    Ok(())
}

async fn a_status_filter_agrees_with_key_status(storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let mut stored = Vec::new();
    let expiries = [None, Some(at(10)), Some(at(20))];
    for (i, expires_at) in (0..).zip(expiries.repeat(4)) {
        let disabled_at = (i / 3 % 2 == 1).then(|| at(5));
        let key = Key { expires_at, disabled_at, ..key(&ada, i) };
        storage.add(&key, &digest(i)).await?;
        if i >= 6 {
            let by = revocation(&key, at(6), "");
            let _revoked = storage.handle().revoke((&ada).into(), key.id, &by).await?;
        }
        stored.push(storage.key(&key).await?);
    }
    let instants = [at(0), just_before(at(10)), at(10), at(15), at(20), at(99)];
    let statuses = [Status::Active, Status::Disabled, Status::Expired, Status::Revoked];
    for now in instants {
        for status in statuses {
            for within in [OwnerScope::Owner(&ada), OwnerScope::Tenant(ada.tenant())] {
                let wanted = stored.iter().rev().filter(|key| key.status(now) == status);
                let wanted: Vec<KeyId> = wanted.map(|key| key.id).collect();
                let query = KeyQuery { status: Some(status), now, ..all_keys(within) };
                let listed = storage.handle().list(&query).await?;
                assert_eq!(ids(&listed), wanted, "{status:?} at {now}");
                let listed = storage.handle().list(&KeyQuery { limit: 2, ..query }).await?;
                assert_eq!(ids(&listed), wanted[..wanted.len().min(2)], "two {status:?} at {now}");
            }
        }
    }
    Ok(())
}

async fn pages_list_each_key_once_while_keys_are_added(storage: TestStorage) -> CheckResult {
    let (ada, other) = (owner(1), owner_of("other", "account-1"));
    for n in 100..130 {
        storage.add(&key(if n % 3 == 0 { &other } else { &ada }, n), &digest(n)).await?;
    }
    for (within, fresh) in [(OwnerScope::Owner(&ada), 200), (OwnerScope::Tenant(ada.tenant()), 300)]
    {
        let before = ids(&storage.keys(within).await?);
        let covered = count_listings(&storage, within, &ada, fresh).await?;
        let missed = before.iter().find(|id| covered.get(id) != Some(&1));
        assert_eq!(missed, None, "a key is missing or listed twice: {covered:?}");
        let twice = covered.iter().find(|(_, times)| **times > 1);
        assert_eq!(twice, None, "a key was listed twice");
    }
    Ok(())
}

/// Counts how often each key is listed, while a newer key is added after each page.
async fn count_listings(
    storage: &TestStorage,
    within: OwnerScope<'_>,
    owner: &Owner,
    fresh: u64,
) -> Result<BTreeMap<KeyId, u32>, StoreError> {
    let mut covered = BTreeMap::new();
    let mut after = None;
    for n in fresh.. {
        let page = storage.handle().list(&KeyQuery { after, limit: 4, ..all_keys(within) }).await?;
        for id in ids(&page) {
            *covered.entry(id).or_default() += 1;
        }
        let Some(last) = page.last() else { break };
        assert!(n < fresh + 50, "the pages never end");
        after = Some(last.id);
        storage.add(&key(owner, n), &digest(n)).await?;
    }
    Ok(covered)
}

fn ids(keys: &[Arc<Key>]) -> Vec<KeyId> {
    keys.iter().map(|key| key.id).collect()
}

async fn each_tenant_that_has_keys_is_listed_once(storage: TestStorage) -> CheckResult {
    let tenants = TENANTS.map(str::to_owned).into_iter().chain([LONG_TENANT_CHARACTER.repeat(200)]);
    let mut expected: Vec<String> = tenants.collect();
    for (n, tenant) in (0..).zip(&expected) {
        for (m, account) in ["ada", "ada", "bob"].into_iter().enumerate() {
            let n = n * 10 + m as u64;
            storage.add(&key(&owner_of(tenant, account), n), &digest(n)).await?;
        }
    }
    let gone = key(&owner_of("gone", "ada"), 900);
    storage.add(&gone, &digest(900)).await?;
    delete(&storage, &gone).await?;
    let revoked = key(&owner_of("revoked", "ada"), 901);
    storage.add(&revoked, &digest(901)).await?;
    let by = event(EventKind::Revoked, &revoked, at(1));
    assert_eq!(
        storage.handle().revoke((&revoked.owner).into(), revoked.id, &by).await?,
        RevokeOutcome::Revoked
    );
    expected.push("revoked".to_owned());
    expected.sort();
    for limit in [1, 4, 1_000] {
        let mut listed = Vec::new();
        loop {
            let page = storage.handle().tenants(listed.last().map(String::as_str), limit).await?;
            assert!(
                page.len() <= limit as usize,
                "a page has {} tenants at a limit of {limit}",
                page.len()
            );
            if page.is_empty() {
                break;
            }
            listed.extend(page);
            assert!(listed.len() <= expected.len(), "tenants listed twice: {listed:?}");
        }
        listed.sort();
        assert_eq!(listed, expected, "listed with a limit of {limit}");
    }
    Ok(())
}

async fn pages_list_each_tenant_once_while_others_appear_and_disappear(
    storage: TestStorage,
) -> CheckResult {
    let mut keys = BTreeMap::new();
    for n in 0..30 {
        let tenant = format!("tenant-{n:02}");
        let key = key(&owner_of(&tenant, "ada"), n);
        storage.add(&key, &digest(n)).await?;
        keys.insert(tenant, key);
    }
    let (mut listed, mut after): (BTreeMap<String, u32>, Option<String>) = Default::default();
    for round in 100.. {
        let page = storage.handle().tenants(after.as_deref(), 4).await?;
        for tenant in &page {
            *listed.entry(tenant.clone()).or_default() += 1;
        }
        after = page.into_iter().last();
        let Some(last) = &after else { break };
        assert!(round < 160, "the pages never end");
        // The tenant that the next page continues after has no keys any more.
        if let Some(key) = keys.get(last) {
            delete(&storage, key).await?;
        }
        let fresh = key(&owner_of(&format!("tenant-{round}"), "ada"), round);
        storage.add(&fresh, &digest(round)).await?;
    }
    let missed = keys.keys().find(|tenant| listed.get(*tenant) != Some(&1));
    assert_eq!(missed, None, "a tenant is missing or listed twice: {listed:?}");
    let twice = listed.iter().find(|(_, times)| **times > 1);
    assert_eq!(twice, None, "a tenant was listed twice");
    Ok(())
}

async fn delete(storage: &TestStorage, key: &Key) -> CheckResult {
    let by = event(EventKind::Deleted, key, at(1));
    let deleted = storage.handle().delete((&key.owner).into(), key.id, &by).await?;
    assert!(deleted, "the key existed");
    Ok(())
}

const TENANTS: [&str; 10] =
    ["", " ", "0", "ACME", "acme", "acme ", "acme-2", "\u{e9}", "\u{10ffff}", "'); --"];
/// Repeated 200 times, this is the longest possible tenant.
const LONG_TENANT_CHARACTER: &str = "\u{1f511}";
