use std::net::IpAddr;

use http::{Method, Response, StatusCode};
use serde::Deserialize;

use super::{
    Call, Caller,
    failure::Failure,
    reply::{Answer, json, message},
    views::{IssuedView, KeyView},
};
use crate::{
    api::ApiKeys,
    enroll::{EmailAddress, EnrollError, Enrollment},
    http::{ClientIp, Guard, Incoming, guard::Checked, success_fields},
    model::Actor,
    verify::{Verified, whole_seconds},
};

/// What people do who have no session: they sign in by a code, and ask about the key they have.
///
/// | call | does |
/// |---|---|
/// | `POST /auth/otp` `{"email"}` | has a code sent, if there is an account; 202 in any case |
/// | `POST /auth/otp/verify` `{"email", "code"}` | turns a code into a key: 201, with the secret this once |
/// | `GET /auth/key` | the key that it is called with |
/// | `DELETE /auth/key` | revokes the key that it is called with |
///
/// It has routes of its own beside those of the [management API](super): the adapters bring them in by
/// `axum::manage::sign_in` and `actix::manage::sign_in`. Problems are `invalid_code` and
/// `expired_code` (400), `rate_limited` (429, with `Retry-After`), and those of the other routes.
///
/// Where the address of the peer is not known, only what is counted per e-mail address is limited.
#[derive(Clone, Debug)]
pub struct SignIn {
    enrollment: Enrollment,
    keys: ApiKeys,
    guard: Guard,
}

/// `POST /auth/otp`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    email: String,
}

/// `POST /auth/otp/verify`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Present {
    email: String,
    code: String,
}

/// Where a call came from.
struct Origin {
    ip: Option<IpAddr>,
    user_agent: Option<String>,
}

impl SignIn {
    /// Codes and keys of this enrollment.
    pub fn new(enrollment: Enrollment) -> Self {
        let keys = enrollment.keys().clone();
        Self { enrollment, guard: Guard::new(keys.clone()), keys }
    }

    /// How to find whose address a call came from, as [`Guard::client_ip`]: limits are per network, so
    /// behind a proxy it MUST be set.
    #[must_use]
    pub fn client_ip(mut self, client_ip: ClientIp) -> Self {
        self.guard = self.guard.client_ip(client_ip);
        self
    }

    /// Does what is called for, and answers; the path is relative to where it is mounted.
    ///
    /// What the request itself tells is read before this returns.
    pub fn answer<'a>(
        &'a self,
        request: &Incoming<'_>,
        call: &'a Call<'a>,
    ) -> impl Future<Output = Response<String>> + Send + use<'a> {
        let (ip, user_agent) = self.guard.origin(request);
        let origin = Origin { ip, user_agent };
        let path = call.path.strip_prefix('/').unwrap_or(call.path);
        let checked = (path == "auth/key").then(|| self.guard.look(request, None));
        async move {
            let answer = match (path, checked) {
                ("auth/otp", _) if call.method == Method::POST => self.ask(origin, call).await,
                ("auth/otp/verify", _) if call.method == Method::POST => {
                    self.present(origin, call).await
                }
                ("auth/otp" | "auth/otp/verify", _) => Err(Failure::method("POST".into())),
                (_, Some(_)) if call.method != Method::GET && call.method != Method::DELETE => {
                    Err(Failure::method("GET, DELETE".into()))
                }
                (_, Some(checked)) => return self.with_key(checked, origin, call.method).await,
                _ => Err(Failure::no_such_page()),
            };
            answer.unwrap_or_else(Failure::into_response)
        }
    }

    async fn ask(&self, origin: Origin, call: &Call<'_>) -> Answer {
        let email: EmailAddress = call.read::<Ask>()?.email.parse()?;
        self.enrollment.request_code(&email, &origin.actor(&email)).await?;
        let told =
            "If this address has an account, a code is on its way. It is good for 10 minutes.";
        message(told).map(|mut response| {
            *response.status_mut() = StatusCode::ACCEPTED;
            response
        })
    }

    async fn present(&self, origin: Origin, call: &Call<'_>) -> Answer {
        let Present { email, code } = call.read()?;
        let email: EmailAddress = email.parse()?;
        let actor = origin.actor(&email);
        let issued = self.enrollment.redeem_code(&email, &code, &actor).await?;
        let caller = Caller::new(issued.key.owner.clone(), actor);
        json(StatusCode::CREATED, &IssuedView::new(&issued, &caller, self.keys.now()))
    }

    async fn with_key(
        &self,
        checked: Checked,
        origin: Origin,
        method: &Method,
    ) -> Response<String> {
        let verified = match checked {
            Checked::Presents(pending) => self.guard.verify(pending).await,
            Checked::Refused(refusal) => Err(refusal),
            // Neither is there without an optional guard, or another one further outside.
            Checked::Known | Checked::Nobody => {
                return Failure::internal().into_response();
            }
        };
        let verified = match verified {
            Ok(verified) => verified,
            Err(refusal) => return refusal.into_response(),
        };
        let answer = if method == Method::GET {
            json(
                StatusCode::OK,
                &KeyView::new(verified.key(), &Caller::of_key(&verified), verified.at()),
            )
        } else {
            self.revoke(&verified, origin).await
        };
        let mut response = answer.unwrap_or_else(Failure::into_response);
        response.headers_mut().extend(success_fields(&verified));
        response
    }

    async fn revoke(&self, verified: &Verified, origin: Origin) -> Answer {
        let actor = origin.seen(Actor::key(verified));
        self.keys.revoke(verified.owner(), verified.key().id, "by itself", &actor).await?;
        message("API key revoked")
    }

    /// What asks for the key of those who have one.
    #[cfg(feature = "openapi")]
    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The answer to a body of more than [`MAX_BODY`](super::MAX_BODY).
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(crate) fn too_large() -> Response<String> {
        super::Manage::too_large()
    }
}

impl Origin {
    /// Who says that this address is his.
    fn actor(self, email: &EmailAddress) -> Actor {
        self.seen(Actor::account(email.as_str()))
    }

    fn seen(self, mut actor: Actor) -> Actor {
        if let Some(ip) = self.ip {
            actor = actor.ip(ip);
        }
        if let Some(user_agent) = &self.user_agent {
            actor = actor.user_agent(user_agent);
        }
        actor
    }
}

impl From<EnrollError> for Failure {
    fn from(error: EnrollError) -> Self {
        let detail = error.to_string();
        match error {
            EnrollError::WrongCode => Self::new(StatusCode::BAD_REQUEST, "invalid_code", detail),
            EnrollError::ExpiredCode => Self::new(StatusCode::BAD_REQUEST, "expired_code", detail),
            EnrollError::TooManyAttempts(wait) => {
                let seconds = whole_seconds(wait).max(1);
                Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).later(seconds)
            }
            EnrollError::Failed(error) => error.into(),
        }
    }
}
