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
    errors::{Failure, Source},
    line::{Line, Sent},
    link::{Link, left},
    names::Names,
};
use crate::{store::FeedMode, system::lock};

/// Hears of changes on a connection of its own, from the first time that someone waits for one.
///
/// What it hears is a hint only; the truth is in the stream. It trusts its subscription no longer
/// than it gets back what is published by way of the connection that changes take.
#[derive(Default)]
pub(super) struct Listener {
    state: Arc<State>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    live: AtomicBool,
    /// Counts what was heard, and every loss of the subscription.
    heard: watch::Sender<u64>,
}

impl Listener {
    /// What was heard from now on.
    pub(super) fn begin(&self, link: &Arc<Link>, names: &Arc<Names>) -> watch::Receiver<u64> {
        let heard = self.state.heard.subscribe();
        let mut task = lock(&self.task);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            let (link, names, state) = (link.clone(), names.clone(), self.state.clone());
            *task = Some(tokio::spawn(async move { listen(&link, &names, &state).await }));
        }
        heard
    }

    pub(super) fn is_live(&self) -> bool {
        self.state.live.load(Ordering::Acquire)
    }

    pub(super) fn feed(&self) -> FeedMode {
        if self.is_live() { FeedMode::Pushed } else { FeedMode::Polled }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

impl State {
    fn hear(&self) {
        self.heard.send_modify(|heard| *heard += 1);
    }
}

async fn listen(link: &Link, names: &Names, state: &State) {
    loop {
        // However the subscription ends, something may have been missed.
        let _ = hear(link, names, state).await;
        state.live.store(false, Ordering::Release);
        state.hear();
        sleep(RETRY).await;
    }
}

async fn hear(link: &Link, names: &Names, state: &State) -> Result<(), Source> {
    let (line, mut pushed) = subscribe(link, names, state).await?;
    let echo = echo(names, state);
    loop {
        publish(link, &echo).await?;
        let mut deadline = link.deadline();
        let next_echo = Instant::now() + ECHO;
        let mut answered = false;
        loop {
            match timeout_at(deadline, pushed.recv()).await {
                Ok(Some(push)) if is_message_on(&push, &echo) => {
                    answered = true;
                    deadline = next_echo;
                    state.live.store(true, Ordering::Release);
                    state.hear();
                }
                Ok(Some(push)) if is_message_on(&push, names.changes()) => state.hear(),
                // The answer to a subscription.
                Ok(Some(_)) => {}
                // The connection has ended.
                Ok(None) => return Ok(()),
                Err(_) if answered && !line.is_dead() => break,
                Err(_) => return Ok(()),
            }
        }
    }
}

async fn subscribe(
    link: &Link,
    names: &Names,
    state: &State,
) -> Result<(Line, UnboundedReceiver<PushInfo>), Source> {
    let deadline = link.deadline();
    let shared = link.line(deadline).await.map_err(source)?;
    let (sender, pushed) = unbounded_channel();
    let line = Line::open(shared.place, left(deadline), Some(sender)).await?;
    line.subscribe(&[names.changes(), &echo(names, state)], deadline).await?;
    Ok((line, pushed))
}

/// A channel that this listener has for itself.
fn echo(names: &Names, state: &State) -> String {
    format!("{}:echo:{}:{state:p}", names.changes(), std::process::id())
}

async fn publish(link: &Link, channel: &str) -> Result<(), Source> {
    let deadline = link.deadline();
    let mut publish = redis::cmd("PUBLISH");
    publish.arg(channel).arg("");
    match link.line(deadline).await.map_err(source)?.send(&publish, deadline).await {
        Sent::Answer(_) => Ok(()),
        Sent::Refused(error) => Err(error.into()),
        Sent::Lost(source) => Err(source),
    }
}

fn source(failure: Failure) -> Source {
    match failure {
        Failure::NotRun(source) | Failure::Lost(source) | Failure::Corrupt(source) => source,
    }
}

fn is_message_on(push: &PushInfo, channel: &str) -> bool {
    push.kind == PushKind::Message
        && matches!(push.data.first(), Some(Value::BulkString(on)) if on == channel.as_bytes())
}

const RETRY: Duration = Duration::from_secs(1);
const ECHO: Duration = Duration::from_secs(5);
