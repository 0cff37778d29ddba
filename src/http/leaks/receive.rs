use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use serde::Serialize;
use sha2::Digest as _;

use super::{LeakReceiver, LeakPolicy, LeakReport, public_keys::Missing, report::Match};
use crate::{
    error::{Error, ErrorKind},
    http::{PROBLEM_JSON, problem},
    manage::Identified,
    model::{Actor, one_line},
};

/// What GitHub is told of a match. It may be told the secret or its hash: the hash does no harm in
/// whatever log it ends up.
#[derive(Serialize)]
struct Label {
    token_hash: String,
    token_type: String,
    label: &'static str,
}

impl LeakReceiver {
    /// Does what a report calls for, and answers.
    pub async fn receive(&self, report: &LeakReport<'_>) -> Response<String> {
        match self.known.key(report.identifier, self.keys.now()).await {
            Err(Missing::Unclear(wait)) => return unavailable(wait.as_secs().max(1)),
            Ok(key) if report.is_signed_by(&key) => {}
            Ok(_) | Err(Missing::Unknown) => {
                let detail = "GitHub has not signed this";
                return refused(StatusCode::FORBIDDEN, "bad_signature", detail);
            }
        }
        let Some(matches) = report.matches() else {
            let detail = "the body is no list of matches";
            return refused(StatusCode::BAD_REQUEST, "malformed_body", detail);
        };
        let (mut labels, mut failed) = (Vec::new(), false);
        for found in matches {
            match self.handle(&found).await {
                Ok(known) => labels.push(Label::of(found, known)),
                // The others are leaks as well, and should not wait for this one.
                Err(_) => failed = true,
            }
        }
        match serde_json::to_string(&labels) {
            Ok(body) if !failed => response(StatusCode::OK, "application/json", body),
            _ => unavailable(LATER),
        }
    }

    /// The answer to a report of more than [`MAX_BODY`](super::MAX_BODY).
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(crate) fn too_large() -> Response<String> {
        refused(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is too large")
    }

    /// Whether it is a secret, after whatever had to be done about it.
    async fn handle(&self, found: &Match) -> Result<bool, Error> {
        let Some(Identified { key, superseded, .. }) = self.keys.identify(&found.token).await?
        else {
            return Ok(false);
        };
        let actor = Actor::system("github-secret-scanning");
        let place = one_line(&format!("{} {}", found.source, found.url)).trim().to_owned();
        self.keys.record_leak(&key, &place, &actor).await?;
        if superseded || !key.is_live(self.keys.now()) {
            return Ok(true);
        }
        let done = match self.policies.of(&found.token) {
            LeakPolicy::Revoke => {
                let reason = format!("leaked: {place}");
                self.keys.revoke(&key.owner, key.id, &reason, &actor).await
            }
            LeakPolicy::Disable => self.keys.disable(&key.owner, key.id, &actor).await.map(drop),
            LeakPolicy::Notify => Ok(()),
        };
        match done {
            // Somebody else was faster.
            Err(error) if [ErrorKind::NotFound, ErrorKind::NotLive].contains(&error.kind()) => {
                Ok(true)
            }
            done => done.map(|()| true),
        }
    }
}

impl Label {
    fn of(found: Match, known: bool) -> Self {
        Self {
            token_hash: hex::encode(sha2::Sha256::digest(&found.token)),
            token_type: found.kind,
            label: if known { "true_positive" } else { "false_positive" },
        }
    }
}

fn unavailable(seconds: u64) -> Response<String> {
    let detail = "reports cannot be received now: send it again later";
    let mut response = refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    response
}

fn refused(status: StatusCode, code: &str, detail: &str) -> Response<String> {
    response(status, PROBLEM_JSON, problem(status, code, detail, &[]))
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// After how many seconds a report is to be sent again.
const LATER: u64 = 30;
