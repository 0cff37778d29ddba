//! Damaged data are *corrupt*: verification is *unavailable*, and a damaged key never works.

use keyward::{
    AuditQuery, ErrorKind, KeyStore, RedisStore, Timestamp, VerifyError, VerifyRequest,
    manage::{Issued, KeyChange},
    model::{KeyLimits, OwnerScope, Quota},
    store::{ChangeFeed, StoreError, StoreErrorKind, UsageHistory},
};

use super::{connect, service};
use crate::{
    store::spoils_no_other_key,
    support::{
        Service,
        servers::redis::{Options, Server},
    },
};

async fn start() -> Option<(Server, RedisStore, Service)> {
    let server = Options::default().durable().start()?;
    let store = connect(server.address()).await;
    let service = service(store.clone());
    Some((server, store, service))
}

/// Changes the fields of the one key's record, which `prelude.lua` lists.
fn damage_key(server: &Server, change: &str) {
    let script = format!(
        "local id = redis.call('HKEYS', '{{keyward}}keys')[1] \
         local digest = redis.call('HGET', '{{keyward}}keys', id) \
         local key = cmsgpack.unpack(string.sub(redis.call('HGET', '{{keyward}}secrets', digest), 17)) \
         {change} \
         redis.call('HSET', '{{keyward}}secrets', digest, id .. cmsgpack.pack(key)) \
         return 'OK'"
    );
    assert_eq!(server.call(&["EVAL", &script, "0"]).text(), "OK", "{change}");
}

/// Replaces all values of a hash.
fn damage_hash(server: &Server, hash: &str, value: &str) {
    let script = format!(
        "local fields = redis.call('HKEYS', '{{keyward}}{hash}') \
         for _, field in ipairs(fields) do redis.call('HSET', '{{keyward}}{hash}', field, {value}) end \
         return tostring(#fields)"
    );
    assert_ne!(server.call(&["EVAL", &script, "0"]).text(), "0", "{hash} is not empty");
}

fn is_corrupt<T: std::fmt::Debug>(answer: Result<T, StoreError>, damage: &str) {
    assert_eq!(answer.expect_err(damage).kind(), StoreErrorKind::Corrupt, "{damage}");
}

async fn verification_is_corrupt(service: &Service, issued: &Issued, damage: &str) {
    match service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await {
        Err(VerifyError::Unavailable(error)) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage}");
        }
        other => panic!("{damage}: {other:?}"),
    }
}

#[tokio::test]
async fn a_damaged_key_is_corrupt_and_never_denied() {
    for damage in [
        // A reason without an instant, and a record without the reason.
        "key[11] = 'stolen'",
        "key[10] = string.rep('\\0', 8) key[11] = nil",
        "key[19] = 'lnos_live_a1b2c3d4'",
        "key[20] = string.rep('\\0', 8)",
        "key[1] = string.rep('\\255', 8)",
        "key[18] = '\\128' .. string.rep('\\0', 7)",
        "key[8] = '\\127' .. string.rep('\\255', 7)",
        "key[9] = 'today'",
        "key[14] = 'builds:read'",
        "key[15] = '{\"rate\": -1}'",
        "key[16] = '[\"everywhere\"]'",
        "key[17] = '[1'",
        "key[12] = ''",
        "key[22] = 'short'",
        "key[25] = 'localhost'",
        "key[26] = 'today'",
        "key[27] = 'short'",
        "key = {}",
        "key = 'text'",
    ] {
        let Some((server, store, service)) = start().await else { return };
        let issued = service.issue().await;
        damage_key(&server, damage);
        verification_is_corrupt(&service, &issued, damage).await;
        is_corrupt(store.get(OwnerScope::Tenant("acme"), issued.key.id).await, damage);
        let others = [service.issue().await.key.id, service.issue().await.key.id];
        spoils_no_other_key(service.keys(), &service.owner, issued.key.id, &others, damage).await;
    }
}

#[tokio::test]
async fn a_key_that_is_damaged_after_it_was_read_is_not_updated() {
    for damage in ["key[11] = 'stolen'", "key = 'text'"] {
        let Some((server, store, service)) = start().await else { return };
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let issued = service.issue().await;
        let change = KeyChange::default().name("other").unwrap();
        keys.update(ada, issued.key.id, &change, by).await.unwrap();
        let key = keys.get(ada, issued.key.id).await.unwrap();
        let log = keys.events(AuditQuery::new(ada)).await.unwrap();
        damage_key(&server, damage);
        is_corrupt(store.update(&key, &log[0]).await, damage);
    }
}

#[tokio::test]
async fn damaged_counters_are_corrupt() {
    for damage in ["'short'", "string.rep('\\0', 8) .. '-1'", "string.rep('\\0', 8) .. 'many'"] {
        let Some((server, _, service)) = start().await else { return };
        let limits = KeyLimits { quota: Some(Quota::total(5)), ..KeyLimits::default() };
        let new = service.new_key().limits(limits);
        let issued = service.keys().issue(new, &service.actor).await.unwrap();
        service.verify(&issued).await.unwrap();
        damage_hash(&server, "counters", damage);
        verification_is_corrupt(&service, &issued, damage).await;
    }
}

#[tokio::test]
async fn damaged_usage_is_corrupt() {
    for damage in ["'1 2'", "'-1 0 0'", "'many 0 0'"] {
        let Some((server, store, service)) = start().await else { return };
        let issued = service.issue().await;
        service.verify(&issued).await.unwrap();
        service.keys().flush().await.unwrap();
        damage_hash(&server, "usage", damage);
        let (owner, id) = (OwnerScope::from(&service.owner), issued.key.id);
        let usage = store.hourly_usage(owner, id, Timestamp::from_unix_micros(0)).await;
        is_corrupt(usage, damage);
    }
}

#[tokio::test]
async fn a_damaged_change_feed_is_corrupt() {
    for (field, value) in [
        ("last_number", "-1"),
        ("last_number", "18446744073709551615"),
        ("last_tag", "-1"),
        ("last_tag", "8388608"),
        ("purged_number", "many"),
    ] {
        let Some((server, store, service)) = start().await else { return };
        let _issued = service.issue().await;
        server.call(&["HSET", "{keyward}meta", field, value]);
        is_corrupt(store.changes(None).await, value);
    }
}
