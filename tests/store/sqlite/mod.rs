//! The SQLite store: its file, its locks, other processes, and damage.

mod damage;
mod file;
mod kill;
mod locks;
mod process;

use keyward::{
    Actor, ApiKeys, NewKey, SqliteStore, accounts::NoAccounts, manage::Issued, model::Limits,
    store::SqliteOptions,
};
use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::support::{format, owner, stores::SqliteFile};

/// Opens a service on a file, as another process would.
async fn service(file: &SqliteFile, options: SqliteOptions) -> ApiKeys {
    let store = options.open(file.path()).await.unwrap();
    keys_on(store)
}

fn keys_on(store: SqliteStore) -> ApiKeys {
    let accounts = NoAccounts::with_limits(Limits::default());
    ApiKeys::builder(store, format()).accounts(accounts).no_cache().build()
}

async fn issue(keys: &ApiKeys) -> Issued {
    let new = NewKey::new(&owner("acme", "ada"), "ci").unwrap();
    keys.issue(new, &Actor::system("test")).await.unwrap()
}

/// Opens a connection that does not belong to the store.
async fn other_connection(file: &SqliteFile) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file.path()).create_if_missing(true);
    options.connect().await.unwrap()
}

async fn sql(connection: &mut SqliteConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}
