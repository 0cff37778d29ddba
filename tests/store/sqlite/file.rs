use keyward::{
    ErrorKind, SqliteStore, VerifyRequest,
    store::{SqliteOptions, StoreErrorKind},
};
use sqlx::Row;
use std::{fs, os::unix::fs::PermissionsExt};

use super::{issue, keys_on, other_connection, process, service, sql};
use crate::support::{owner, stores::SqliteFile};

#[tokio::test]
async fn a_new_file_and_its_log_are_readable_by_their_owner_only() {
    let file = SqliteFile::new();
    let keys = service(&file, SqliteOptions::new()).await;
    let _issued = issue(&keys).await;
    let mut files = 0;
    for entry in fs::read_dir(file.path().parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        files += 1;
    }
    assert_eq!(files, 3, "the file, its log, and the log's index");
}

#[tokio::test]
async fn a_store_in_the_services_file_does_not_touch_other_tables() {
    let file = SqliteFile::new();
    let mut host = other_connection(&file).await;
    sql(&mut host, "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, note TEXT)").await;
    sql(&mut host, "INSERT INTO _sqlx_migrations VALUES (1, 'the host''s own')").await;
    sql(&mut host, "CREATE TABLE keys (id INTEGER PRIMARY KEY)").await;
    let keys = service(&file, SqliteOptions::new().prefix("api_")).await;
    let issued = issue(&keys).await;
    assert!(keys.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());

    let rows = sqlx::query("SELECT version, note FROM _sqlx_migrations")
        .fetch_all(&mut host)
        .await
        .unwrap();
    let rows: Vec<(i64, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(rows, [(1, "the host's own".to_owned())]);
    let tables = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'index') \
        AND name NOT LIKE 'api\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut host).await.unwrap();
    assert_eq!(tables, ["_sqlx_migrations", "keys"]);
}

#[tokio::test]
async fn prefixes_keep_services_in_one_file_apart() {
    let file = SqliteFile::new();
    let (one, other) = (SqliteOptions::new().prefix("one_"), SqliteOptions::new().prefix("two_"));
    let (one, other) = (service(&file, one).await, service(&file, other).await);
    let issued = issue(&one).await;
    assert!(one.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());
    assert!(other.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_err());
    let missing = other.get(&owner("acme", "ada"), issued.key.id).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_prefix_that_could_inject_sql_is_rejected() {
    let file = SqliteFile::new();
    for prefix in
        ["", "a b", "a\"b", "a;--", "Api_", "1st_", "_x", "sqlite_x", "ä", &"a".repeat(41)]
    {
        for opened in [
            SqliteOptions::new().prefix(prefix).open(file.path()).await,
            SqliteOptions::new().prefix(prefix).in_memory().await,
        ] {
            assert_eq!(opened.unwrap_err().kind(), StoreErrorKind::Configuration, "{prefix:?}");
        }
        assert!(!file.path().exists());
    }
}

#[tokio::test]
async fn tables_of_a_newer_version_are_rejected_and_not_changed() {
    let file = SqliteFile::new();
    drop(SqliteStore::open(file.path()).await.unwrap());
    sql(
        &mut other_connection(&file).await,
        "INSERT INTO keyward_migrations (version) VALUES (4711)",
    )
    .await;
    let rejected = SqliteStore::open(file.path()).await.unwrap_err();
    assert_eq!(rejected.kind(), StoreErrorKind::Unavailable);
    let why = rejected.to_string();
    assert!(why.contains("4711") && why.contains("upgrade keyward"), "{why}");
}

#[tokio::test]
async fn acknowledged_changes_are_there_after_the_file_is_reopened() {
    let file = SqliteFile::new();
    let issued = issue(&service(&file, SqliteOptions::new()).await).await;
    let again = service(&file, SqliteOptions::new()).await;
    assert!(again.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());
}

#[tokio::test]
async fn file_names_that_are_special_to_sqlite_are_files() {
    let folder = tempfile::tempdir().unwrap();
    for name in [":memory:", "file:x?mode=memory", "a?b#c", "ü %41.db"] {
        let path = folder.path().join(name);
        let issued = issue(&keys_on(SqliteStore::open(&path).await.unwrap())).await;
        assert!(path.is_file(), "{name}");
        let again = keys_on(SqliteStore::open(&path).await.unwrap());
        assert!(
            again.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_missing_folder_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let rejected = SqliteStore::open(folder.path().join("missing/keys.db")).await.unwrap_err();
    assert_eq!(rejected.kind(), StoreErrorKind::Unavailable);
    let why = rejected.to_string();
    assert!(why.contains("missing/keys.db"), "{why}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_and_written_is_rejected_when_it_is_opened() {
    let file = SqliteFile::new();
    drop(SqliteStore::open(file.path()).await.unwrap());
    for mode in [0o444, 0o222] {
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        let mut child = process::start_unprivileged("file::opens_a_forbidden_file", &file.path());
        assert!(child.wait().unwrap().success(), "mode {mode:o}");
    }
}

/// Runs in a process without the privileges of root.
#[tokio::test]
#[ignore = "started by the test above"]
async fn opens_a_forbidden_file() {
    let rejected = SqliteStore::open(process::file()).await.unwrap_err();
    assert_eq!(rejected.kind(), StoreErrorKind::Unavailable);
    let text = rejected.to_string();
    assert!(text.contains("keys.db to read and write: Permission denied"), "{text}");
}
