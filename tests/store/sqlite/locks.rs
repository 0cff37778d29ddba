use std::time::Duration;

use keyward::{
    Actor, ErrorKind, NewKey, VerifyError, VerifyRequest,
    store::{SqliteOptions, StoreErrorKind},
};

use sqlx::Connection;

use super::{issue, other_connection, service, sql};
use crate::support::{owner, stores::SqliteFile};

/// Short enough to wait for, and long enough for a busy machine to open a file.
const SHORT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_change_during_a_lock_is_unavailable_and_succeeds_after_it() {
    let file = SqliteFile::new();
    let keys = service(&file, SqliteOptions::new().timeout(SHORT)).await;
    let issued = issue(&keys).await;
    let mut other = other_connection(&file).await;
    sql(&mut other, "BEGIN IMMEDIATE").await;

    let ada = owner("acme", "ada");
    let rejected = keys.issue(NewKey::new(&ada, "ci").unwrap(), &Actor::system("test")).await;
    assert_eq!(rejected.unwrap_err().kind(), ErrorKind::Unavailable);
    let rejected = keys.revoke(&ada, issued.key.id, "stolen", &Actor::system("test")).await;
    assert_eq!(rejected.unwrap_err().kind(), ErrorKind::Unavailable);
    // Readers do not wait for writers.
    assert!(keys.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());

    sql(&mut other, "ROLLBACK").await;
    assert_eq!(keys.list(&ada, keyward::manage::Page::first()).await.unwrap().keys.len(), 1);
    keys.revoke(&ada, issued.key.id, "stolen", &Actor::system("test")).await.unwrap();
    assert!(keys.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_err());
}

#[tokio::test]
async fn an_exclusively_locked_file_is_unavailable_until_it_is_unlocked() {
    let file = SqliteFile::new();
    let issued = issue(&service(&file, SqliteOptions::new()).await).await;
    let mut other = other_connection(&file).await;
    sql(&mut other, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").await;
    let rejected = SqliteOptions::new().timeout(SHORT).open(file.path()).await.unwrap_err();
    assert_eq!(rejected.kind(), StoreErrorKind::Unavailable);

    other.close().await.unwrap();
    let keys = service(&file, SqliteOptions::new()).await;
    assert!(keys.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());
}

#[tokio::test]
async fn missing_tables_are_unavailable_and_never_denied() {
    let file = SqliteFile::new();
    let keys = service(&file, SqliteOptions::new()).await;
    let issued = issue(&keys).await;
    sql(&mut other_connection(&file).await, "DROP TABLE keyward_secrets").await;
    let answer = keys.verify(issued.secret.expose(), &VerifyRequest::new()).await;
    assert!(matches!(answer, Err(VerifyError::Unavailable(_))), "{answer:?}");
}
