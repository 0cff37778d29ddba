use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{
    FromRow, Row,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    PostgresStore, connections::Connections, errors::Failure, rows::key_id, transaction::Names,
};
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
        let sql = self.sql(sql);
        let behind = after.map(|after| i64::try_from(after).unwrap_or(i64::MAX));
        let read = || sqlx::query(sql.clone()).bind(behind).bind(PAGE);
        let rows = self.connections.rows(read).await?;
        let rows = rows.iter().map(FromRow::from_row).collect::<Result<Vec<_>, _>>();
        let rows: Vec<(i64, i64, Option<i64>, Option<uuid::Uuid>)> = rows.map_err(Failure::from)?;
        let Some(&(last, forgotten, ..)) = rows.first() else {
            return Err(no_row());
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
/// it gets back what it sends itself: one that is half closed is silent for ever.
pub(super) struct Listener {
    connections: Connections,
    names: Arc<Names>,
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
    pub(super) fn new(connections: Connections, names: Arc<Names>) -> Self {
        Self { connections, names, state: Arc::default(), task: Mutex::default() }
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
        let sql = self.names.sql("SELECT last FROM {t}feed");
        let rows = self.connections.rows(|| sqlx::query(sql.clone())).await?;
        let last = rows.first().map(|row| row.try_get::<i64, _>("last"));
        Ok(last.ok_or_else(no_row)?.map_err(Failure::from)? as u64)
    }

    fn ensure_task(&self) {
        // A LISTEN through a transaction pooler stays behind on a connection that others get, and
        // sqlx takes the notifications there for the end of its protocol.
        if !self.connections.stays {
            return;
        }
        let mut task = lock(&self.task);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            let channel = self.names.channel();
            let (connections, state) = (self.connections.clone(), self.state.clone());
            *task = Some(tokio::spawn(listen(connections, channel, state)));
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

async fn listen(connections: Connections, channel: String, state: Arc<State>) {
    loop {
        // However the connection ends, something may have been missed.
        let _ = hear(&connections, &channel, &state).await;
        state.live.store(false, Ordering::Release);
        state.heard.send_modify(|heard| *heard += 1);
        sleep(RETRY).await;
    }
}

async fn hear(connections: &Connections, channel: &str, state: &State) -> Result<(), Failure> {
    let Connections { pool, limit, .. } = connections;
    let limit = *limit;
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
        let echo = || sqlx::query("SELECT pg_notify($1, $2)").bind(channel).bind(&token);
        connections.rows(echo).await?;
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
                Ok(Err(error)) => return Err(error.into()),
                Err(_) if answered => break,
                Err(_) => return Ok(()),
            }
        }
    }
}

fn no_row() -> StoreError {
    StoreError::corrupt("the row of the change feed is gone")
}

const PAGE: i64 = 1_000;
/// How often it is looked for changes while nothing can be heard.
const POLL: Duration = Duration::from_millis(250);
const RETRY: Duration = Duration::from_secs(1);
const ECHO: Duration = Duration::from_secs(5);
