use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{PushInfo, PushKind, Value};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, unbounded_channel},
        watch,
    },
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use super::{
    commands::{RedisDatabase, Reply},
    connection::{CommandOutcome, Connection, PrimaryConnection, time_left},
    errors::{BoxError, RedisFailure},
    msgpack::damaged_record,
    scripts::{CHANGES, RedisKeys},
};
use crate::{
    store::{
        FeedMode, StoreError,
        feed_position::{FeedPosition, MAX_TAG},
    },
    system::lock,
};

/// The end of the feed, and the tags of its entries.
impl RedisDatabase {
    async fn feed_end(&self) -> Result<u64, StoreError> {
        let reply = self.read(&CHANGES, &[b"", b""]).await?.list()?;
        let [number, tag, ..] = &reply[..] else { return Err(damaged_record()) };
        Ok(position(number.digits()?, tag.digits()?)?.cursor())
    }

    /// Draws the random tag of the entries of one change.
    pub(super) fn tag(&self) -> Result<Vec<u8>, StoreError> {
        let mut bytes = [0; 4];
        crate::system::fill_random(&mut bytes).map_err(StoreError::unavailable)?;
        Ok((u64::from(u32::from_be_bytes(bytes)) & MAX_TAG).to_string().into())
    }
}

/// Reads the id of a stream entry, `number-tag`, which may be empty.
pub(super) fn optional_entry_id(reply: &Reply) -> Result<Option<FeedPosition>, StoreError> {
    let id = std::str::from_utf8(reply.bytes()?).map_err(StoreError::corrupt)?;
    if id.is_empty() {
        return Ok(None);
    }
    let (number, tag) = id.split_once('-').ok_or_else(damaged_record)?;
    let number = number.parse().map_err(StoreError::corrupt)?;
    position(number, tag.parse().map_err(StoreError::corrupt)?).map(Some)
}

pub(super) fn position(number: u64, tag: u64) -> Result<FeedPosition, StoreError> {
    let position = FeedPosition { number, tag };
    // A number or tag with too many bits would become another position.
    if FeedPosition::from_cursor(position.cursor()) == position {
        Ok(position)
    } else {
        Err(damaged_record())
    }
}

/// Subscribes to changes on a connection of its own, from the first wait on.
///
/// Messages only wake a waiting call; the entries are read from the stream. The listener trusts its
/// subscription only while it receives the echoes that it publishes on the shared connection.
#[derive(Default)]
pub(super) struct FeedListener {
    state: Arc<ListenerState>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct ListenerState {
    is_live: AtomicBool,
    /// Counts messages, and losses of the subscription.
    wakeups: watch::Sender<u64>,
}

impl FeedListener {
    pub(super) async fn wait_for_changes(
        &self,
        database: &RedisDatabase,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        let end = Instant::now() + at_most;
        let mut wakeups = self.subscribe(database);
        loop {
            // Read after subscribing: a later change wakes this call.
            if database.feed_end().await? != after {
                return Ok(self.mode());
            }
            let now = Instant::now();
            if now >= end {
                return Ok(self.mode());
            }
            let next = if self.is_live() { end } else { end.min(now + POLL_INTERVAL) };
            let woken = timeout_at(next, wakeups.changed()).await.is_ok();
            // A change without a message: the subscription was not live after all.
            if !woken && next == end && database.feed_end().await? != after {
                return Ok(FeedMode::Polled);
            }
        }
    }

    fn subscribe(&self, database: &RedisDatabase) -> watch::Receiver<u64> {
        let wakeups = self.state.wakeups.subscribe();
        let mut task = lock(&self.task);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            let (primary, keys) = (database.primary.clone(), database.keys.clone());
            let state = self.state.clone();
            *task = Some(tokio::spawn(async move { listen(&primary, &keys, &state).await }));
        }
        wakeups
    }

    fn is_live(&self) -> bool {
        self.state.is_live.load(Ordering::Acquire)
    }

    fn mode(&self) -> FeedMode {
        if self.is_live() { FeedMode::Pushed } else { FeedMode::Polled }
    }
}

impl Drop for FeedListener {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

impl ListenerState {
    fn wake(&self) {
        self.wakeups.send_modify(|wakeups| *wakeups += 1);
    }
}

async fn listen(primary: &PrimaryConnection, keys: &RedisKeys, state: &ListenerState) {
    loop {
        // However the subscription ends, a message may have been missed.
        let _ = receive(primary, keys, state).await;
        state.is_live.store(false, Ordering::Release);
        state.wake();
        sleep(RECONNECT_INTERVAL).await;
    }
}

/// Receives messages until the connection ends or an echo does not arrive.
async fn receive(
    primary: &PrimaryConnection,
    keys: &RedisKeys,
    state: &ListenerState,
) -> Result<(), BoxError> {
    let (connection, mut pushed) = open_subscription(primary, keys, state).await?;
    let echo = echo_channel(keys, state);
    loop {
        publish(primary, &echo).await?;
        let mut deadline = primary.deadline();
        let next_echo = Instant::now() + ECHO_INTERVAL;
        let mut echo_arrived = false;
        loop {
            match timeout_at(deadline, pushed.recv()).await {
                Ok(Some(push)) if is_message_on(&push, &echo) => {
                    echo_arrived = true;
                    deadline = next_echo;
                    state.is_live.store(true, Ordering::Release);
                    state.wake();
                }
                Ok(Some(push)) if is_message_on(&push, keys.changes()) => state.wake(),
                // The confirmation of a subscription.
                Ok(Some(_)) => {}
                // The connection has ended.
                Ok(None) => return Ok(()),
                Err(_) if echo_arrived && !connection.has_ended() => break,
                Err(_) => return Ok(()),
            }
        }
    }
}

async fn open_subscription(
    primary: &PrimaryConnection,
    keys: &RedisKeys,
    state: &ListenerState,
) -> Result<(Connection, UnboundedReceiver<PushInfo>), BoxError> {
    let deadline = primary.deadline();
    let shared = primary.shared(deadline).await.map_err(RedisFailure::into_source)?;
    let (sender, pushed) = unbounded_channel();
    let connection = Connection::open(shared.server, time_left(deadline), Some(sender)).await?;
    connection.subscribe(&[keys.changes(), &echo_channel(keys, state)], deadline).await?;
    Ok((connection, pushed))
}

/// Returns the name of a channel that only this listener uses.
fn echo_channel(keys: &RedisKeys, state: &ListenerState) -> String {
    format!("{}:echo:{}:{state:p}", keys.changes(), std::process::id())
}

async fn publish(primary: &PrimaryConnection, channel: &str) -> Result<(), BoxError> {
    let deadline = primary.deadline();
    let mut publish = redis::cmd("PUBLISH");
    publish.arg(channel).arg("");
    let connection = primary.shared(deadline).await.map_err(RedisFailure::into_source)?;
    match connection.send(&publish, deadline).await {
        CommandOutcome::Answered(_) => Ok(()),
        CommandOutcome::Rejected(error) => Err(error.into()),
        CommandOutcome::Lost(error) => Err(error),
    }
}

fn is_message_on(push: &PushInfo, channel: &str) -> bool {
    push.kind == PushKind::Message
        && matches!(push.data.first(), Some(Value::BulkString(on)) if on == channel.as_bytes())
}

/// How often the feed is polled while no messages arrive.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);
const ECHO_INTERVAL: Duration = Duration::from_secs(5);
