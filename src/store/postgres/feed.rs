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
    connections::Connections,
    errors::SqlFailure,
    records::key_id,
    transaction::{PostgresDatabase, Transaction, on_primary},
};
use crate::{
    model::Timestamp,
    store::{
        ChangeBatch, FeedMode, StoreError,
        feed_position::{FeedPosition, MAX_TAG},
        sql::{checked_number, corrupt_column},
    },
    system::lock,
};

/// A change commits its entry without a number, and shares no lock with the changes of other owners.
/// Afterwards, one statement gives numbers to all committed entries under the lock on the feed's row,
/// so that entries become visible in the order of their numbers. The node that made a change does it
/// soon after the commit, and notifies the others. A reader does it as well: an entry that was
/// committed before a read is in its answer, also if that node has died or is stopped.
impl PostgresDatabase {
    pub(super) async fn changes_after(
        &self,
        after: Option<u64>,
    ) -> Result<ChangeBatch, StoreError> {
        let (batch, has_unnumbered) = self.numbered_changes(after).await?;
        if !has_unnumbered || batch.more {
            return Ok(batch);
        }
        self.number_changes("").await?;
        // Entries that were committed since the read began may still be without a number.
        Ok(self.numbered_changes(after).await?.0)
    }

    /// Reads the numbered entries after a position. Also returns whether there are others.
    async fn numbered_changes(
        &self,
        after: Option<u64>,
    ) -> Result<(ChangeBatch, bool), StoreError> {
        // One statement reads all tables in one snapshot: no purge and no numbering can come between.
        let sql = "SELECT l.*, f.purged_number, f.purged_tag, r.number AS reader_number, \
            r.tag AS reader_tag, c.number, c.tag, c.key_id FROM {t}feed f CROSS JOIN {last} l \
            LEFT JOIN {t}changes r ON r.number = $1 LEFT JOIN LATERAL \
            (SELECT number, tag, key_id FROM {t}changes WHERE number > coalesce($1, l.last_number) \
            ORDER BY number LIMIT $2) c ON true ORDER BY c.number";
        let sql = self.sql(&sql.replace("{last}", &last()));
        let after = after.map(FeedPosition::from_cursor);
        let number = after.map(|after| after.number as i64);
        let rows = self.reserved.rows(|| sqlx::query(sql.clone()).bind(number).bind(PAGE_SIZE));
        let batch = read_batch(&rows.await?, after);
        batch.map_err(|failure| self.reserved.classify(failure))
    }

    /// Returns the last position of the feed, or `None` if there are entries without a number.
    async fn end_of_changes(&self) -> Result<Option<u64>, StoreError> {
        let sql = self.sql(&format!("SELECT l.* FROM {{t}}feed f CROSS JOIN {} l", last()));
        let rows = self.reserved.rows(|| sqlx::query(sql.clone())).await?;
        let end = rows.first().ok_or_else(|| no_feed_row().into()).and_then(last_position);
        let (last, has_unnumbered) = end.map_err(|failure| self.reserved.classify(failure))?;
        Ok((!has_unnumbered).then(|| last.cursor()))
    }

    /// Gives numbers to all committed entries, then runs `and_then` in the same transaction.
    async fn number_changes(&self, and_then: &str) -> Result<(), StoreError> {
        let lock_millis = self.reserved.limit.as_millis().max(1);
        let millis = LONGEST_NUMBERING.as_millis();
        // In one round trip, so that a node that is stopped does not keep the lock. Each statement has
        // its own snapshot: that of the second one has all that was committed before the lock was taken.
        // A crash of the server may undo the numbering, not the changes. The entries then get numbers
        // with other tags, as after a failover.
        let sql = format!(
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = off; \
             SET LOCAL lock_timeout = {lock_millis}; SET LOCAL statement_timeout = {millis}; \
             SELECT 1 FROM {{t}}feed FOR UPDATE; \
             WITH taken AS (DELETE FROM {{t}}unnumbered_changes RETURNING at, key_id) \
             INSERT INTO {{t}}changes (number, tag, at, key_id) SELECT row_number() OVER () + \
             (SELECT last_number FROM {{t}}feed f CROSS JOIN {} l), \
             floor(random() * {MAX_TAG})::bigint, at, key_id FROM taken; {and_then}",
            last()
        );
        self.reserved.run(self.sql(&sql)).await
    }

    /// Gives numbers to entries that this node has committed and notifies the other nodes, in the
    /// background: once for many commits. If it fails, readers do it.
    pub(super) fn announce_changes(&self) {
        let mut task = lock(&self.announcements.task);
        let is_running = self.announcements.commits.fetch_add(1, Ordering::AcqRel) > 0;
        if is_running && task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let database = self.clone();
        *task = Some(tokio::spawn(async move {
            let notify = format!("SELECT pg_notify('{}', '')", database.tables.channel());
            loop {
                let commits = &database.announcements.commits;
                let before = commits.load(Ordering::Acquire);
                // A transaction that notifies commits under a lock of the whole server, with its flush:
                // changes that notify would commit one after the other.
                let _ = database.number_changes(&notify).await;
                sleep(ANNOUNCE_INTERVAL).await;
                if commits.fetch_sub(before, Ordering::AcqRel) == before {
                    return;
                }
            }
        }));
    }

    pub(super) async fn delete_old_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        self.number_changes("").await?;
        let delete = async |transaction: &mut Transaction<'_>| {
            let sql = "WITH deleted AS (DELETE FROM {t}changes WHERE number < coalesce( \
                (SELECT min(number) FROM {t}changes WHERE at >= $1), 9223372036854775807) \
                RETURNING number, tag), \
                mark AS (UPDATE {t}feed SET purged_number = d.number, purged_tag = d.tag \
                FROM (SELECT number, tag FROM deleted ORDER BY number DESC LIMIT 1) d \
                WHERE purged_number < d.number) \
                SELECT count(*) FROM deleted";
            let count: i64 = self
                .tables
                .query_scalar(sql)
                .bind(before.as_unix_micros())
                .fetch_one(&mut *transaction.connection)
                .await?;
            Ok(u32::try_from(count).unwrap_or(u32::MAX))
        };
        self.write(delete, |deleted| *deleted > 0).await
    }
}

/// Reads the entries of the feed behind a reader's position, and whether there are entries without a
/// number. Every row has the last position, the position up to which entries were purged, and the entry
/// at the reader's position if it exists.
fn read_batch(
    rows: &[PgRow],
    after: Option<FeedPosition>,
) -> Result<(ChangeBatch, bool), SqlFailure> {
    let row = rows.first().ok_or_else(no_feed_row)?;
    let (last, has_unnumbered) = last_position(row)?;
    let known = [
        Some(last),
        position(row, ["purged_number", "purged_tag"])?,
        position(row, ["reader_number", "reader_tag"])?,
    ];
    let end = rows.last().map_or(Ok(None), |row| position(row, ["number", "tag"]))?;
    let cursor = end.unwrap_or(last);
    let keys = rows.iter().map(|row| row.try_get::<Option<Uuid>, _>("key_id"));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let batch = ChangeBatch {
        keys: keys.into_iter().flatten().map(key_id).collect(),
        cursor: cursor.cursor(),
        missed: after.is_some() && !known.contains(&after),
        more: cursor.number < last.number,
    };
    Ok((batch, has_unnumbered))
}

/// Listens for notifications of changes on a connection of its own, from the first wait on.
///
/// Notifications only wake a waiting call; the entries are read from the table. A half-closed
/// connection stays silent, so the listener trusts its connection only while it receives the echoes
/// that it sends to itself.
pub(super) struct FeedListener {
    database: PostgresDatabase,
    state: Arc<ListenerState>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct ListenerState {
    is_live: AtomicBool,
    /// Counts notifications, and losses of the connection.
    wakeups: watch::Sender<u64>,
}

impl ListenerState {
    fn is_live(&self) -> bool {
        self.is_live.load(Ordering::Acquire)
    }

    fn wake(&self) {
        self.wakeups.send_modify(|wakeups| *wakeups += 1);
    }
}

impl FeedListener {
    pub(super) fn new(database: PostgresDatabase) -> Self {
        Self { database, state: Arc::default(), task: Mutex::default() }
    }

    pub(super) async fn wait_for_changes(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        self.ensure_task();
        let end = Instant::now() + at_most;
        let mut wakeups = self.state.wakeups.subscribe();
        loop {
            // Read after subscribing: a later notification wakes this call.
            if self.database.end_of_changes().await? != Some(after) {
                return Ok(self.mode());
            }
            // A node that dies after a commit does not send its notification.
            let interval = if self.state.is_live() { CHECK_INTERVAL } else { POLL_INTERVAL };
            let next = end.min(Instant::now() + interval);
            let woken = timeout_at(next, wakeups.changed()).await.is_ok();
            if Instant::now() >= end || (woken && self.state.is_live()) {
                return Ok(self.mode());
            }
        }
    }

    fn mode(&self) -> FeedMode {
        if self.state.is_live() { FeedMode::Pushed } else { FeedMode::Polled }
    }

    fn ensure_task(&self) {
        // A LISTEN through a transaction pooler would stay on a connection that other clients get,
        // and sqlx treats an unexpected notification as a protocol error.
        if !self.database.reserved.keeps_session {
            return;
        }
        let mut task = lock(&self.task);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            let channel = self.database.tables.channel();
            let (connections, state) = (self.database.reserved.clone(), self.state.clone());
            *task = Some(tokio::spawn(listen(connections, channel, state)));
        }
    }
}

impl Drop for FeedListener {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

async fn listen(connections: Connections, channel: String, state: Arc<ListenerState>) {
    loop {
        // However the connection ends, a notification may have been missed.
        let _ = receive(&connections, &channel, &state).await;
        state.is_live.store(false, Ordering::Release);
        state.wake();
        sleep(RECONNECT_INTERVAL).await;
    }
}

/// Receives notifications until the connection ends or an echo does not arrive.
async fn receive(
    connections: &Connections,
    channel: &str,
    state: &ListenerState,
) -> Result<(), SqlFailure> {
    let Connections { pool, limit, .. } = connections;
    let limit = *limit;
    let pool_of_one = PgPoolOptions::new().max_connections(1).acquire_timeout(limit);
    let pool_of_one = pool_of_one.connect_lazy_with((*pool.connect_options()).clone());
    let connect = async {
        let mut listener = PgListener::connect_with(&pool_of_one).await?;
        listener.listen(channel).await?;
        Ok::<_, sqlx::Error>(listener)
    };
    let mut listener = timeout(limit, connect).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
    let echo_payload = format!("echo {:p} {:?}", state, Instant::now());
    loop {
        // The echo is sent on another connection and must arrive on this one.
        let echo = || sqlx::query("SELECT pg_notify($1, $2)").bind(channel).bind(&echo_payload);
        connections.rows(echo).await?;
        let mut deadline = Instant::now() + limit;
        let next_echo = Instant::now() + ECHO_INTERVAL;
        let mut echo_arrived = false;
        loop {
            match timeout_at(deadline, listener.try_recv()).await {
                Ok(Ok(Some(notification))) if notification.payload() == echo_payload => {
                    echo_arrived = true;
                    deadline = next_echo;
                    state.is_live.store(true, Ordering::Release);
                    state.wake();
                }
                Ok(Ok(Some(notification))) if notification.payload().is_empty() => {
                    state.wake();
                }
                // Another node's echo.
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) if echo_arrived => break,
                Err(_) => return Ok(()),
            }
        }
    }
}

/// Reads the columns of [`last`].
fn last_position(row: &PgRow) -> Result<(FeedPosition, bool), SqlFailure> {
    let last = position(row, ["last_number", "last_tag"])?.ok_or_else(no_feed_row)?;
    Ok((last, row.try_get("has_unnumbered")?))
}

/// Reads a position of the feed from two columns, which may be NULL.
fn position(row: &PgRow, [number, tag]: [&str; 2]) -> Result<Option<FeedPosition>, SqlFailure> {
    let stored: (Option<i64>, Option<i64>) = (row.try_get(number)?, row.try_get(tag)?);
    let (Some(stored_number), Some(stored_tag)) = stored else { return Ok(None) };
    let position = FeedPosition {
        number: checked_number(number, stored_number)?,
        tag: checked_number(tag, stored_tag)?,
    };
    // A number or tag with too many bits would become another position.
    if FeedPosition::from_cursor(position.cursor()) == position {
        Ok(Some(position))
    } else {
        Err(corrupt_column(number).into())
    }
}

fn no_feed_row() -> StoreError {
    StoreError::corrupt("the table of the change feed has no row")
}

/// The last entry, or the last purged one if there is none; and whether entries have no number yet.
fn last() -> String {
    let has_unnumbered = on_primary("EXISTS (SELECT FROM {t}unnumbered_changes)", "boolean");
    format!(
        "LATERAL (SELECT coalesce(e.number, f.purged_number) AS last_number, \
         coalesce(e.tag, f.purged_tag) AS last_tag, {has_unnumbered} AS has_unnumbered FROM (VALUES (1)) one \
         LEFT JOIN (SELECT number, tag FROM {{t}}changes ORDER BY number DESC LIMIT 1) e ON true)"
    )
}

const PAGE_SIZE: i64 = 1_000;
/// How often the feed is polled while no notifications arrive.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How often a waiting call looks for changes while notifications arrive.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time between two notifications of this node.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(10);
/// Longer than the timeout of a call, so that the server makes progress with any number of entries.
const LONGEST_NUMBERING: Duration = Duration::from_secs(60);
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);
const ECHO_INTERVAL: Duration = Duration::from_secs(5);
