use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Inner, pack::damaged, reply::Reply, scripts::CHANGES};
use crate::{
    model::KeyId,
    store::{
        ChangeBatch, FeedMode, StoreError,
        feed_position::{FeedPosition, MAX_TAG},
    },
};

/// The change feed: a stream for truth, pub/sub for speed.
impl Inner {
    pub(super) async fn changes(&self, after: Option<u64>) -> Result<ChangeBatch, StoreError> {
        let after = after.map(FeedPosition::from_cursor);
        let mark = after.map_or_else(String::new, |after| after.number.to_string());
        let from = after.map_or_else(String::new, |after| (after.number + 1).to_string());
        let reply = self.read(&CHANGES, &[mark.as_bytes(), from.as_bytes()]).await?.list()?;
        let [.., marked, read, ids] = &reply[..] else { return Err(damaged()) };
        let (last, gone) = (place(&reply[..])?, place(&reply[2..])?);
        let cursor = match read.bytes()? {
            b"" => last,
            read => read_place(read)?,
        };
        let marked = Some(marked.bytes()?).filter(|marked| !marked.is_empty());
        let marked = marked.map(read_place).transpose()?;
        let (ids, rest) = ids.bytes()?.as_chunks();
        if !rest.is_empty() {
            return Err(damaged());
        }
        Ok(ChangeBatch {
            keys: ids.iter().copied().map(KeyId::from_bytes).collect(),
            cursor: cursor.cursor(),
            missed: after
                .is_some_and(|after| ![Some(last), Some(gone), marked].contains(&Some(after))),
            more: cursor.number < last.number,
        })
    }

    pub(super) async fn wait_for_changes(
        &self,
        after: u64,
        at_most: Duration,
    ) -> Result<FeedMode, StoreError> {
        let end = Instant::now() + at_most;
        let mut heard = self.listener.begin(&self.link, &self.names);
        loop {
            // Looked at after subscribing: what is written later is heard.
            if self.feed_end().await? != after {
                return Ok(self.listener.feed());
            }
            let now = Instant::now();
            if now >= end {
                return Ok(self.listener.feed());
            }
            let next = if self.listener.is_live() { end } else { end.min(now + POLL) };
            let woken = timeout_at(next, heard.changed()).await.is_ok();
            // A change that is there without having been heard: the subscription is not what it seemed.
            if !woken && next == end && self.feed_end().await? != after {
                return Ok(FeedMode::Polled);
            }
        }
    }

    async fn feed_end(&self) -> Result<u64, StoreError> {
        let reply = self.read(&CHANGES, &[b"", b""]).await?.list()?;
        Ok(place(&reply)?.cursor())
    }

    /// What the entries of one change are known by.
    pub(super) fn tag(&self) -> Result<Vec<u8>, StoreError> {
        let mut bytes = [0; 4];
        crate::system::random::fill(&mut bytes).map_err(StoreError::unavailable)?;
        Ok((u64::from(u32::from_be_bytes(bytes)) & MAX_TAG).to_string().into())
    }
}

/// As the stream has it: `number-tag`.
fn read_place(text: &[u8]) -> Result<FeedPosition, StoreError> {
    let text = std::str::from_utf8(text).map_err(StoreError::corrupt)?;
    let (number, tag) = text.split_once('-').ok_or_else(damaged)?;
    let number = number.parse().map_err(StoreError::corrupt)?;
    Ok(FeedPosition { number, tag: tag.parse().map_err(StoreError::corrupt)? })
}

/// A number and a tag that stand side by side.
fn place(reply: &[Reply]) -> Result<FeedPosition, StoreError> {
    let [number, tag, ..] = reply else { return Err(damaged()) };
    Ok(FeedPosition { number: number.digits()?, tag: tag.digits()? })
}

/// How often it is looked for changes while nothing can be heard.
const POLL: Duration = Duration::from_millis(250);
