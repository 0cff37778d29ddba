use std::time::Duration;

use sqlx::{Executor, Row};

use super::{
    PostgresStore,
    errors::{Failure, with_timeout},
};
use crate::store::StoreError;

/// Brings the tables up to date. Any number of nodes may start at once: one does it, the others
/// wait for it and find it done.
pub(super) async fn migrate(store: &PostgresStore, wanted: bool) -> Result<(), StoreError> {
    let version = version(store).await?;
    if version > MIGRATIONS.len() {
        return Err(newer(version));
    }
    if version == MIGRATIONS.len() {
        return Ok(());
    }
    if !wanted {
        return Err(StoreError::unavailable(format!(
            "the tables are at version {version} of {}: run the files in migrations/postgres",
            MIGRATIONS.len()
        )));
    }
    // Not within the limit of a call: tables may be large, and other nodes be at it.
    let mut change = store.begin_within(LIMIT).await?;
    with_timeout(change.left(), async {
        let lock = store.names.lock(&["migration"]);
        let sql = "SELECT pg_advisory_xact_lock($1)";
        store.names.query(sql).bind(lock).execute(&mut *change.tx).await?;
        let there = "SELECT to_regclass('{t}migrations') IS NOT NULL";
        let done: i64 = match store.names.query_scalar(there).fetch_one(&mut *change.tx).await? {
            true => {
                let read = "SELECT coalesce(max(version), 0) FROM {t}migrations";
                store.names.query_scalar(read).fetch_one(&mut *change.tx).await?
            }
            false => 0,
        };
        for migration in MIGRATIONS.iter().skip(done as usize) {
            change.tx.execute(sqlx::raw_sql(store.sql(&template(migration)))).await?;
        }
        Ok(())
    })
    .await?;
    store.conclude(change, true).await
}

async fn version(store: &PostgresStore) -> Result<usize, StoreError> {
    let table = store.sql("SELECT 1 WHERE to_regclass('{t}migrations') IS NOT NULL");
    if store.connections.rows(|| sqlx::query(table.clone())).await?.is_empty() {
        return Ok(0);
    }
    let read = store.sql("SELECT coalesce(max(version), 0) AS version FROM {t}migrations");
    let rows = store.connections.rows(|| sqlx::query(read.clone())).await?;
    let version = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>("version"));
    Ok(version.map_err(Failure::from)? as usize)
}

/// A file as a statement for any schema and prefix. It is plain SQL, so that a host can run it itself;
/// each one marks itself as done.
fn template(migration: &str) -> String {
    // An index is in the schema of its table, and cannot be told to be.
    migration.replace("INDEX keyward_", "INDEX {p}").replace("keyward_", "{t}")
}

fn newer(version: usize) -> StoreError {
    StoreError::unavailable(format!(
        "the tables are at version {version}, this crate knows {}: upgrade keyward on this node",
        MIGRATIONS.len()
    ))
}

const LIMIT: Duration = Duration::from_secs(600);
const MIGRATIONS: &[&str] = &[include_str!("../../../migrations/postgres/0001_keyward.sql")];
