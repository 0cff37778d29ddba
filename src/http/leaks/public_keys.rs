use std::{collections::HashMap, error::Error, time::Duration};

use async_trait::async_trait;
use p256::{ecdsa::VerifyingKey, pkcs8::DecodePublicKey};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::model::Timestamp;

/// Fetches the list of keys that reports are signed with, by the host's own HTTP client.
///
/// A closure that returns such a future is one.
#[async_trait]
pub trait PublicKeys: Send + Sync + 'static {
    /// The body of the answer to `GET` [`GITHUB_PUBLIC_KEYS`](super::GITHUB_PUBLIC_KEYS).
    ///
    /// MUST check the server's certificate, and MUST end in bounded time. A personal access token
    /// of GitHub keeps its rate limits away. It is called not oftener than once a minute.
    ///
    /// # Errors
    /// Whatever kept it from being fetched.
    async fn fetch(&self) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>>;
}

#[async_trait]
impl<F, A> PublicKeys for F
where
    F: Fn() -> A + Send + Sync + 'static,
    A: Future<Output = Result<Vec<u8>, Box<dyn Error + Send + Sync>>> + Send,
{
    async fn fetch(&self) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        self().await
    }
}

/// The keys as they were fetched last.
pub(super) struct Known {
    source: Box<dyn PublicKeys>,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    keys: HashMap<Vec<u8>, VerifyingKey>,
    fetched: Option<Timestamp>,
    tried: Option<Timestamp>,
}

/// Why there is no key of this name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// GitHub has none.
    Unknown,
    /// Nobody can tell before so much time has passed.
    Unclear(Duration),
}

impl Known {
    pub(super) fn by(source: impl PublicKeys) -> Self {
        Self { source: Box::new(source), list: Mutex::default() }
    }

    /// The key of this name. A name that is not in the list, or a list that is old, asks GitHub
    /// again, but not oftener than once a minute, however many names somebody makes up. What cannot
    /// be fetched again stays good.
    pub(super) async fn key(&self, name: &[u8], now: Timestamp) -> Result<VerifyingKey, Missing> {
        // Held while fetching: whoever comes meanwhile wants to know the same.
        let mut list = self.list.lock().await;
        let old = list.fetched.is_none_or(|at| now.since(at) >= GOOD_FOR);
        let fetch = old || !list.keys.contains_key(name);
        let wait = list.tried.map_or(Duration::ZERO, |at| APART.saturating_sub(now.since(at)));
        let mut fresh = false;
        if fetch && wait.is_zero() {
            list.tried = Some(now);
            if let Some(keys) = self.source.fetch().await.ok().and_then(|body| read(&body)) {
                (list.keys, list.fetched, fresh) = (keys, Some(now), true);
            }
        }
        match list.keys.get(name) {
            Some(key) => Ok(*key),
            None if fresh => Err(Missing::Unknown),
            None if wait.is_zero() => Err(Missing::Unclear(APART)),
            None => Err(Missing::Unclear(wait)),
        }
    }
}

#[derive(Deserialize)]
struct Published {
    public_keys: Vec<PublishedKey>,
}

#[derive(Deserialize)]
struct PublishedKey {
    key_identifier: String,
    key: String,
}

/// What is no key of this kind is passed over: GitHub may have other ones, too, one day.
fn read(body: &[u8]) -> Option<HashMap<Vec<u8>, VerifyingKey>> {
    let published: Published = serde_json::from_slice(body).ok()?;
    let keys = published.public_keys.into_iter().filter_map(|published| {
        let key = VerifyingKey::from_public_key_pem(&published.key).ok()?;
        Some((published.key_identifier.into_bytes(), key))
    });
    Some(keys.collect())
}

/// How long a list is believed without looking whether GitHub has taken a key out of it.
const GOOD_FOR: Duration = Duration::from_secs(3_600);
/// How often GitHub is asked at most.
const APART: Duration = Duration::from_secs(60);
