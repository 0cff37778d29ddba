use std::time::Duration;

use keyward::{
    Actor, ErrorKind, NewKey, VerifyError, VerifyRequest,
    store::{SqliteOptions, StoreErrorKind},
};

use sqlx::Connection;

use super::{issue, service, sql, stranger};
use crate::support::{owner, stores::SqliteFile};

/// Short for who waits, and long enough for a busy machine to open a file.
const SHORT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_change_behind_a_lock_is_unavailable_and_done_once_the_lock_is_gone() {
    let file = SqliteFile::new();
    let keys = service(&file, SqliteOptions::new().timeout(SHORT)).await;
    let issued = issue(&keys).await;
    let mut other = stranger(&file).await;
    sql(&mut other, "BEGIN IMMEDIATE").await;

    let ada = owner("acme", "ada");
    let refused = keys.issue(NewKey::new(&ada, "ci").unwrap(), &Actor::system("test")).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    let refused = keys.revoke(&ada, issued.key.id, "stolen", &Actor::system("test")).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    // Readers wait for no writer.
    assert!(keys.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());

    sql(&mut other, "ROLLBACK").await;
    assert_eq!(keys.list(&ada, keyward::manage::Page::first()).await.unwrap().keys.len(), 1);
    keys.revoke(&ada, issued.key.id, "stolen", &Actor::system("test")).await.unwrap();
    assert!(keys.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_err());
}

#[tokio::test]
async fn a_file_that_somebody_has_for_himself_is_unavailable_until_he_is_done() {
    let file = SqliteFile::new();
    let issued = issue(&service(&file, SqliteOptions::new()).await).await;
    let mut other = stranger(&file).await;
    sql(&mut other, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").await;
    let refused = SqliteOptions::new().timeout(SHORT).open(file.path()).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Unavailable);

    other.close().await.unwrap();
    let keys = service(&file, SqliteOptions::new()).await;
    assert!(keys.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());
}

#[tokio::test]
async fn tables_that_are_gone_are_unavailable_and_never_deny() {
    let file = SqliteFile::new();
    let keys = service(&file, SqliteOptions::new()).await;
    let issued = issue(&keys).await;
    sql(&mut stranger(&file).await, "DROP TABLE keyward_secrets").await;
    let answer = keys.verify(issued.secret.expose(), &VerifyRequest::new()).await;
    assert!(matches!(answer, Err(VerifyError::Unavailable(_))), "{answer:?}");
}
