//! Receives reports of GitHub's secret scanning: secrets found in public repositories, packages and gists.
//!
//! For [partners](https://docs.github.com/code-security/secret-scanning/secret-scanning-partnership-program/secret-scanning-partner-program),
//! GitHub sends each match of a format ([`KeyFormat::scanner_rules`](crate::secret::KeyFormat::scanner_rules))
//! to an endpoint of the service, signed. [`LeakReceiver`] checks the signature, finds the keys,
//! applies the [`LeakPolicy`] of each key's format, and reports to GitHub which matches were secrets.
//!
//! A leak is written to the audit log as `key.leaked`, with the place where it was found, and is thereby sent to every
//! [`AuditSink`](crate::AuditSink), which can notify the owner. A repeated report is processed once. Each secret is looked
//! up once per report, in however many places it was found; the first 100 places are logged, until 1,000 places of the key
//! are logged. A report with more than 10,000 matches is rejected (413). While the store or GitHub's public keys cannot be
//! read, the response is 503, and GitHub sends the report again.

use std::{
    collections::{HashMap, HashSet},
    error::Error as StdError,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{Response, StatusCode, header::RETRY_AFTER};
use p256::{
    ecdsa::{Signature, VerifyingKey, signature::Verifier},
    pkcs8::DecodePublicKey,
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Digest as _;
use tokio::sync::Mutex;

use super::responses::{no_store_response, problem_response};
use crate::{
    api::ApiKeys,
    error::{Error, ErrorKind},
    model::{Actor, Timestamp, debug_only, one_line},
    secret::KeyFormat,
    verify::{DeniedReason, IdentifiedKey},
};

/// Receives reports about leaked keys of an [`ApiKeys`]. Cheap to clone.
///
/// # Examples
/// ```
/// # use keyward::testing::TestKeys;
/// use keyward::http::leaks::{GITHUB_PUBLIC_KEYS, LeakPolicy, LeakReceiver, LeakReport};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let keys = TestKeys::new().keys;
/// // Use the HTTP client of the service, here `reqwest`.
/// let fetch = || async {
///     let response = reqwest::get(GITHUB_PUBLIC_KEYS).await?.error_for_status()?;
///     Ok(response.bytes().await?.into())
/// };
/// let receiver = LeakReceiver::github(keys, fetch).policy(LeakPolicy::Disable);
/// # let fetch = || async { Ok(br#"{"public_keys": []}"#.to_vec()) };
/// # let receiver = LeakReceiver::github(TestKeys::new().keys, fetch);
///
/// let forged = LeakReport::new(b"[]").identifier(b"90a42116").signature(b"MEUCIQ==");
/// assert_eq!(receiver.receive(&forged).await.status(), 403);
/// # }
/// ```
#[derive(Clone)]
#[must_use = "it does nothing until it is mounted"]
pub struct LeakReceiver {
    keys: ApiKeys,
    default_policy: LeakPolicy,
    /// The first entry that matches applies; the one set last is first.
    format_policies: Vec<(KeyFormat, LeakPolicy)>,
    public_keys: Arc<PublicKeyCache>,
}

/// What happens to a key whose secret has leaked. Every leak is also written to the audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeakPolicy {
    /// Revokes the key, permanently.
    #[default]
    Revoke,
    /// Disables the key. Its owner can enable it again.
    Disable,
    /// Leaves the key unchanged: the host handles the audit event.
    Notify,
}

impl LeakReceiver {
    /// Creates a receiver for reports of GitHub. `public_keys` fetches [`GITHUB_PUBLIC_KEYS`].
    pub fn github(keys: ApiKeys, public_keys: impl PublicKeys) -> Self {
        Self {
            keys,
            default_policy: LeakPolicy::default(),
            format_policies: Vec::new(),
            public_keys: Arc::new(PublicKeyCache {
                source: Box::new(public_keys),
                state: Mutex::default(),
            }),
        }
    }

    /// Sets the policy for keys of every format. Defaults to [`LeakPolicy::Revoke`].
    pub fn policy(self, policy: LeakPolicy) -> Self {
        Self { default_policy: policy, ..self }
    }

    /// Sets the policy for keys of one format, for example the format of a test environment.
    pub fn policy_for_format(mut self, format: &KeyFormat, policy: LeakPolicy) -> Self {
        self.format_policies.insert(0, (format.clone(), policy));
        self
    }

    /// Processes a report and returns the response to GitHub.
    pub async fn receive(&self, report: &LeakReport<'_>) -> Response<String> {
        match self.public_keys.find(report.identifier, self.keys.now()).await {
            Err(wait) => return unavailable(wait.as_secs().max(1)),
            Ok(Some(key)) if report.is_signed_by(&key) => {}
            Ok(_) => {
                let detail = "the signature is not a valid signature of GitHub";
                return problem_response(StatusCode::FORBIDDEN, "bad_signature", detail, &[]);
            }
        }
        let Some(matches) = report.matches() else {
            let detail = "the body is not a JSON array of matches";
            return problem_response(StatusCode::BAD_REQUEST, "malformed_body", detail, &[]);
        };
        if matches.len() > MAX_MATCHES {
            let detail = format!("the report has more than {MAX_MATCHES} matches: split it");
            return problem_response(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &detail, &[]);
        }
        let (mut places, mut tokens) = (HashMap::<&str, Vec<&LeakMatch>>::new(), Vec::new());
        for found in &matches {
            let of_token = places.entry(&found.token).or_default();
            if of_token.is_empty() {
                tokens.push(&*found.token);
            }
            of_token.push(found);
        }
        let (mut secrets, mut failed) = (HashSet::new(), false);
        for token in tokens {
            match self.process(token, &places[token]).await {
                Ok(true) => _ = secrets.insert(token),
                Ok(false) => {}
                // Continues with the other secrets, so that their keys are revoked without delay.
                Err(_) => failed = true,
            }
        }
        if failed {
            return unavailable(RETRY_AFTER_FAILURE);
        }
        let label = |found: &LeakMatch| match_label(found, secrets.contains(&*found.token));
        let body = Value::from_iter(matches.iter().map(label)).to_string();
        no_store_response(StatusCode::OK, "application/json", body)
    }

    /// Applies the policy to the key of a text that was found in these places. Returns whether it is a secret.
    async fn process(&self, token: &str, places: &[&LeakMatch]) -> Result<bool, Error> {
        let Some(IdentifiedKey { key, denied, superseded }) = self.keys.identify(token).await?
        else {
            return Ok(false);
        };
        let actor = Actor::system("github-secret-scanning");
        let locations: Vec<_> = places.iter().map(|found| found.location()).collect();
        self.keys.record_leaks(&key, &locations, &actor).await?;
        let location = &locations[0];
        let is_over = matches!(denied, Some(DeniedReason::Revoked | DeniedReason::Expired));
        if superseded || is_over {
            return Ok(true);
        }
        let formats = &self.format_policies;
        let special = formats.iter().find(|(format, _)| format.parse(token).is_ok());
        let result = match special.map_or(self.default_policy, |(_, policy)| *policy) {
            LeakPolicy::Revoke => {
                let reason = format!("leaked: {location}");
                self.keys.revoke(&key.owner, key.id, &reason, &actor).await
            }
            LeakPolicy::Disable => self.keys.disable(&key.owner, key.id, &actor).await.map(drop),
            LeakPolicy::Notify => Ok(()),
        };
        match result {
            // `NotFound`, `NotLive`: the key was revoked or deleted concurrently.
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotLive) => {
                Err(error)
            }
            _ => Ok(true),
        }
    }
}

debug_only!(LeakReceiver { default_policy, format_policies });

/// Returns the result for one match, sent to GitHub. Contains the hash of the token instead of the token, so that a log
/// of the response contains no secret.
fn match_label(found: &LeakMatch, is_secret: bool) -> Value {
    json!({
        "token_hash": hex::encode(sha2::Sha256::digest(&found.token)),
        "token_type": found.kind,
        "label": if is_secret { "true_positive" } else { "false_positive" },
    })
}

fn unavailable(retry_after: u64) -> Response<String> {
    let detail = "reports cannot be processed at the moment: send the report again later";
    let mut response =
        problem_response(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail, &[]);
    response.headers_mut().insert(RETRY_AFTER, retry_after.into());
    response
}

/// A report as GitHub sent it, byte for byte.
#[derive(Clone, Copy)]
#[must_use]
pub struct LeakReport<'a> {
    body: &'a [u8],
    identifier: &'a [u8],
    signature: &'a [u8],
}

/// Fetches the public keys of GitHub with the host's own HTTP client.
///
/// Implemented for closures that return such a future.
#[async_trait]
pub trait PublicKeys: Send + Sync + 'static {
    /// Returns the response body of `GET` [`GITHUB_PUBLIC_KEYS`]. MUST check the server's certificate, and return in
    /// bounded time. Called at most once a minute. SHOULD send a GitHub access token, which raises the rate limit.
    ///
    /// # Errors
    /// If the keys cannot be fetched.
    async fn fetch(&self) -> Result<Vec<u8>, Box<dyn StdError + Send + Sync>>;
}

#[async_trait]
impl<F, A> PublicKeys for F
where
    F: Fn() -> A + Send + Sync + 'static,
    A: Future<Output = Result<Vec<u8>, Box<dyn StdError + Send + Sync>>> + Send,
{
    async fn fetch(&self) -> Result<Vec<u8>, Box<dyn StdError + Send + Sync>> {
        self().await
    }
}

/// A text in a report that may be a secret.
#[derive(Deserialize)]
struct LeakMatch {
    token: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    source: String,
}

impl LeakMatch {
    /// Returns the place where the text was found, for the audit log.
    fn location(&self) -> String {
        one_line(&format!("{} {}", self.source, self.url)).trim().to_owned()
    }
}

impl<'a> LeakReport<'a> {
    /// Creates a report from the body of a request, without a signature.
    pub fn new(body: &'a [u8]) -> Self {
        Self { body, identifier: b"", signature: b"" }
    }

    /// Creates a report from what an adapter received. `header` returns the first value of a header.
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(crate) fn received(body: &'a [u8], header: impl Fn(&str) -> Option<&'a [u8]>) -> Self {
        Self::new(body)
            .identifier(header("github-public-key-identifier").unwrap_or_default())
            .signature(header("github-public-key-signature").unwrap_or_default())
    }

    /// Sets the value of `Github-Public-Key-Identifier`.
    pub fn identifier(self, identifier: &'a [u8]) -> Self {
        Self { identifier, ..self }
    }

    /// Sets the value of `Github-Public-Key-Signature`.
    pub fn signature(self, signature: &'a [u8]) -> Self {
        Self { signature, ..self }
    }

    /// Whether the signature is one of this key over exactly this body.
    fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        let signature = STANDARD.decode(self.signature).ok();
        let signature = signature.and_then(|der| Signature::from_der(&der).ok());
        signature.is_some_and(|signature| key.verify(self.body, &signature).is_ok())
    }

    /// Returns the matches, or `None` if the body is not an array. Elements that cannot be parsed are skipped.
    fn matches(&self) -> Option<Vec<LeakMatch>> {
        let items: Vec<Value> = serde_json::from_slice(self.body).ok()?;
        Some(items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect())
    }
}

/// Omits the body, which contains secrets.
impl std::fmt::Debug for LeakReport<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeakReport").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

/// The public keys of GitHub, as last fetched.
struct PublicKeyCache {
    source: Box<dyn PublicKeys>,
    state: Mutex<CacheState>,
}

#[derive(Default)]
struct CacheState {
    keys: HashMap<Vec<u8>, VerifyingKey>,
    last_success: Option<Timestamp>,
    last_attempt: Option<Timestamp>,
}

impl PublicKeyCache {
    /// Finds a key by its identifier. An unknown identifier or an expired cache triggers a fetch, at most once per
    /// [`FETCH_INTERVAL`], however many identifiers are requested. If the fetch fails, cached keys stay valid. Returns
    /// `None` if GitHub publishes no such key. If fetching fails, the error is the time to the next attempt.
    async fn find(
        &self,
        identifier: &[u8],
        now: Timestamp,
    ) -> Result<Option<VerifyingKey>, Duration> {
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
            None if !fetched => Err(if wait.is_zero() { FETCH_INTERVAL } else { wait }),
            key => Ok(key.copied()),
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
/// The URL where GitHub publishes the public keys for its reports.
pub const GITHUB_PUBLIC_KEYS: &str = "https://api.github.com/meta/public_keys/secret_scanning";
/// The largest report that an adapter reads: 4 MiB, about ten thousand matches.
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) const MAX_BODY: usize = 4 * 1024 * 1024;
/// Each match can cost a look-up.
const MAX_MATCHES: usize = 10_000;
/// In seconds, if processing a match failed.
const RETRY_AFTER_FAILURE: u64 = 30;
