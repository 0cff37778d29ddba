use std::{
    fs,
    io::{Seek, SeekFrom, Write},
};

use keyward::{
    ErrorKind, SqliteStore, VerifyError, VerifyRequest,
    store::{SqliteOptions, StoreErrorKind},
};

use super::{issue, keys_on, other_connection, service, sql};
use crate::{
    store::spoils_no_other_key,
    support::{owner, stores::SqliteFile},
};

#[tokio::test]
async fn a_file_that_is_not_a_database_is_rejected_and_not_changed() {
    let file = SqliteFile::new();
    let letter = "Dear Ada, this is not a database. ".repeat(100);
    fs::write(file.path(), &letter).unwrap();
    let rejected = SqliteStore::open(file.path()).await.unwrap_err();
    assert_eq!(rejected.kind(), StoreErrorKind::Corrupt);
    assert_eq!(fs::read_to_string(file.path()).unwrap(), letter);
}

/// Verification reports *unavailable* and does not panic.
#[tokio::test]
async fn a_damaged_row_is_corrupt_and_never_denied() {
    for damage in [
        "UPDATE keyward_keys SET access = 'builds:read'",
        "UPDATE keyward_keys SET access = '[\"\"]'",
        "UPDATE keyward_keys SET access = '{}'",
        "UPDATE keyward_keys SET networks = '[\"everywhere\"]'",
        "UPDATE keyward_keys SET limits = '{\"rate\": -1}'",
        "UPDATE keyward_keys SET metadata = '[1'",
        "UPDATE keyward_keys SET name = ''",
        "UPDATE keyward_keys SET account = ''",
        "UPDATE keyward_keys SET expires_at = 9223372036854775807",
        "UPDATE keyward_keys SET revision = -1",
        "UPDATE keyward_keys SET revoked_at = 1",
        "UPDATE keyward_keys SET revoked_reason = 'stolen'",
        "UPDATE keyward_keys SET retiring_hint = 'lnos_live_a1b2c3d4'",
        "UPDATE keyward_keys SET retiring_ends_at = 1",
        "UPDATE keyward_keys SET last_used_ip = 'localhost'",
        "UPDATE keyward_keys SET rotation_token = x'00'",
        "UPDATE keyward_keys SET issue_token = x'00'",
        "UPDATE keyward_keys SET secret_first_used_at = -1",
    ] {
        let file = SqliteFile::new();
        let keys = service(&file, SqliteOptions::new()).await;
        let issued = issue(&keys).await;
        let mut connection = other_connection(&file).await;
        sql(&mut connection, "PRAGMA ignore_check_constraints = ON").await;
        sql(&mut connection, damage).await;
        match keys.verify(issued.secret.expose(), &VerifyRequest::new()).await {
            Err(VerifyError::Unavailable(error)) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage}");
            }
            other => panic!("{damage}: {other:?}"),
        }
        if !damage.contains("account") {
            let others = [issue(&keys).await.key.id, issue(&keys).await.key.id];
            spoils_no_other_key(&keys, &owner("acme", "ada"), issued.key.id, &others, damage).await;
        }
    }
}

#[tokio::test]
async fn a_damaged_page_is_corrupt_and_never_denied() {
    let file = SqliteFile::new();
    let issued = issue(&service(&file, SqliteOptions::new()).await).await;
    let mut connection = other_connection(&file).await;
    sql(&mut connection, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    drop(connection);
    let mut raw = fs::OpenOptions::new().write(true).open(file.path()).unwrap();
    // Everything but the header and the schema on the first page.
    raw.seek(SeekFrom::Start(4_096)).unwrap();
    let len = fs::metadata(file.path()).unwrap().len() - 4_096;
    raw.write_all(&vec![0xA5; usize::try_from(len).unwrap()]).unwrap();
    drop(raw);

    let error = match SqliteStore::open(file.path()).await {
        Err(error) => error.kind(),
        Ok(store) => {
            let keys = keys_on(store);
            let error = keys.get(&owner("acme", "ada"), issued.key.id).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            let answer = keys.verify(issued.secret.expose(), &VerifyRequest::new()).await;
            assert!(matches!(answer, Err(VerifyError::Unavailable(_))), "{answer:?}");
            StoreErrorKind::Corrupt
        }
    };
    assert_eq!(error, StoreErrorKind::Corrupt);
}
