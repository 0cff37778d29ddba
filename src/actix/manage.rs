//! The management API as routes.

use actix_web::{
    Error, FromRequest, HttpRequest, HttpResponse,
    body::MessageBody,
    http::{
        StatusCode,
        header::{CONTENT_TYPE, HeaderName, HeaderValue},
    },
    web::{self, Bytes, PayloadConfig, ServiceConfig},
};

use super::streamed;
use crate::{
    api::ApiKeys,
    http::{
        Incoming,
        manage::{Call, Caller, MAX_BODY, Manage, SignIn},
    },
};

/// The routes of [`http::manage`](crate::http::manage), to be configured into an app or a scope.
///
/// `C` is the host's own extractor of who is calling: a session, a key with a scope for that. What
/// it rejects is never looked at. Without one it does not compile:
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
/// /// OwnerScope session it is.
/// struct Session { account: String }
///
/// impl FromRequest for Session {
///     type Error = actix_web::Error;
///     type Future = std::future::Ready<Result<Self, actix_web::Error>>;
///
///     fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
///         // Look the cookie up in the host's own sessions.
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
    let manage = Manage::new(keys);
    move |config| {
        for path in PATHS {
            let (manage, root) = (manage.clone(), path.trim_end_matches("{rest:.*}"));
            let handler = move |caller: C, request: HttpRequest, body: Result<Bytes, Error>| {
                let manage = manage.clone();
                async move { answer(&manage, &caller.into(), root, &request, body).await }
            };
            let limit = PayloadConfig::new(MAX_BODY);
            config.service(web::resource(path).app_data(limit).route(web::to(handler)));
        }
    }
}

/// The routes by which people sign in who have no session, to be configured into an app or a scope:
/// see [`SignIn`].
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
                async move { answer_sign_in(&sign_in, path, &request, body).await }
            };
            let limit = PayloadConfig::new(MAX_BODY);
            config.service(web::resource(path).app_data(limit).route(web::to(handler)));
        }
    }
}

async fn answer_sign_in(
    sign_in: &SignIn,
    path: &str,
    request: &HttpRequest,
    body: Result<Bytes, Error>,
) -> HttpResponse {
    let Ok(body) = body else { return translated(SignIn::too_large()) };
    let Ok(method) = http::Method::from_bytes(request.method().as_str().as_bytes()) else {
        return HttpResponse::new(StatusCode::METHOD_NOT_ALLOWED);
    };
    let query = Some(request.query_string()).filter(|query| !query.is_empty());
    let peer = request.peer_addr().map(|peer| peer.ip());
    let content_type = request.headers().get(CONTENT_TYPE);
    let content_type = content_type.map_or(&b""[..], |value| value.as_bytes());
    let call = Call::new(&method, path).body(content_type, &body);
    let answer = {
        let incoming = Incoming::new(request.headers(), request.path(), query, peer);
        sign_in.answer(&incoming, &call)
    };
    translated(answer.await)
}

async fn answer(
    manage: &Manage,
    caller: &Caller,
    root: &str,
    request: &HttpRequest,
    body: Result<Bytes, Error>,
) -> HttpResponse {
    let Ok(body) = body else { return translated(Manage::too_large()) };
    // Where the routes are mounted is none of the API's business.
    let path = format!("{root}{}", request.match_info().get("rest").unwrap_or_default());
    let Ok(method) = http::Method::from_bytes(request.method().as_str().as_bytes()) else {
        return HttpResponse::new(StatusCode::METHOD_NOT_ALLOWED);
    };
    let field = |name: &str| request.headers().get(name).map(|value| value.as_bytes());
    let call = Call::new(&method, &path)
        .query(request.query_string())
        .body(field(CONTENT_TYPE.as_str()).unwrap_or_default(), &body);
    let call = match field("idempotency-key") {
        Some(value) => call.idempotency_key(value),
        None => call,
    };
    translated(manage.answer(caller, &call).await.map(streamed::body))
}

/// actix-web has the types of `http` 0.2: what is sent is the same, byte for byte.
pub(super) fn translated(response: http::Response<impl MessageBody + 'static>) -> HttpResponse {
    let (parts, body) = response.into_parts();
    let status = StatusCode::from_u16(parts.status.as_u16());
    let mut builder = HttpResponse::build(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    for (name, value) in &parts.headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            builder.insert_header((name, value));
        }
    }
    builder.body(body)
}

const PATHS: [&str; 6] =
    ["/api-keys", "/api-keys/{rest:.*}", "/audit", "/audit.jsonl", "/audit.csv", "/introspect"];
