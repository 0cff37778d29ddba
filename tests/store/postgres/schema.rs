//! Schemas, prefixes, migrations and pools.

use std::{sync::Arc, time::Duration};

use keyward::{
    PostgresStore,
    model::OwnerScope,
    store::{FeedMode, PostgresOptions, StoreErrorKind},
};
use sqlx::postgres::PgPoolOptions;
use tokio::{sync::Barrier, task::JoinSet};

use super::{connect, patient};
use crate::support::{Service, servers::postgres};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_nodes_migrate_an_empty_database_concurrently() {
    let Some(cluster) = postgres::shared() else { return };
    for _ in 0..10 {
        let database = cluster.database();
        let (start, mut nodes) = (Arc::new(Barrier::new(8)), JoinSet::new());
        for _ in 0..8 {
            let (start, url) = (start.clone(), database.url().to_owned());
            nodes.spawn(async move {
                let pool = PgPoolOptions::new().max_connections(2).connect(&url).await.unwrap();
                start.wait().await;
                patient().with_pool(pool).await
            });
        }
        let stores = nodes.join_all().await.into_iter().map(|store| Arc::new(store.unwrap()) as _);
        let versions = database.sql("SELECT version FROM keyward_migrations ORDER BY 1").unwrap();
        assert_eq!(versions, "1");
        let service = Service::uncached(stores.collect());
        let issued = service.issue().await;
        assert!(service.verify(&issued).await.is_ok());
    }
}

#[tokio::test]
async fn a_migration_may_take_longer_than_a_call() {
    let Some(server) = postgres::Options::default().start() else { return };
    let database = server.cluster().database();
    // As on a large table: each schema change takes longer than the timeout of a call.
    let slow = "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql \
        AS 'BEGIN PERFORM pg_sleep(0.6); END'; \
        CREATE EVENT TRIGGER slow ON ddl_command_end WHEN tag IN ('CREATE INDEX') \
        EXECUTE FUNCTION slow()";
    database.sql(slow).unwrap();
    let hasty = super::hasty().connect(database.url()).await;
    // On a busy machine, even the check before the migration may time out.
    if hasty.is_err() {
        super::connect_store(super::hasty(), database.url()).await;
    }
    assert_eq!(database.sql("SELECT version FROM keyward_migrations").unwrap(), "1");
}

#[tokio::test]
async fn a_newer_schema_is_rejected_with_the_fix() {
    let Some(cluster) = postgres::shared() else { return };
    let database = cluster.database();
    drop(patient().connect(database.url()).await.unwrap());
    database.sql("INSERT INTO keyward_migrations VALUES (2)").unwrap();
    let error = patient().connect(database.url()).await.unwrap_err();
    assert!(error.to_string().contains("upgrade keyward"), "{error}");
}

#[tokio::test]
async fn without_migration_missing_tables_are_rejected_with_the_fix() {
    let Some(cluster) = postgres::shared() else { return };
    let database = cluster.database();
    let error = patient().without_migration().connect(database.url()).await.unwrap_err();
    assert!(error.to_string().contains("migrations/postgres"), "{error}");
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'keyward%'";
    assert_eq!(database.sql(tables).unwrap(), "0");
}

#[tokio::test]
async fn tables_created_by_hand_need_no_migration() {
    let Some(cluster) = postgres::shared() else { return };
    let database = cluster.database();
    database.sql(include_str!("../../../migrations/postgres/0001_keyward.sql")).unwrap();
    let service = Service::uncached(vec![
        connect(patient().without_migration(), database.url()).await,
        connect(patient(), database.url()).await,
    ]);
    let issued = service.issue().await;
    assert!(service.verify(&issued).await.is_ok());
    let versions = database.sql("SELECT version FROM keyward_migrations").unwrap();
    assert_eq!(versions, "1");
}

#[tokio::test]
async fn a_schema_or_prefix_that_could_inject_sql_is_rejected() {
    for name in ["", "a b", "a\"b", "a;--", "Api_", "1st_", "_x", "ä", &"a".repeat(41)] {
        for options in [patient().schema(name), patient().prefix(name)] {
            let rejected = options.connect("postgres://127.0.0.1:1/app").await.unwrap_err();
            assert_eq!(rejected.kind(), StoreErrorKind::Configuration, "{name:?}");
        }
    }
}

#[tokio::test]
async fn the_longest_schema_and_prefix_fit_all_names() {
    let Some(cluster) = postgres::shared() else { return };
    let database = cluster.database();
    let (schema, prefix) = ("s".repeat(40), "p".repeat(40));
    database.sql(&format!("CREATE SCHEMA {schema}")).unwrap();
    let options = patient().schema(&schema).prefix(&prefix);
    let store = connect(options, database.url()).await;
    let end = store.change_feed().unwrap().changes(None).await.unwrap().cursor;
    super::until("changes are pushed", async || {
        let feed = store
            .change_feed()
            .unwrap()
            .wait_for_changes(end, Duration::from_millis(1))
            .await
            .unwrap();
        (feed == FeedMode::Pushed).then_some(())
    })
    .await;
    let service = Service::uncached(vec![store]);
    let issued = service.issue().await;
    assert!(service.verify(&issued).await.is_ok());
}

#[tokio::test]
async fn schema_and_prefix_separate_services_and_leave_other_tables_alone() {
    let Some(cluster) = postgres::shared() else { return };
    let database = cluster.database();
    let host = "CREATE SCHEMA auth; \
        CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL, \
        installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL, \
        checksum bytea NOT NULL, execution_time bigint NOT NULL); \
        INSERT INTO _sqlx_migrations VALUES (7, 'the host''s', '2026-01-01', true, '\\x00', 1)";
    database.sql(host).unwrap();
    let state = "SELECT md5(string_agg(m::text, '')) FROM _sqlx_migrations m";
    let before = database.sql(state).unwrap();

    let options: [PostgresOptions; 3] =
        [patient(), patient().prefix("api_"), patient().schema("auth").prefix("api_")];
    for options in &options {
        let service = Service::uncached(vec![
            connect(options.clone(), database.url()).await,
            connect(options.clone(), database.url()).await,
        ]);
        let issued = service.issue().await;
        assert!(service.verify(&issued).await.is_ok());
        let within = OwnerScope::from(&service.owner);
        let keys = service.keys().list(within, keyward::manage::Page::first()).await.unwrap().keys;
        assert_eq!(keys.len(), 1, "{options:?}");
    }
    for table in ["keyward_keys", "api_keys", "auth.api_keys"] {
        assert_eq!(database.sql(&format!("SELECT count(*) FROM {table}")).unwrap(), "1");
    }
    assert_eq!(database.sql(state).unwrap(), before);
}

#[tokio::test]
async fn the_services_pool_is_used_and_left_open() {
    let Some(cluster) = postgres::shared() else { return };
    let database = cluster.database();
    let pool = PgPoolOptions::new().max_connections(3).connect(database.url()).await.unwrap();
    let store = PostgresStore::with_pool(pool.clone()).await.unwrap();
    let service = Service::uncached(vec![Arc::new(store)]);
    let issued = service.issue().await;
    assert!(service.verify(&issued).await.is_ok());
    drop(service);
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&pool).await.unwrap();
    assert_eq!(one, 1);
}
