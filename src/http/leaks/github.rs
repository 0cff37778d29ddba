//! Reports of GitHub, and the public keys that verify their signatures.

use std::{collections::HashMap, error::Error, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use p256::{
    ecdsa::{Signature, VerifyingKey, signature::Verifier},
    pkcs8::DecodePublicKey,
};
use serde::{Deserialize, de::IgnoredAny};
use tokio::sync::Mutex;

use crate::model::Timestamp;

/// The URL where GitHub publishes the public keys for its reports.
pub const GITHUB_PUBLIC_KEYS: &str = "https://api.github.com/meta/public_keys/secret_scanning";

/// A report as GitHub sent it, byte for byte.
#[derive(Clone, Copy)]
#[must_use]
pub struct LeakReport<'a> {
    body: &'a [u8],
    pub(super) identifier: &'a [u8],
    signature: &'a [u8],
}

/// Fetches the public keys of GitHub with the host's own HTTP client.
///
/// Implemented for closures that return such a future.
#[async_trait]
pub trait PublicKeys: Send + Sync + 'static {
    /// Returns the body of the response to `GET` [`GITHUB_PUBLIC_KEYS`].
    ///
    /// MUST check the server's certificate, and MUST return in bounded time. Called at most once a
    /// minute. SHOULD send a GitHub access token, which raises GitHub's rate limit.
    ///
    /// # Errors
    /// If the keys cannot be fetched.
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

/// A text in a report that may be a secret.
#[derive(Deserialize)]
pub(super) struct LeakMatch {
    pub(super) token: String,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) url: String,
    #[serde(default)]
    pub(super) source: String,
}

/// An element of a report. An element that cannot be parsed does not affect the others.
#[derive(Deserialize)]
#[serde(untagged)]
enum ReportItem {
    Match(LeakMatch),
    Unparsable(IgnoredAny),
}

impl<'a> LeakReport<'a> {
    /// Creates a report from the body of a request, without a signature.
    pub fn new(body: &'a [u8]) -> Self {
        Self { body, identifier: b"", signature: b"" }
    }

    /// Sets the value of `Github-Public-Key-Identifier`.
    pub fn identifier(mut self, identifier: &'a [u8]) -> Self {
        self.identifier = identifier;
        self
    }

    /// Sets the value of `Github-Public-Key-Signature`.
    pub fn signature(mut self, signature: &'a [u8]) -> Self {
        self.signature = signature;
        self
    }

    /// Whether the signature is one of this key over exactly this body.
    pub(super) fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        let signature = STANDARD.decode(self.signature).ok();
        let signature = signature.and_then(|der| Signature::from_der(&der).ok());
        signature.is_some_and(|signature| key.verify(self.body, &signature).is_ok())
    }

    /// Returns the matches, or `None` if the body is not an array.
    pub(super) fn matches(&self) -> Option<impl Iterator<Item = LeakMatch>> {
        let items: Vec<ReportItem> = serde_json::from_slice(self.body).ok()?;
        Some(items.into_iter().filter_map(|item| match item {
            ReportItem::Match(found) => Some(found),
            ReportItem::Unparsable(IgnoredAny) => None,
        }))
    }
}

/// Omits the body, which contains secrets.
impl std::fmt::Debug for LeakReport<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeakReport").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

/// The public keys of GitHub, as last fetched.
pub(super) struct PublicKeyCache {
    source: Box<dyn PublicKeys>,
    state: Mutex<CacheState>,
}

#[derive(Default)]
struct CacheState {
    keys: HashMap<Vec<u8>, VerifyingKey>,
    last_success: Option<Timestamp>,
    last_attempt: Option<Timestamp>,
}

/// Why a public key was not found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyLookupError {
    /// GitHub publishes no key with this identifier.
    Unknown,
    /// The keys could not be fetched. The duration is the time until the next attempt.
    Unavailable(Duration),
}

impl PublicKeyCache {
    pub(super) fn new(source: impl PublicKeys) -> Self {
        Self { source: Box::new(source), state: Mutex::default() }
    }

    /// Finds a key by its identifier. An unknown identifier or an expired cache triggers a fetch, at
    /// most once per [`FETCH_INTERVAL`], however many identifiers are requested. If the fetch fails,
    /// cached keys stay valid.
    pub(super) async fn find(
        &self,
        identifier: &[u8],
        now: Timestamp,
    ) -> Result<VerifyingKey, KeyLookupError> {
        // Held during the fetch, so that concurrent reports wait for its result.
        let mut state = self.state.lock().await;
        let expired = state.last_success.is_none_or(|at| now.since(at) >= CACHE_LIFETIME);
        let needs_fetch = expired || !state.keys.contains_key(identifier);
        let wait = state
            .last_attempt
            .map_or(Duration::ZERO, |at| FETCH_INTERVAL.saturating_sub(now.since(at)));
        let mut fetched = false;
        if needs_fetch && wait.is_zero() {
            state.last_attempt = Some(now);
            let body = self.source.fetch().await.ok();
            if let Some(keys) = body.and_then(|body| parse_public_keys(&body)) {
                (state.keys, state.last_success, fetched) = (keys, Some(now), true);
            }
        }
        match state.keys.get(identifier) {
            Some(key) => Ok(*key),
            None if fetched => Err(KeyLookupError::Unknown),
            None if wait.is_zero() => Err(KeyLookupError::Unavailable(FETCH_INTERVAL)),
            None => Err(KeyLookupError::Unavailable(wait)),
        }
    }
}

#[derive(Deserialize)]
struct PublishedKeys {
    public_keys: Vec<PublishedKey>,
}

#[derive(Deserialize)]
struct PublishedKey {
    key_identifier: String,
    key: String,
}

/// Skips keys of other algorithms, which GitHub may publish in the future.
fn parse_public_keys(body: &[u8]) -> Option<HashMap<Vec<u8>, VerifyingKey>> {
    let published: PublishedKeys = serde_json::from_slice(body).ok()?;
    let keys = published.public_keys.into_iter().filter_map(|published| {
        let key = VerifyingKey::from_public_key_pem(&published.key).ok()?;
        Some((published.key_identifier.into_bytes(), key))
    });
    Some(keys.collect())
}

/// How long keys are used before a fetch checks whether GitHub has withdrawn them.
const CACHE_LIFETIME: Duration = Duration::from_secs(3_600);
/// The shortest time between two fetches.
const FETCH_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of GitHub's documentation, signed with a key that GitHub published.
    #[test]
    fn only_signatures_of_github_are_accepted() {
        let key = "-----BEGIN PUBLIC KEY-----\n\
            MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYAGMWO8XgCamYKMJS6jc/qgvSlAd\n\
            AjPuDPRcXU22YxgBrz+zoN19MzuRyW87qEt9/AmtoNP5GrobzUvQSyJFVw==\n\
            -----END PUBLIC KEY-----\n";
        let key = VerifyingKey::from_public_key_pem(key).unwrap();
        let body = br#"[{"source":"commit","token":"some_token","type":"some_type","url":"https://example.com/base-repo-url/"}]"#;
        let signature = b"MEQCIQDaMKqrGnE27S0kgMrEK0eYBmyG0LeZismAEz/BgZyt7AIfXt9fErtRS4XaeSt/AO1RtBY66YcAdjxji410VQV4xg==";
        assert!(LeakReport::new(body).signature(signature).is_signed_by(&key));
        assert!(!LeakReport::new(&body[1..]).signature(signature).is_signed_by(&key));
        assert!(!LeakReport::new(body).signature(&signature[4..]).is_signed_by(&key));
        assert!(!LeakReport::new(body).is_signed_by(&key));
    }
}
