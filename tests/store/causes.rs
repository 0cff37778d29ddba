//! The error of a store that cannot be opened names its cause, and no password.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use keyward::{
    Error, ErrorKind,
    store::{
        PostgresOptions, RedisOptions, StoreError,
        StoreErrorKind::{self, Configuration, Unavailable},
    },
};
use tokio::time::timeout;

use crate::support::servers::{postgres, redis};

/// Checks kind and text of an error, and that no password is in it.
fn names(error: StoreError, kind: StoreErrorKind, causes: &[&str]) {
    let texts = [error.to_string(), format!("{error:?}"), Error::from(error.clone()).to_string()];
    assert_eq!(error.kind(), kind, "{error}");
    for cause in causes {
        for text in [&texts[0], &texts[2]] {
            assert!(text.contains(cause), "{text:?} names {cause:?}");
            assert_eq!(text.matches(cause).count(), 1, "{text:?} names {cause:?} once");
        }
    }
    assert!(!texts.iter().any(|text| text.contains(PASSWORD)), "{texts:?}");
}

async fn postgres_error(url: &str) -> StoreError {
    open(PostgresOptions::new().timeout(NEVER).connect(url)).await
}

async fn redis_error(url: &str) -> StoreError {
    open(RedisOptions::new().timeout(NEVER).connect(url)).await
}

/// Waits for an error that must come long before the timeout of the store.
async fn open<T>(opened: impl Future<Output = Result<T, StoreError>>) -> StoreError {
    let answer = timeout(Duration::from_secs(60), opened).await;
    answer.expect("it fails before its timeout").err().expect("it cannot be opened")
}

/// Returns an address that refuses connections.
fn refusing() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn a_malformed_url_is_an_error_of_the_configuration() {
    for url in [
        format!("localhost:{PASSWORD}/app"),
        format!("mysql://app:{PASSWORD}@localhost/app"),
        format!("postgres://app:{PASSWORD}@local host/app"),
        format!("postgres://app:{PASSWORD}@localhost:port/app"),
        format!("postgres://app:{PASSWORD}@localhost/app?sslmode=perhaps"),
    ] {
        names(postgres_error(&url).await, Configuration, &["invalid PostgreSQL URL"]);
    }
    for url in [
        format!("localhost:{PASSWORD}"),
        format!("http://app:{PASSWORD}@localhost/"),
        format!("redis://app:{PASSWORD}@local host/"),
        format!("redis://app:{PASSWORD}@localhost:port/"),
        format!("redis://app:{PASSWORD}@localhost/first"),
    ] {
        names(redis_error(&url).await, Configuration, &["invalid Redis URL"]);
    }
    let error = Error::from(postgres_error("").await);
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(!error.is_unavailable());
}

#[tokio::test]
async fn a_refused_connection_is_reported_immediately() {
    let address = refusing();
    let url = format!("postgres://app:{PASSWORD}@{address}/app");
    names(postgres_error(&url).await, Unavailable, &["Connection refused", &address]);
    let address = refusing();
    let url = format!("redis://app:{PASSWORD}@{address}/");
    names(redis_error(&url).await, Unavailable, &["Connection refused", &address]);
}

#[tokio::test]
async fn postgres_that_refuses_a_client_is_quoted() {
    let Some(mut server) = postgres::Options::default().start() else { return };
    let database = server.cluster().database();
    database.sql(&format!("CREATE USER app PASSWORD 'not {PASSWORD}'")).unwrap();
    let rules = "local all app scram-sha-256\nlocal all all trust\n";
    server.stop();
    fs::write(server.folder().join("data/pg_hba.conf"), rules).unwrap();
    server.restart();
    let url = |database, user| {
        let folder = server.folder().display();
        format!("postgres:///{database}?host={folder}&user={user}&password={PASSWORD}")
    };
    let url_of = |user| url(database.name(), user);

    let wrong = "password authentication failed for user \"app\"";
    names(postgres_error(&url_of("app")).await, Unavailable, &[wrong]);
    let unknown = "role \"nemo\" does not exist";
    names(postgres_error(&url_of("nemo")).await, Unavailable, &[unknown]);
    let missing = "database \"atlantis\" does not exist";
    names(postgres_error(&url("atlantis", "keyward")).await, Unavailable, &[missing]);
    database.sql("CREATE USER reader").unwrap();
    let forbidden = "permission denied for schema public";
    names(postgres_error(&url_of("reader")).await, Unavailable, &[forbidden]);
}

#[tokio::test]
async fn redis_that_refuses_a_client_is_quoted() {
    let Some(server) = redis::Options::default().durable().tcp().start() else { return };
    let address = server.url();
    let address = address.trim_start_matches("redis://");
    server.call(&["ACL", "SETUSER", "app", "on", ">another", "~*", "&*", "+@all"]);
    server.call(&["ACL", "SETUSER", "guest", "on", "nopass", "~*", "&*", "+@read"]);
    let url = |user| format!("redis://{user}:{PASSWORD}@{address}");

    names(redis_error(&url("app")).await, Unavailable, &["WRONGPASS"]);
    let forbidden = "no permissions to run the 'info' command";
    names(redis_error(&url("guest")).await, Unavailable, &[forbidden]);
}

const PASSWORD: &str = "hunter2";
/// Longer than any test runs.
const NEVER: Duration = Duration::from_secs(3_600);
