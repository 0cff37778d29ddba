//! Test data: keys, secrets and events, made from numbers. A greater number is newer.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    audit::{AuditEvent, EventKind},
    model::{
        Access, Actor, EventId, Key, KeyId, KeyLimits, Metadata, Name, Networks, Owner, OwnerScope,
        Revocation, Timestamp,
    },
    secret::{Hasher, SecretDigest, Sha256Hasher},
    store::{InsertKey, KeyQuery, KeyUse, PreviousSecret, RotateSecret},
};

pub(super) const TENANT: &str = "acme";

/// The instant `second` seconds after the start of a check's timeline.
pub(super) fn at(second: u64) -> Timestamp {
    START.after(Duration::from_secs(second))
}

/// The instant 1 µs earlier, the smallest step of a `Timestamp`.
pub(super) fn just_before(instant: Timestamp) -> Timestamp {
    instant.before(Duration::from_micros(1))
}

pub(super) fn owner(n: u64) -> Owner {
    owner_of(TENANT, &format!("account-{n}"))
}

/// An owner with these ids. An empty tenant means no tenant.
pub(super) fn owner_of(tenant: &str, account: &str) -> Owner {
    Owner::from_parts(tenant, account).expect("the suite uses valid owners")
}

/// The keys that the events are about.
pub(super) fn key_ids(events: &[AuditEvent]) -> Vec<KeyId> {
    events.iter().filter_map(|event| event.key_id).collect()
}

/// A plain key that never expires.
pub(super) fn key(owner: &Owner, n: u64) -> Key {
    Key {
        id: KeyId::from_bytes(uuid_v7(n)),
        owner: owner.clone(),
        name: name(&format!("key {n}")),
        hint: format!("kw_{n}"),
        retiring: None,
        access: Access::Inherited,
        limits: KeyLimits::default(),
        networks: Networks::Any,
        metadata: Metadata::default(),
        created_at: at(0),
        expires_at: None,
        disabled_at: None,
        revoked: None,
        rotated_at: None,
        rotation_token: None,
        issue_token: None,
        first_used_at: None,
        secret_first_used_at: None,
        last_used_at: None,
        last_used_ip: None,
        revision: 0,
    }
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).expect("the suite uses valid names")
}

/// The digest of the `n`th secret.
pub(super) fn digest(n: u64) -> SecretDigest {
    Sha256Hasher.digest(format!("secret {n}").as_bytes())
}

/// An event with a new id, greater than all ids made before.
pub(super) fn event(kind: EventKind, key: &Key, at: Timestamp) -> AuditEvent {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let id = EventId::from_bytes(uuid_v7(COUNT.fetch_add(1, Ordering::Relaxed)));
    AuditEvent::by(id, at, kind, &Actor::system("conformance")).of_key(key)
}

/// A revocation event with a reason.
pub(super) fn revocation(key: &Key, at: Timestamp, reason: &str) -> AuditEvent {
    event(EventKind::Revoked, key, at).reason(reason)
}

/// The key as it must be after it was revoked with this event.
pub(super) fn revoked(mut key: Key, by: &AuditEvent) -> Key {
    let reason = by.reason.clone().unwrap_or_default();
    key.revoked = Some(Revocation { at: by.at, reason });
    key.revision += 1;
    key
}

pub(super) fn insert_key<'a>(
    key: &'a Key,
    digest: &'a SecretDigest,
    max_active: impl Into<Option<u32>>,
    event: &'a AuditEvent,
) -> InsertKey<'a> {
    let max_active = max_active.into();
    InsertKey { key, digest, max_active, token_since: Timestamp::MIN, event }
}

pub(super) fn rotation<'a>(
    key: &'a Key,
    digest: &'a SecretDigest,
    previous: PreviousSecret,
    event: &'a AuditEvent,
) -> RotateSecret<'a> {
    RotateSecret { key, digest, hint: "kw_rotated", previous, token: Some([7; 32]), event }
}

/// Uses of a key between two instants, by a secret that it does not have any more.
pub(super) fn key_use(key: &Key, first_at: Timestamp, last_at: Timestamp) -> KeyUse {
    KeyUse {
        key_id: key.id,
        digest: SecretDigest::nothing(),
        owner: key.owner.clone(),
        first_at,
        last_at,
        ip: Some([192, 0, 2, 7].into()),
        user_agent: Some("curl/8.5".into()),
        event_id: event(EventKind::FirstUsed, key, first_at).id,
    }
}

/// A query for all keys, up to 1,000.
pub(super) fn all_keys<'a>(within: impl Into<OwnerScope<'a>>) -> KeyQuery<'a> {
    KeyQuery { within: within.into(), status: None, after: None, limit: 1_000, now: at(0) }
}

/// A deterministic random number generator (SplitMix64).
pub(super) struct SeededRandom(pub(super) u64);

impl SeededRandom {
    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    pub(super) fn shuffle<T>(&mut self, all: &mut [T]) {
        for i in (1..all.len()).rev() {
            all.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// The `n`th id, in the format of a UUIDv7. Its last four bytes are zero, because
/// `AuditEvent::for_key` numbers the events of one change there.
fn uuid_v7(n: u64) -> [u8; 16] {
    let millis = START.as_unix_micros() as u64 / 1_000 + n;
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    bytes[6] = 0x70;
    bytes[8] = 0x80;
    bytes
}

/// 2026-02-09T12:00:00Z.
const START: Timestamp = Timestamp::from_unix_micros(1_770_638_400_000_000);
