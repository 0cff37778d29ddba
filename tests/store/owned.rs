//! Owned arguments borrow as the arguments that they were made of.

use std::time::Duration;

use keyward::{
    Hasher, KeyId, MemoryStore, Sha256Hasher, Timestamp,
    audit::{AuditEvent, EventKind},
    model::{EventId, OwnerScope, Period},
    store::{
        CounterCharge, CounterKey, InsertKey, KeyStore, OwnedCounterCharge, OwnedInsertKey,
        OwnedRotateSecret, PreviousSecret, RotateSecret,
    },
};

use crate::support::{Service, owner};

/// All fields are shown, but for the bytes of digests.
fn same(one: impl std::fmt::Debug, other: impl std::fmt::Debug) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}

#[tokio::test]
async fn owned_arguments_borrow_as_what_they_were_made_of() {
    let store = MemoryStore::new();
    let service = Service::uncached(vec![std::sync::Arc::new(store.clone())]);
    let id = service.issue().await.key.id;
    let key = store.get(OwnerScope::Owner(&service.owner), id).await.unwrap().unwrap();
    let (digest, at) = (Sha256Hasher.digest(b"secret"), service.now());
    let event = AuditEvent::new(EventId::from_bytes([7; 16]), at, EventKind::Rotated);
    let new = InsertKey {
        key: &key,
        digest: &digest,
        max_active: Some(5),
        token_since: Timestamp::MIN,
        event: &event,
    };
    let owned = OwnedInsertKey::from(new);
    same(owned.as_insert(), new);
    assert_eq!(owned.digest, digest);
    let (hint, token) = ("lc_test_hint", Some([3; 32]));
    let previous = PreviousSecret::EndsAt(at);
    let rotate = RotateSecret { key: &key, digest: &digest, hint, previous, token, event: &event };
    let owned = OwnedRotateSecret::from(rotate);
    same(owned.as_rotate(), rotate);
    assert_eq!(owned.digest, digest);

    let ada = owner("acme", "ada");
    let counters = [
        CounterKey::Key(KeyId::from_bytes([1; 16])),
        CounterKey::Owner(&ada),
        CounterKey::Anonymous(&digest),
        CounterKey::Job("purge"),
    ];
    for counter_key in counters {
        let charge = CounterCharge {
            counter_key,
            period: Period::Day,
            window: at,
            latest_window: at.after(Duration::from_secs(86_400)),
            limit: 7,
            uses: 3,
        };
        let owned = OwnedCounterCharge::from(charge);
        same(owned.as_charge(), charge);
        assert_eq!(owned.as_charge().counter_key, counter_key);
    }
}
