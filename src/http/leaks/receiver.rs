use std::sync::Arc;

use http::{Response, StatusCode, header::RETRY_AFTER};
use serde::Serialize;
use sha2::Digest as _;

use super::github::{KeyLookupError, LeakMatch, LeakReport, PublicKeyCache, PublicKeys};
use crate::{
    api::ApiKeys,
    error::{Error, ErrorKind},
    http::responses::{no_store_response, problem_response},
    manage::Identified,
    model::{Actor, one_line},
    secret::KeyFormat,
    verify::DeniedReason,
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
    ///
    /// [`GITHUB_PUBLIC_KEYS`]: super::GITHUB_PUBLIC_KEYS
    pub fn github(keys: ApiKeys, public_keys: impl PublicKeys) -> Self {
        Self {
            keys,
            default_policy: LeakPolicy::default(),
            format_policies: Vec::new(),
            public_keys: Arc::new(PublicKeyCache::new(public_keys)),
        }
    }

    /// Sets the policy for keys of every format. Defaults to [`LeakPolicy::Revoke`].
    pub fn policy(mut self, policy: LeakPolicy) -> Self {
        self.default_policy = policy;
        self
    }

    /// Sets the policy for keys of one format, for example the format of a test environment.
    pub fn policy_for_format(mut self, format: &KeyFormat, policy: LeakPolicy) -> Self {
        self.format_policies.insert(0, (format.clone(), policy));
        self
    }

    /// Processes a report and returns the response to GitHub.
    pub async fn receive(&self, report: &LeakReport<'_>) -> Response<String> {
        match self.public_keys.find(report.identifier, self.keys.now()).await {
            Err(KeyLookupError::Unavailable(wait)) => return unavailable(wait.as_secs().max(1)),
            Ok(key) if report.is_signed_by(&key) => {}
            Ok(_) | Err(KeyLookupError::Unknown) => {
                let detail = "the signature is not a valid signature of GitHub";
                return error_response(StatusCode::FORBIDDEN, "bad_signature", detail);
            }
        }
        let Some(matches) = report.matches() else {
            let detail = "the body is not a JSON array of matches";
            return error_response(StatusCode::BAD_REQUEST, "malformed_body", detail);
        };
        let (mut labels, mut failed) = (Vec::new(), false);
        for found in matches {
            match self.process(&found).await {
                Ok(is_secret) => labels.push(MatchLabel::new(found, is_secret)),
                // Continues with the other matches, so that their keys are revoked without delay.
                Err(_) => failed = true,
            }
        }
        match serde_json::to_string(&labels) {
            Ok(body) if !failed => no_store_response(StatusCode::OK, "application/json", body),
            _ => unavailable(RETRY_AFTER_FAILURE),
        }
    }

    /// Returns the response to a report larger than [`MAX_BODY`].
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(crate) fn too_large() -> Response<String> {
        let detail = "the body is too large: send at most 4 MiB";
        error_response(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// Applies the policy to the key of a match. Returns whether the match is a secret.
    async fn process(&self, found: &LeakMatch) -> Result<bool, Error> {
        let Some(Identified { key, denied, superseded }) = self.keys.identify(&found.token).await?
        else {
            return Ok(false);
        };
        let actor = Actor::system("github-secret-scanning");
        let location = one_line(&format!("{} {}", found.source, found.url)).trim().to_owned();
        self.keys.record_leak(&key, &location, &actor).await?;
        let is_over = matches!(denied, Some(DeniedReason::Revoked | DeniedReason::Expired));
        if superseded || is_over {
            return Ok(true);
        }
        let result = match self.policy_for(&found.token) {
            LeakPolicy::Revoke => {
                let reason = format!("leaked: {location}");
                self.keys.revoke(&key.owner, key.id, &reason, &actor).await
            }
            LeakPolicy::Disable => self.keys.disable(&key.owner, key.id, &actor).await.map(drop),
            LeakPolicy::Notify => Ok(()),
        };
        match result {
            // The key was revoked or deleted concurrently.
            Err(error) if [ErrorKind::NotFound, ErrorKind::NotLive].contains(&error.kind()) => {
                Ok(true)
            }
            result => result.map(|()| true),
        }
    }

    fn policy_for(&self, secret: &str) -> LeakPolicy {
        let special = self.format_policies.iter().find(|(format, _)| format.parse(secret).is_ok());
        special.map_or(self.default_policy, |(_, policy)| *policy)
    }
}

impl std::fmt::Debug for LeakReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeakReceiver")
            .field("default_policy", &self.default_policy)
            .field("format_policies", &self.format_policies)
            .finish_non_exhaustive()
    }
}

/// The result for one match, sent to GitHub. Contains the hash of the token instead of the token,
/// so that a log of the response contains no secret.
#[derive(Serialize)]
struct MatchLabel {
    token_hash: String,
    token_type: String,
    label: &'static str,
}

impl MatchLabel {
    fn new(found: LeakMatch, is_secret: bool) -> Self {
        Self {
            token_hash: hex::encode(sha2::Sha256::digest(&found.token)),
            token_type: found.kind,
            label: if is_secret { "true_positive" } else { "false_positive" },
        }
    }
}

fn unavailable(retry_after: u64) -> Response<String> {
    let detail = "reports cannot be processed at the moment: send the report again later";
    let mut response = error_response(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
    response.headers_mut().insert(RETRY_AFTER, retry_after.into());
    response
}

fn error_response(status: StatusCode, code: &str, detail: &str) -> Response<String> {
    problem_response(status, code, detail, &[])
}

/// The largest report that an adapter reads: 4 MiB, about ten thousand matches.
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) const MAX_BODY: usize = 4 * 1024 * 1024;
/// In seconds, if processing a match failed.
const RETRY_AFTER_FAILURE: u64 = 30;
