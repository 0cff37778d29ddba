//! Inserts and revokes the `n`th key as a service would.

use keyward::{
    Access, AuditEvent, Key, KeyId, KeyStore, Owner, Timestamp,
    audit::EventKind,
    model::{EventId, KeyLimits, Metadata, Name, Networks},
    store::{InsertKey, InsertOutcome, RevokeOutcome},
};

use crate::digest;

pub async fn insert(store: &dyn KeyStore, n: u64) {
    let (key, digest) = (key(n), digest(n));
    let event = event(&key, EventKind::Created, id(n));
    let new = InsertKey {
        key: &key,
        digest: &digest,
        max_active: Some(5),
        token_since: Timestamp::MIN,
        event: &event,
    };
    assert_eq!(store.insert(new).await.expect("it runs"), InsertOutcome::Inserted);
}

pub async fn revoke(store: &dyn KeyStore, n: u64) {
    let key = key(n);
    let mut id = id(n);
    id[0] += 1;
    let mut event = event(&key, EventKind::Revoked, id);
    event.reason = Some("lost".into());
    let revoked = store.revoke((&key.owner).into(), key.id, &event).await.expect("it runs");
    assert_eq!(revoked, RevokeOutcome::Revoked);
}

fn key(n: u64) -> Key {
    Key {
        id: KeyId::from_bytes(id(n)),
        owner: Owner::new("acme", &format!("account{n}")).expect("valid names"),
        name: Name::new("ci-pipeline").expect("a valid name"),
        hint: "lc_live_a1b2c3d4".into(),
        retiring: None,
        access: Access::only(["builds:read"]).expect("a scope"),
        limits: KeyLimits::default(),
        networks: Networks::Any,
        metadata: Metadata::default(),
        created_at: Timestamp::from_unix_micros(n as i64),
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

fn event(key: &Key, kind: EventKind, id: [u8; 16]) -> AuditEvent {
    let mut event = AuditEvent::new(EventId::from_bytes(id), key.created_at, kind);
    event.tenant = key.owner.tenant().into();
    event.account = Some(key.owner.account().into());
    event.key_id = Some(key.id);
    event.actor = "account:ada@example.com".into();
    event.ip = Some([192, 0, 2, 7].into());
    event.user_agent = Some("Mozilla/5.0".into());
    event
}

fn id(n: u64) -> [u8; 16] {
    let mut id = *b"\x01\x90\xa5\xb2\0\0\x70\0\x80\0\0\0\0\0\0\0";
    id[8..].copy_from_slice(&n.to_be_bytes());
    id[8] |= 0x80;
    id
}
