use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{
    Row,
    postgres::{PgListener, PgPoolOptions, PgRow},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};
use uuid::Uuid;

use super::{
    PostgresStore,
    connections::Connections,
    errors::{Failure, with_timeout},
    rows::key_id,
    transaction::Names,
};
use crate::{
    model::Timestamp,
    store::{ChangeBatch, FeedMode, StoreError, feed_position::FeedPosition},
    system::lock,
};

impl PostgresStore {
    pub(super) async fn read_changes(&self, after: Option<u64>) -> Result<ChangeBatch, StoreError> {
        // One statement sees one state: a purge cannot come between the two tables.
        let sql = "SELECT f.last, f.tag AS last_tag, f.forgotten, f.forgotten_tag, \
            m.number AS marked, m.tag AS marked_tag, c.number, c.tag, c.key_id FROM {t}feed f \
            LEFT JOIN {t}changes m ON m.number = $1 LEFT JOIN LATERAL \
            (SELECT number, tag, key_id FROM {t}changes WHERE number > coalesce($1, f.last) \
            ORDER BY number LIMIT $2) c ON true ORDER BY c.number";
        let sql = self.sql(sql);
        let after = after.map(FeedPosition::from_cursor);
        let behind = after.map(|after| after.number as i64);
        let read = || sqlx::query(sql.clone()).bind(behind).bind(PAGE);
        let rows = self.connections.rows(read).await?;
        let ends = rows.first().ok_or_else(no_row)?;
        let (last, gone) = (place(ends, LAST)?, place(ends, ["forgotten", "forgotten_tag"])?);
        let known = [last, gone, place(ends, ["marked", "marked_tag"])?];
        let end = rows.last().map_or(Ok(None), |row| place(row, ["number", "tag"]))?;
        let cursor = end.or(last).ok_or_else(no_row)?;
        let keys = rows.iter().map(|row| row.try_get::<Option<Uuid>, _>("key_id"));
        let keys = keys.collect::<Result<Vec<_>, _>>().map_err(Failure::from)?;
        Ok(ChangeBatch {
            keys: keys.into_iter().flatten().map(key_id).collect(),
            cursor: cursor.cursor(),
            missed: after.is_some() && !known.contains(&after),
            more: Some(cursor.number) < last.map(|last| last.number),
        })
    }

    pub(super) async fn forget_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        let mut change = self.begin().await?;
        let forgotten = with_timeout(change.left(), async {
            let sql = "WITH gone AS (DELETE FROM {t}changes WHERE number < coalesce( \
                (SELECT min(number) FROM {t}changes WHERE at >= $1), 9223372036854775807) \
                RETURNING number, tag), \
                mark AS (UPDATE {t}feed SET forgotten = g.number, forgotten_tag = g.tag \
                FROM (SELECT number, tag FROM gone ORDER BY number DESC LIMIT 1) g \
                WHERE forgotten < g.number) \
                SELECT count(*) FROM gone";
            let count: i64 = self
                .names
                .query_scalar(sql)
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

    pub(super) async fn wait_for_changes(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        self.ensure_task();
        let end = Instant::now() + at_most;
        let mut heard = self.state.heard.subscribe();
        loop {
            // Looked at after subscribing: what is committed later is heard.
            if self.last_change().await? != after {
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

    fn feed(&self) -> FeedMode {
        if self.state.live.load(Ordering::Acquire) { FeedMode::Pushed } else { FeedMode::Polled }
    }

    async fn last_change(&self) -> Result<u64, StoreError> {
        let sql = self.names.sql("SELECT last, tag AS last_tag FROM {t}feed");
        let rows = self.connections.rows(|| sqlx::query(sql.clone())).await?;
        let last = rows.first().map_or(Ok(None), |row| place(row, LAST))?;
        Ok(last.ok_or_else(no_row)?.cursor())
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

/// What stands in two columns, if anything does.
fn place(row: &PgRow, [number, tag]: [&str; 2]) -> Result<Option<FeedPosition>, Failure> {
    let (number, tag): (Option<i64>, Option<i64>) = (row.try_get(number)?, row.try_get(tag)?);
    Ok(number.zip(tag).map(|(number, tag)| FeedPosition { number: number as u64, tag: tag as u64 }))
}

fn no_row() -> StoreError {
    StoreError::corrupt("the row of the change feed is gone")
}

/// The columns of the last change.
const LAST: [&str; 2] = ["last", "last_tag"];
const PAGE: i64 = 1_000;
/// How often it is looked for changes while nothing can be heard.
const POLL: Duration = Duration::from_millis(250);
const RETRY: Duration = Duration::from_secs(1);
const ECHO: Duration = Duration::from_secs(5);
