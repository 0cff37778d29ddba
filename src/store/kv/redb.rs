use std::{ops::Range, path::Path, sync::Arc};

use async_trait::async_trait;
use redb::{Database, ReadOnlyTable, ReadableDatabase, TableDefinition};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task::spawn_blocking,
};

use super::{KvEngine, KvError, KvMode, KvOrder, KvPair, KvTransaction};
use crate::store::StoreError;

/// The engine [redb](https://docs.rs/redb): one durable file, in pure Rust. Clones share it.
///
/// One process has the file open; a second one is refused. Writes come one after the other, and a commit is synced to
/// disk before it is acknowledged. Reads do not wait for writes; a page that is not in redb's memory is read from the
/// disk while the task waits.
#[derive(Clone)]
pub struct RedbEngine {
    database: Arc<Database>,
    /// Held from the first read of a write to its commit: writes never conflict.
    writer: Arc<Mutex<()>>,
}

impl RedbEngine {
    /// Opens a file, and creates it if it does not exist. Keyward's data are in a table of their own, so a host may keep
    /// tables in the same file: see [`from_database`](Self::from_database).
    ///
    /// # Errors
    /// *Unavailable* if the file cannot be opened, or another process has it open.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let open = spawn_blocking(move || Database::create(path).map_err(failed));
        Self::from_database(Arc::new(open.await.map_err(StoreError::unavailable)??)).await
    }

    /// Uses a database that the host has opened. The host must not hold a write transaction for long: changes of keys
    /// wait for it.
    ///
    /// # Errors
    /// *Unavailable* if the table of keys cannot be created.
    pub async fn from_database(database: Arc<Database>) -> Result<Self, StoreError> {
        let created = database.clone();
        let create = spawn_blocking(move || {
            let transaction = created.begin_write().map_err(failed)?;
            transaction.open_table(TABLE).map_err(failed)?;
            transaction.commit().map_err(failed)
        });
        create.await.map_err(StoreError::unavailable)??;
        Ok(Self { database, writer: Arc::default() })
    }
}

impl std::fmt::Debug for RedbEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbEngine").finish_non_exhaustive()
    }
}

#[async_trait]
impl KvEngine for RedbEngine {
    async fn begin(&self, mode: KvMode) -> Result<Box<dyn KvTransaction>, StoreError> {
        let writer = match mode {
            KvMode::Read => None,
            KvMode::Write => Some(self.writer.clone().lock_owned().await),
        };
        let snapshot = self.database.begin_read().map_err(failed)?;
        let table = snapshot.open_table(TABLE).map_err(failed)?;
        let database = self.database.clone();
        Ok(Box::new(RedbTransaction { table, database, writer, writes: Vec::new() }))
    }
}

/// A snapshot, and what is written at the commit.
struct RedbTransaction {
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
    database: Arc<Database>,
    writer: Option<OwnedMutexGuard<()>>,
    writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

#[async_trait]
impl KvTransaction for RedbTransaction {
    async fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let found = self.table.get(key).map_err(failed)?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    async fn scan(
        &mut self,
        range: Range<&[u8]>,
        order: KvOrder,
        limit: usize,
    ) -> Result<Vec<KvPair>, KvError> {
        let mut entries = self.table.range::<&[u8]>(range).map_err(failed)?;
        let mut pairs = Vec::new();
        while pairs.len() < limit {
            let next = match order {
                KvOrder::Ascending => entries.next(),
                KvOrder::Descending => entries.next_back(),
            };
            let Some(entry) = next else { break };
            let (key, value) = entry.map_err(failed)?;
            pairs.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(pairs)
    }

    fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.writes.push((key, value));
    }

    async fn commit(self: Box<Self>) -> Result<(), KvError> {
        let Self { database, writer, writes, .. } = *self;
        if writes.is_empty() {
            return Ok(());
        }
        // The closure has the right to write: it runs to its end also if this future is dropped.
        let commit = spawn_blocking(move || {
            let _writer = writer;
            let transaction = database.begin_write().map_err(failed)?;
            {
                let mut table = transaction.open_table(TABLE).map_err(failed)?;
                for (key, value) in &writes {
                    match value {
                        Some(value) => drop(table.insert(&key[..], &value[..]).map_err(failed)?),
                        None => drop(table.remove(&key[..]).map_err(failed)?),
                    }
                }
            }
            transaction.commit().map_err(StoreError::outcome_unknown)
        });
        Ok(commit.await.map_err(StoreError::outcome_unknown)??)
    }
}

/// The error of a call that changed nothing.
fn failed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        error @ redb::Error::Corrupted(_) => StoreError::corrupt(error),
        error => StoreError::unavailable(error),
    }
}

const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("keyward");
