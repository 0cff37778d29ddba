//! The management API as routes.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    Error, FromRequest, HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    http::StatusCode,
    web::{self, Bytes, PayloadConfig, ServiceConfig},
};

use super::middleware::{into_actix_response, request_head};
use crate::{
    api::ApiKeys,
    http::manage::{
        BodyStream, Caller, MAX_BODY, ManageBody, ManageRequest, ManagementApi, SignIn, too_large,
    },
};

/// Adds the routes of [`http::manage`](crate::http::manage) to an app or a scope, by `configure`.
///
/// `C` is the host's own extractor, which authenticates the caller: by a session, or by a key with a
/// scope for managing keys. A request that it rejects is not processed. The type parameter is
/// required; this does not compile:
///
/// ```compile_fail
/// # let keys = keyward::testing::TestKeys::new().keys;
/// let app = actix_web::App::new().configure(keyward::actix::manage::routes(keys));
/// ```
///
/// # Examples
/// ```
/// use actix_web::{App, FromRequest, HttpRequest, dev::Payload, error::ErrorUnauthorized, web};
/// use keyward::{Actor, Owner, http::manage::Caller};
///
/// /// The session of the caller.
/// struct Session { account: String }
///
/// impl FromRequest for Session {
///     type Error = actix_web::Error;
///     type Future = std::future::Ready<Result<Self, actix_web::Error>>;
///
///     fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
///         // Look up the cookie in the host's own sessions.
///         # let _ = request;
///         std::future::ready(Err(ErrorUnauthorized("log in first")))
///     }
/// }
///
/// impl From<Session> for Caller {
///     fn from(session: Session) -> Self {
///         let owner = Owner::account_only(&session.account).expect("sessions have accounts");
///         Caller::new(owner, Actor::account(&session.account))
///     }
/// }
///
/// # let keys = keyward::testing::TestKeys::new().keys;
/// let api = web::scope("/v1").configure(keyward::actix::manage::routes::<Session>(keys));
/// let app = App::new().service(api);
/// ```
pub fn routes<C>(keys: ApiKeys) -> impl FnOnce(&mut ServiceConfig)
where
    C: FromRequest + Into<Caller> + 'static,
{
    let api = ManagementApi::new(keys);
    move |config| {
        for path in PATHS {
            let (api, root) = (api.clone(), path.trim_end_matches("{rest:.*}"));
            let handler = move |caller: C, request: HttpRequest, body: Result<Bytes, Error>| {
                let api = api.clone();
                async move {
                    // Paths are relative to where the routes are mounted.
                    let rest = request.match_info().get("rest").unwrap_or_default();
                    let (path, caller) = (format!("{root}{rest}"), caller.into());
                    let respond = async |received: &ManageRequest<'_>| {
                        into_actix_response(api.handle(&caller, received).await.map(into_body))
                    };
                    receive(&path, &request, body, respond).await
                }
            };
            config.service(web::resource(path).app_data(PayloadConfig::new(MAX_BODY)).to(handler));
        }
    }
}

/// Adds the routes of [`SignIn`] to an app or a scope, by `configure`.
///
/// # Examples
/// ```
/// # fn example(enrollment: keyward::enroll::Enrollment) {
/// use keyward::http::manage::SignIn;
///
/// let sign_in = SignIn::new(enrollment);
/// let app = actix_web::App::new().configure(keyward::actix::manage::sign_in(sign_in));
/// # }
/// ```
pub fn sign_in(sign_in: SignIn) -> impl FnOnce(&mut ServiceConfig) {
    move |config| {
        for path in ["/auth/otp", "/auth/otp/verify", "/auth/key"] {
            let sign_in = sign_in.clone();
            let handler = move |request: HttpRequest, body: Result<Bytes, Error>| {
                let sign_in = sign_in.clone();
                async move {
                    let respond = async |received: &ManageRequest<'_>| {
                        let response = sign_in.handle(&request_head(&request), received);
                        into_actix_response(response.await)
                    };
                    receive(path, &request, body, respond).await
                }
            };
            config.service(web::resource(path).app_data(PayloadConfig::new(MAX_BODY)).to(handler));
        }
    }
}

async fn receive(
    path: &str,
    request: &HttpRequest,
    body: Result<Bytes, Error>,
    respond: impl AsyncFnOnce(&ManageRequest<'_>) -> HttpResponse,
) -> HttpResponse {
    let Ok(body) = body else { return into_actix_response(too_large()) };
    let Ok(method) = http::Method::from_bytes(request.method().as_str().as_bytes()) else {
        return HttpResponse::new(StatusCode::METHOD_NOT_ALLOWED);
    };
    let header = |name: &str| request.headers().get(name).map(|value| value.as_bytes());
    let query = request.query_string();
    respond(&ManageRequest::received(&method, path, query, &body, header)).await
}

fn into_body(body: ManageBody) -> BoxBody {
    match body.into_complete() {
        Ok(text) => BoxBody::new(text),
        Err(chunks) => BoxBody::new(BodyStream::new(chunks)),
    }
}

impl MessageBody for BodyStream {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.poll_chunk(cx).map_ok(Bytes::from).map_err(Into::into)
    }
}

const PATHS: [&str; 6] =
    ["/api-keys", "/api-keys/{rest:.*}", "/audit", "/audit.jsonl", "/audit.csv", "/introspect"];
