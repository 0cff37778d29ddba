//! A damaged row is *corrupt*: verification is *unavailable*, and a damaged key never works.

use std::sync::Arc;

use keyward::{
    ErrorKind, KeyStore, Timestamp, VerifyError, VerifyRequest,
    manage::KeyChange,
    model::{KeyLimits, OwnerScope, Quota},
    store::{StoreError, StoreErrorKind},
};

use super::{connect, patient};
use crate::{
    store::spoils_no_other_key,
    support::{Service, servers::postgres::Database, stores},
};

/// A database whose tables accept every value of a column's type.
async fn unchecked() -> Option<(Database, Arc<dyn KeyStore>, Service)> {
    let database = stores::postgres().await?;
    let checks = "SELECT 'ALTER TABLE ' || conrelid::regclass || ' DROP CONSTRAINT ' || conname \
        FROM pg_constraint WHERE contype = 'c' AND conrelid::regclass::text LIKE 'keyward%'";
    for drop in database.sql(checks).unwrap().lines() {
        database.sql(drop).unwrap();
    }
    let store = connect(patient(), database.url()).await;
    let service = Service::uncached(vec![store.clone()]);
    Some((database, store, service))
}

fn is_corrupt<T: std::fmt::Debug>(answer: Result<T, StoreError>, damage: &str) {
    assert_eq!(answer.expect_err(damage).kind(), StoreErrorKind::Corrupt, "{damage}");
}

#[tokio::test]
async fn a_damaged_key_is_corrupt_and_never_denied() {
    for damage in [
        "UPDATE keyward_keys SET revoked_at = 1",
        "UPDATE keyward_keys SET revoked_reason = 'stolen'",
        "UPDATE keyward_keys SET retiring_hint = 'lnos_live_a1b2c3d4'",
        "UPDATE keyward_keys SET retiring_ends_at = 1",
        "UPDATE keyward_keys SET revision = -1",
        "UPDATE keyward_keys SET created_at = -9223372036854775808",
        "UPDATE keyward_keys SET expires_at = 9223372036854775807",
        "UPDATE keyward_keys SET access = 'builds:read'",
        "UPDATE keyward_keys SET networks = '[\"everywhere\"]'",
        "UPDATE keyward_keys SET limits = '{\"rate\": -1}'",
        "UPDATE keyward_keys SET metadata = '[1'",
        "UPDATE keyward_keys SET name = ''",
        "UPDATE keyward_keys SET account = ''",
        "UPDATE keyward_keys SET last_used_ip = 'localhost'",
        "UPDATE keyward_keys SET rotation_token = '\\x00'",
        "UPDATE keyward_keys SET issue_token = '\\x00'",
        "UPDATE keyward_keys SET secret_first_used_at = -1",
    ] {
        let Some((database, store, service)) = unchecked().await else { return };
        let issued = service.issue().await;
        database.sql(damage).unwrap();
        match service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await {
            Err(VerifyError::Unavailable(error)) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage}");
            }
            other => panic!("{damage}: {other:?}"),
        }
        is_corrupt(store.get(OwnerScope::Tenant("acme"), issued.key.id).await, damage);
        if !damage.contains("account") {
            let others = [service.issue().await.key.id, service.issue().await.key.id];
            spoils_no_other_key(service.keys(), &service.owner, issued.key.id, &others, damage)
                .await;
        }
    }
}

#[tokio::test]
async fn a_key_that_is_damaged_after_it_was_read_is_not_updated() {
    for damage in [
        "UPDATE keyward_keys SET revoked_at = 1",
        "UPDATE keyward_keys SET revoked_reason = 'stolen'",
        "UPDATE keyward_keys SET revision = -1",
    ] {
        let Some((database, store, service)) = unchecked().await else { return };
        let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
        let issued = service.issue().await;
        let change = KeyChange::default().name("other").unwrap();
        keys.update(ada, issued.key.id, &change, by).await.unwrap();
        let key = keys.get(ada, issued.key.id).await.unwrap();
        let log = keys.events(keyward::AuditQuery::new(ada)).await.unwrap();
        database.sql(damage).unwrap();
        is_corrupt(store.update(&key, &log[0]).await, damage);
    }
}

#[tokio::test]
async fn damaged_counters_are_corrupt() {
    for damage in [
        "UPDATE keyward_counters SET used = -1",
        "UPDATE keyward_counters SET window_start = 9223372036854775807",
    ] {
        let Some((database, _, service)) = unchecked().await else { return };
        let limits = KeyLimits { quota: Some(Quota::total(5)), ..KeyLimits::default() };
        let new = service.new_key().limits(limits);
        let issued = service.keys().issue(new, &service.actor).await.unwrap();
        service.verify(&issued).await.unwrap();
        database.sql(damage).unwrap();
        match service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await {
            Err(VerifyError::Unavailable(error)) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage}");
            }
            other => panic!("{damage}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn damaged_usage_is_corrupt() {
    let columns = ["accepted", "denied", "limited"].map(|column| format!("{column} = -1"));
    for damage in columns.iter().map(String::as_str).chain(["hour = 9223372036854775807"]) {
        let Some((database, store, service)) = unchecked().await else { return };
        let issued = service.issue().await;
        service.verify(&issued).await.unwrap();
        service.keys().flush().await.unwrap();
        assert_eq!(database.sql("SELECT count(*) FROM keyward_hourly_usage").unwrap(), "1");
        database.sql(&format!("UPDATE keyward_hourly_usage SET {damage}")).unwrap();
        let from = Timestamp::from_unix_micros(0);
        let usage = store
            .usage_history()
            .unwrap()
            .hourly_usage((&service.owner).into(), issued.key.id, from)
            .await;
        is_corrupt(usage, damage);
    }
}

#[tokio::test]
async fn a_damaged_change_feed_is_corrupt() {
    for damage in [
        "UPDATE keyward_changes SET number = -1",
        "UPDATE keyward_changes SET tag = -1",
        "UPDATE keyward_changes SET tag = 9223372036854775807",
        "UPDATE keyward_changes SET number = 9223372036854775807",
        "DELETE FROM keyward_feed",
    ] {
        let Some((database, store, service)) = unchecked().await else { return };
        let _issued = service.issue().await;
        // Gives the entry its number.
        store.change_feed().unwrap().changes(None).await.unwrap();
        database.sql(damage).unwrap();
        is_corrupt(store.change_feed().unwrap().changes(None).await, damage);
    }
}
