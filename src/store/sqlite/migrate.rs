use sqlx::{Executor, SqliteConnection};

use super::{SqliteStore, errors::Failure, statements::Prefix};
use crate::store::StoreError;

impl SqliteStore {
    /// Brings the tables up to date. Any number of processes may open a file at once: one of them
    /// does it, the others wait for its lock and find it done.
    pub(super) async fn migrate(&self, prefix: &Prefix) -> Result<(), StoreError> {
        let read = self.read(async |connection, _| version(connection, prefix).await);
        if !is_behind(read.await?)? {
            return Ok(());
        }
        self.change(async |change| {
            let done = version(change.connection(), prefix).await?;
            if !is_behind(done)? {
                return Ok(());
            }
            let create = "CREATE TABLE IF NOT EXISTS {t}migrations \
                (version INTEGER NOT NULL PRIMARY KEY) STRICT";
            change.connection().execute(prefix.sql(create)).await?;
            for (number, migration) in (1i64..).zip(MIGRATIONS).skip(done) {
                change.connection().execute(sqlx::raw_sql(prefix.sql(migration))).await?;
                let mark = prefix.sql("INSERT INTO {t}migrations (version) VALUES (?1)");
                sqlx::query(mark).bind(number).execute(change.connection()).await?;
            }
            Ok(())
        })
        .await
    }
}

/// How many of the migrations have been made.
async fn version(connection: &mut SqliteConnection, prefix: &Prefix) -> Result<usize, Failure> {
    let table =
        prefix.sql("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '{t}migrations')");
    if !sqlx::query_scalar(table).fetch_one(&mut *connection).await? {
        return Ok(0);
    }
    let version = prefix.sql("SELECT ifnull(max(version), 0) FROM {t}migrations");
    let version: i64 = sqlx::query_scalar(version).fetch_one(connection).await?;
    Ok(usize::try_from(version).map_err(StoreError::corrupt)?)
}

fn is_behind(version: usize) -> Result<bool, StoreError> {
    let known = MIGRATIONS.len();
    if version > known {
        return Err(StoreError::unavailable(format!(
            "the tables are at version {version}, this crate knows {known}: upgrade keyward here"
        )));
    }
    Ok(version < known)
}

const MIGRATIONS: &[&str] = &[include_str!("../../../migrations/sqlite/0001_keyward.sql")];
