//! The whole contract over an ordered transactional key–value engine.

mod feed;
mod keys;
mod layout;
#[cfg(feature = "redb")]
mod redb;
mod subjects;

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use async_trait::async_trait;
use tokio::{sync::watch, task::yield_now};

use self::layout::after_prefix;
#[cfg(feature = "redb")]
pub use self::redb::RedbEngine;
use super::StoreError;

/// Stores keys in an ordered transactional key–value engine. Clones share the engine.
///
/// The engine needs five small methods: [`KvEngine::begin`], and those of [`KvTransaction`]. With the feature `redb`,
/// `RedbEngine` keeps everything in one durable file.
///
/// Keys and events are [documents](super::KeyDocument) in JSON. Changes made through this store and its clones wake
/// waiting readers of the change feed; changes by other processes on the same engine are polled every 50 ms. Every
/// change writes the position of the feed, so an engine with optimistic transactions commits one change at a time.
///
/// # Examples
/// ```no_run
/// # #[cfg(feature = "redb")]
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use keyward::{ApiKeys, KeyFormat, store::{KvStore, RedbEngine}};
///
/// let store = KvStore::new(RedbEngine::open("/var/lib/app/keys.redb").await?);
/// let keys = ApiKeys::builder(store, KeyFormat::builder("lc").build()?).build();
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct KvStore {
    engine: Arc<dyn KvEngine>,
    /// Counts commits, to wake up callers that wait for a change.
    commits: watch::Sender<u64>,
}

/// An ordered key–value engine with serializable transactions.
///
/// | engine | what an adapter does |
/// |---|---|
/// | redb | Takes a snapshot, and for [`Write`](KvMode::Write) the only right to write. Nothing conflicts. |
/// | FoundationDB | Its transactions are serializable. Returns [`Conflict`](KvError::Conflict) for the error 1020, `not_committed`. |
/// | TiKV | Its transactions have snapshot isolation only: the adapter locks what a [`Write`](KvMode::Write) transaction reads. |
#[async_trait]
pub trait KvEngine: Send + Sync + 'static {
    /// Begins a transaction, which sees all transactions that were committed before.
    ///
    /// A transaction that is dropped before its commit MUST leave no trace.
    async fn begin(&self, mode: KvMode) -> Result<Box<dyn KvTransaction>, StoreError>;
}

/// A transaction of a [`KvEngine`].
///
/// It MUST be serializable: if it commits, then everything that it read was the latest committed state at one instant,
/// and everything that it wrote became visible at that instant. An engine that cannot keep this promise returns
/// [`KvError::Conflict`], from any method, and the store starts the transaction again.
#[async_trait]
pub trait KvTransaction: Send {
    /// Returns the committed value of a key.
    async fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// Returns up to `limit` committed pairs whose keys are in the range, in ascending order of the bytes of their keys,
    /// or in descending order.
    async fn scan(
        &mut self,
        range: Range<&[u8]>,
        order: KvOrder,
        limit: usize,
    ) -> Result<Vec<KvPair>, KvError>;

    /// Puts a value, or deletes the key if there is none, at the commit. The store writes each key at most once.
    fn write(&mut self, key: Vec<u8>, value: Option<Vec<u8>>);

    /// Commits. An `Ok` means that all writes survive a crash.
    async fn commit(self: Box<Self>) -> Result<(), KvError>;
}

/// A key and its value.
pub type KvPair = (Vec<u8>, Vec<u8>);

/// What a transaction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvMode {
    /// It only reads.
    Read,
    /// It reads and writes.
    Write,
}

/// The order of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvOrder {
    /// From the lowest key on.
    Ascending,
    /// From the highest key on.
    Descending,
}

/// Why a transaction failed.
#[derive(Clone, Debug)]
pub enum KvError {
    /// Another transaction changed what this one read. Nothing was written.
    Conflict,
    /// The engine failed.
    Failed(StoreError),
}

impl From<StoreError> for KvError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl KvStore {
    /// Creates a store over an engine. What the engine contains is used, or else the store is empty.
    pub fn new(engine: impl KvEngine) -> Self {
        Self { engine: Arc::new(engine), commits: watch::Sender::default() }
    }

    async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&mut Work) -> Result<T, KvError> + Clone,
    ) -> Result<T, StoreError> {
        self.run(KvMode::Read, work).await
    }

    async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut Work) -> Result<T, KvError> + Clone,
    ) -> Result<T, StoreError> {
        let done = self.run(KvMode::Write, work).await?;
        self.commits.send_modify(|commits| *commits += 1);
        Ok(done)
    }

    /// Runs a transaction until it does not conflict with another one.
    async fn run<T>(
        &self,
        mode: KvMode,
        work: impl AsyncFnOnce(&mut Work) -> Result<T, KvError> + Clone,
    ) -> Result<T, StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            let transaction = self.engine.begin(mode).await?;
            let mut begun = Work { transaction, written: BTreeMap::new() };
            let done = match work.clone()(&mut begun).await {
                Ok(done) => begun.commit().await.map(|()| done),
                Err(error) => Err(error),
            };
            match done {
                Ok(done) => return Ok(done),
                Err(KvError::Conflict) => yield_now().await,
                Err(KvError::Failed(error)) => return Err(error),
            }
        }
        Err(StoreError::unavailable("concurrent transactions won every attempt"))
    }
}

impl std::fmt::Debug for KvStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvStore").finish_non_exhaustive()
    }
}

/// A transaction and what it is going to write. `get` sees these writes; `scan` does not.
struct Work {
    transaction: Box<dyn KvTransaction>,
    written: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Work {
    async fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        match self.written.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.transaction.get(key).await,
        }
    }

    /// Returns the first pairs whose keys begin with a prefix.
    async fn scan_prefix(&mut self, prefix: &[u8], limit: usize) -> Result<Vec<KvPair>, KvError> {
        let end = after_prefix(prefix);
        self.scan(prefix..&end, KvOrder::Ascending, limit).await
    }

    async fn scan(
        &mut self,
        range: Range<&[u8]>,
        order: KvOrder,
        limit: usize,
    ) -> Result<Vec<KvPair>, KvError> {
        if range.start >= range.end || limit == 0 {
            return Ok(Vec::new());
        }
        self.transaction.scan(range, order, limit).await
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.written.insert(key, Some(value));
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.written.insert(key, None);
    }

    async fn commit(mut self) -> Result<(), KvError> {
        for (key, value) in self.written {
            self.transaction.write(key, value);
        }
        self.transaction.commit().await
    }
}

/// Each lost attempt means that another transaction was committed, so only a storm of changes gets this far.
const MAX_ATTEMPTS: usize = 10_000;
