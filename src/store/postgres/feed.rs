use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{
    PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{PostgresStore, errors::within, rows::key_id, transaction::Names};
use crate::{
    key::Timestamp,
    lock::lock,
    store::{Changes, Feed, StoreError},
};

impl PostgresStore {
    pub(super) async fn read_changes(&self, after: Option<u64>) -> Result<Changes, StoreError> {
        // One statement sees one state: a purge cannot come between the two tables.
        let sql = "SELECT f.last, f.forgotten, c.number, c.key_id FROM {t}feed f LEFT JOIN LATERAL \
            (SELECT number, key_id FROM {t}changes WHERE number > coalesce($1, f.last) \
            ORDER BY number LIMIT $2) c ON true ORDER BY c.number";
        let rows = sqlx::query_as(self.sql(sql))
            .bind(after.map(|after| i64::try_from(after).unwrap_or(i64::MAX)))
            .bind(PAGE)
            .fetch_all(&self.pool);
        let rows: Vec<(i64, i64, Option<i64>, Option<uuid::Uuid>)> =
            self.within(async { Ok(rows.await?) }).await?;
        let Some(&(last, forgotten, ..)) = rows.first() else {
            return Err(StoreError::corrupt("the row of the change feed is gone"));
        };
        let (last, forgotten) = (last as u64, forgotten as u64);
        let after = after.unwrap_or(last);
        let read = rows.iter().filter_map(|row| row.2).max();
        let cursor = read.map_or(last, |number| number as u64);
        Ok(Changes {
            keys: rows.iter().filter_map(|row| row.3.map(key_id)).collect(),
            cursor,
            // A cursor from the future is one of another database's life.
            missed: after < forgotten || after > last,
            more: cursor < last,
        })
    }

    pub(super) async fn forget_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        let mut change = self.begin().await?;
        let forgotten = self.within(async {
            let sql = "WITH gone AS (DELETE FROM {t}changes WHERE number < coalesce( \
                (SELECT min(number) FROM {t}changes WHERE at >= $1), 9223372036854775807) \
                RETURNING number), \
                mark AS (UPDATE {t}feed SET forgotten = greatest(forgotten, \
                (SELECT max(number) FROM gone)) WHERE EXISTS (SELECT 1 FROM gone)) \
                SELECT count(*) FROM gone";
            let count: i64 = sqlx::query_scalar(self.sql(sql))
                .bind(before.as_unix_micros())
                .fetch_one(&mut *change.tx)
                .await?;
            Ok(count as u32)
        });
        let forgotten = forgotten.await?;
        self.conclude(change, forgotten > 0).await?;
        Ok(forgotten)
    }
}

/// Hears of changes on a connection of its own, from the first time that someone waits for one.
///
/// What it hears is a hint only; the truth is in the table. It trusts its connection no longer than
/// it gets back what it sends itself: behind a pooler LISTEN succeeds and nothing ever comes.
pub(super) struct Listener {
    pool: PgPool,
    names: Arc<Names>,
    timeout: Duration,
    state: Arc<State>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    live: AtomicBool,
    /// Counts what was heard, and every loss of the connection.
    heard: watch::Sender<u64>,
}

impl Listener {
    pub(super) fn new(pool: PgPool, names: Arc<Names>, timeout: Duration) -> Self {
        Self { pool, names, timeout, state: Arc::default(), task: Mutex::default() }
    }

    pub(super) async fn wait(&self, after: u64, at_most: Duration) -> Result<Feed, StoreError> {
        self.ensure_task();
        let end = Instant::now() + at_most;
        let mut heard = self.state.heard.subscribe();
        loop {
            // Looked at after subscribing: what is committed later is heard.
            if self.last_change().await? > after {
                return Ok(self.feed());
            }
            let next = if self.state.live.load(Ordering::Acquire) {
                end
            } else {
                end.min(Instant::now() + POLL)
            };
            let woken = timeout_at(next, heard.changed()).await.is_ok();
            if Instant::now() >= end || (woken && self.state.live.load(Ordering::Acquire)) {
                return Ok(self.feed());
            }
        }
    }

    fn feed(&self) -> Feed {
        if self.state.live.load(Ordering::Acquire) { Feed::Pushed } else { Feed::Polled }
    }

    async fn last_change(&self) -> Result<u64, StoreError> {
        let last =
            sqlx::query_scalar(self.names.sql("SELECT last FROM {t}feed")).fetch_one(&self.pool);
        let last: i64 = within(self.timeout, async { Ok(last.await?) }).await?;
        Ok(last as u64)
    }

    fn ensure_task(&self) {
        let mut task = lock(&self.task);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            let channel = self.names.channel();
            let (pool, state) = (self.pool.clone(), self.state.clone());
            *task = Some(tokio::spawn(listen(pool, channel, self.timeout, state)));
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

async fn listen(pool: PgPool, channel: String, limit: Duration, state: Arc<State>) {
    loop {
        // However the connection ends, something may have been missed.
        let _ = hear(&pool, &channel, limit, &state).await;
        state.live.store(false, Ordering::Release);
        state.heard.send_modify(|heard| *heard += 1);
        sleep(RETRY).await;
    }
}

async fn hear(
    pool: &PgPool,
    channel: &str,
    limit: Duration,
    state: &State,
) -> Result<(), sqlx::Error> {
    let own = PgPoolOptions::new().max_connections(1).acquire_timeout(limit);
    let own = own.connect_lazy_with((*pool.connect_options()).clone());
    let connect = async {
        let mut listener = PgListener::connect_with(&own).await?;
        listener.listen(channel).await?;
        Ok::<_, sqlx::Error>(listener)
    };
    let mut listener = timeout(limit, connect).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
    let token = format!("echo {:p} {:?}", state, Instant::now());
    loop {
        // An echo that goes out by another connection, and has to come in by this one.
        let echo = sqlx::query("SELECT pg_notify($1, $2)").bind(channel).bind(&token).execute(pool);
        timeout(limit, echo).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        let mut deadline = Instant::now() + limit;
        let next_echo = Instant::now() + ECHO;
        let mut answered = false;
        loop {
            match timeout_at(deadline, listener.try_recv()).await {
                Ok(Ok(Some(notification))) if notification.payload() == token => {
                    answered = true;
                    deadline = next_echo;
                    state.live.store(true, Ordering::Release);
                    state.heard.send_modify(|heard| *heard += 1);
                }
                Ok(Ok(Some(notification))) if notification.payload().is_empty() => {
                    state.heard.send_modify(|heard| *heard += 1);
                }
                // Another node's echo.
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) if answered => break,
                Err(_) => return Ok(()),
            }
        }
    }
}

const PAGE: i64 = 1_000;
/// How often it is looked for changes while nothing can be heard.
const POLL: Duration = Duration::from_millis(250);
const RETRY: Duration = Duration::from_secs(1);
const ECHO: Duration = Duration::from_secs(5);
