use http::{Method, Response, StatusCode};
use serde::Deserialize;

use super::{
    requests::ManageRequest,
    responses::{ManageError, ManageResult, json_response, key_json, message_json},
};
use crate::{
    enroll::{EmailAddress, EnrollError, Enrollment},
    http::{
        ClientIp, RequestHead,
        guard::{Guard, Precheck},
        rate_limit_headers,
    },
    manage::Issued,
    model::Actor,
};

/// Sign-in by e-mail, without a session: a code becomes a key, which a request that presents it can read and revoke.
///
/// | request | effect |
/// |---|---|
/// | `POST /auth/otp` `{"email"}` | sends a code if there is an account; 202 in any case |
/// | `POST /auth/otp/verify` `{"email", "code"}` | exchanges a code for a key: 201; only this response contains the secret |
/// | `GET /auth/key` | returns the key that the request presents |
/// | `DELETE /auth/key` | revokes the key that the request presents |
///
/// `axum::manage::sign_in` and `actix::manage::sign_in` mount these routes. Their error codes are `invalid_code` and
/// `expired_code` (400), `rate_limited` (429, with `Retry-After`), and those of the [management API](super).
///
/// Requests are limited per e-mail address and per network. All clients whose IP address is not known share one limit,
/// which is stricter than that of a network: see [`Enrollment`] and
/// [`EnrollmentBuilder::codes_without_address`](crate::enroll::EnrollmentBuilder::codes_without_address).
#[derive(Clone, Debug)]
pub struct SignIn {
    enrollment: Enrollment,
    /// The guard of `/auth/key`.
    pub(in crate::http) guard: Guard,
}

/// The body of `POST /auth/otp`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeRequestBody {
    email: String,
}

/// The body of `POST /auth/otp/verify`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyCodeBody {
    email: String,
    code: String,
}

impl SignIn {
    /// Creates the routes for an enrollment.
    pub fn new(enrollment: Enrollment) -> Self {
        Self { guard: Guard::new(enrollment.keys().clone()), enrollment }
    }

    /// Sets how the client's address is found, as [`GuardBuilder::client_ip`](crate::http::GuardBuilder::client_ip).
    /// Limits are per network, so behind a proxy this MUST be set.
    #[must_use]
    pub fn client_ip(mut self, client_ip: ClientIp) -> Self {
        self.guard.client_ip = client_ip;
        self
    }

    /// Handles a request. Its path is relative to where the routes are mounted.
    pub async fn handle(
        &self,
        head: &RequestHead<'_>,
        request: &ManageRequest<'_>,
    ) -> Response<String> {
        let path = request.path.strip_prefix('/').unwrap_or(request.path);
        let result = match (path, request.method) {
            ("auth/otp", &Method::POST) => self.send_code(head, request).await,
            ("auth/otp/verify", &Method::POST) => self.redeem(head, request).await,
            ("auth/otp" | "auth/otp/verify", _) => Err(ManageError::method_not_allowed("POST")),
            ("auth/key", &Method::GET | &Method::HEAD | &Method::DELETE) => {
                self.own_key(head, request).await
            }
            ("auth/key", _) => Err(ManageError::method_not_allowed("GET, HEAD, DELETE")),
            _ => Err(ManageError::unknown_path()),
        };
        result.unwrap_or_else(ManageError::into_response)
    }

    async fn send_code(&self, head: &RequestHead<'_>, request: &ManageRequest<'_>) -> ManageResult {
        let email: EmailAddress = request.parse_json::<CodeRequestBody>()?.email.parse()?;
        // The client claims this address and has not proved it yet.
        let actor = self.with_client(head, Actor::account(email.as_str()));
        self.enrollment.request_code(&email, &actor).await?;
        // The same text for known and unknown addresses.
        let text = "If this address has an account, a code has been sent to it. \
                    The code is valid for 10 minutes.";
        Ok(json_response(StatusCode::ACCEPTED, &message_json(text)))
    }

    async fn redeem(&self, head: &RequestHead<'_>, request: &ManageRequest<'_>) -> ManageResult {
        let VerifyCodeBody { email, code } = request.parse_json()?;
        let email: EmailAddress = email.parse()?;
        let actor = self.with_client(head, Actor::account(email.as_str()));
        let Issued { key, secret } = self.enrollment.redeem_code(&email, &code, &actor).await?;
        let now = self.enrollment.keys().now();
        let json = key_json(&key, Some(&secret), (&key.owner).into(), now);
        Ok(json_response(StatusCode::CREATED, &json))
    }

    /// Shows or revokes the key that the request presents.
    async fn own_key(&self, head: &RequestHead<'_>, request: &ManageRequest<'_>) -> ManageResult {
        let verified = match self.guard.precheck(head, None) {
            Precheck::Presented(presented) => self.guard.verify(presented).await?,
            Precheck::Rejected(rejection) => return Err(rejection.into()),
            // Impossible: the guard is not optional, and no outer guard was passed to it.
            Precheck::AlreadyVerified | Precheck::NoKey => return Err(ManageError::internal()),
        };
        let (keys, owner, id) = (self.enrollment.keys(), verified.owner(), verified.key_id());
        let result = if request.method == Method::DELETE {
            let actor = self.with_client(head, Actor::key(&verified));
            let revoked = keys.revoke(owner, id, "requested with the key itself", &actor).await;
            revoked.map(|()| message_json("API key revoked"))
        } else {
            let key = keys.get(owner, id).await;
            key.map(|key| key_json(&key, None, owner.into(), verified.at()))
        };
        let mut response = match result {
            Ok(json) => json_response(StatusCode::OK, &json),
            Err(error) => ManageError::from(error).into_response(),
        };
        response.headers_mut().extend(rate_limit_headers(&verified));
        Ok(response)
    }

    /// Adds the address and the user agent of the client.
    fn with_client(&self, head: &RequestHead<'_>, mut actor: Actor) -> Actor {
        let (ip, user_agent) = self.guard.client(head);
        actor.ip = ip;
        match user_agent {
            Some(user_agent) => actor.user_agent(&user_agent),
            None => actor,
        }
    }
}

impl From<EnrollError> for ManageError {
    fn from(error: EnrollError) -> Self {
        let new = |status, code| Self::new(status, code, &error.to_string());
        match error {
            EnrollError::WrongCode => new(StatusCode::BAD_REQUEST, "invalid_code"),
            EnrollError::ExpiredCode => new(StatusCode::BAD_REQUEST, "expired_code"),
            EnrollError::TooManyAttempts(wait) => {
                let error = new(StatusCode::TOO_MANY_REQUESTS, "rate_limited");
                error.with_retry_after(wait)
            }
            EnrollError::Failed(error) => error.into(),
        }
    }
}
