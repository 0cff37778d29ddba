use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::{PgPool, SqlStr};
use tokio::{sync::oneshot, time::timeout};

use super::{
    errors::{Failure, TimedOut, within},
    reads::KEY_WITH_FORMER,
    rows::found,
    transaction::Names,
};
use crate::{
    hash::Digest,
    lock::lock,
    store::{Found, StoreError},
};

/// Look-ups by digest. One that comes alone goes at once; those that come while enough queries are
/// on their way wait, and share the next one.
pub(super) struct Lookup {
    pool: PgPool,
    sql: SqlStr,
    timeout: Duration,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    queries: usize,
}

struct Waiting {
    digests: Vec<Digest>,
    answer: oneshot::Sender<Result<Option<Found>, StoreError>>,
}

impl Lookup {
    pub(super) fn new(pool: PgPool, names: &Names, timeout: Duration) -> Self {
        let sql = format!(
            "SELECT {KEY_WITH_FORMER}, s.digest, s.ends_at \
             FROM {{t}}secrets s JOIN {{t}}keys k ON k.id = s.key_id WHERE s.digest = ANY($1)"
        );
        Self { pool, sql: names.sql(&sql), timeout, queue: Mutex::default() }
    }

    pub(super) async fn find(
        self: &Arc<Self>,
        digests: &[Digest],
    ) -> Result<Option<Found>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let another = {
            let mut queue = lock(&self.queue);
            queue.waiting.push_back(Waiting { digests: digests.to_vec(), answer });
            let another = queue.queries < MAX_QUERIES;
            queue.queries += usize::from(another);
            another
        };
        if another {
            // A task of its own: whoever began the query may go away while others wait for it.
            tokio::spawn(Query(self.clone()).run());
        }
        match timeout(self.timeout, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::unavailable("the runtime is shutting down")),
            Err(_) => Err(StoreError::unavailable(TimedOut(self.timeout))),
        }
    }

    /// The next ones to ask for; those who no longer wait are left out. `None` if nobody waits.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut queue = lock(&self.queue);
        let some = queue.waiting.len().min(MAX_BATCH);
        let batch: Vec<_> = queue.waiting.drain(..some).collect();
        (!batch.is_empty()).then_some(batch)
    }

    async fn ask(&self, batch: &[Waiting]) -> Result<HashMap<Digest, Found>, StoreError> {
        let waiting = batch.iter().filter(|waiting| !waiting.answer.is_closed());
        let digests = waiting.flat_map(|waiting| &waiting.digests);
        let digests: Vec<Vec<u8>> = digests.map(|digest| digest.to_bytes().to_vec()).collect();
        let rows = sqlx::query(self.sql.clone()).bind(digests).fetch_all(&self.pool);
        let found = async {
            let found = rows.await?.iter().map(found).collect::<Result<Vec<_>, Failure>>()?;
            Ok(found.into_iter().map(|found| (found.digest, found)).collect())
        };
        within(self.timeout, found).await
    }
}

/// One of the queries that may be on their way at the same time.
struct Query(Arc<Lookup>);

impl Query {
    async fn run(self) {
        while let Some(batch) = self.0.next() {
            let found = self.0.ask(&batch).await;
            for Waiting { digests, answer } in batch {
                let pick = |found: &HashMap<Digest, Found>| {
                    digests.iter().find_map(|digest| found.get(digest)).cloned()
                };
                // Whoever does not wait any more needs no answer.
                let _ = answer.send(found.as_ref().map(pick).map_err(StoreError::clone));
            }
        }
    }
}

/// Whatever ends a query, another one may begin, and does if anyone came since it looked last.
impl Drop for Query {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        queue.queries -= 1;
    }
}

/// Few queries at a time make the shared ones larger.
const MAX_QUERIES: usize = 4;
const MAX_BATCH: usize = 256;
