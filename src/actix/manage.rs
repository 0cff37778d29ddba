//! The management API as routes.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    Error, FromRequest, HttpRequest, HttpResponse, Resource,
    body::{BodySize, BoxBody, MessageBody},
    http::StatusCode,
    web::{self, Bytes, PayloadConfig, ServiceConfig},
};

use super::{into_actix_response, request_head};
use crate::{
    api::ApiKeys,
    http::{
        RequestHead,
        manage::{BodyStream, Caller, MAX_BODY, ManageBody, ManageRequest, ManagementApi, SignIn},
        too_large,
    },
};

/// Adds the routes of [`http::manage`](crate::http::manage) to an app or a scope, by `configure`.
///
/// `C` is the host's own extractor, which authenticates the [`Caller`]. A request that it rejects is
/// not processed. Without the type parameter, this does not compile:
///
/// ```compile_fail
/// # let keys = keyward::testing::TestKeys::new().keys;
/// let app = actix_web::App::new().configure(keyward::actix::manage::routes(keys));
/// ```
///
/// # Examples
/// ```
/// # use actix_web::{App, FromRequest, web};
/// # use keyward::{ApiKeys, http::manage::Caller};
/// # fn app<Session: FromRequest + Into<Caller> + 'static>(keys: ApiKeys) {
/// let api = web::scope("/v1").configure(keyward::actix::manage::routes::<Session>(keys));
/// let app = App::new().service(api);
/// # }
/// ```
pub fn routes<C>(keys: ApiKeys) -> impl FnOnce(&mut ServiceConfig)
where
    C: FromRequest + Into<Caller> + 'static,
{
    let api = ManagementApi::new(keys);
    let handler = move |caller: C, request: HttpRequest, body: Result<Bytes, Error>| {
        let api = api.clone();
        async move {
            let caller = caller.into();
            receive(&request, body, async |_, received| api.handle(&caller, received).await).await
        }
    };
    move |config| {
        for path in
            ["api-keys", "api-keys/.*", "audit", r"audit\.jsonl", r"audit\.csv", "introspect"]
        {
            config.service(resource(path).to(handler.clone()));
        }
    }
}

/// Adds the routes of [`SignIn`] to an app or a scope, by `configure`.
pub fn sign_in(sign_in: SignIn) -> impl FnOnce(&mut ServiceConfig) {
    let handler = move |request: HttpRequest, body: Result<Bytes, Error>| {
        let sign_in = sign_in.clone();
        async move {
            receive(&request, body, async |head, received| {
                sign_in.handle(head, received).await.map(ManageBody::from)
            })
            .await
        }
    };
    move |config| {
        for path in ["auth/otp", "auth/otp/verify", "auth/key"] {
            config.service(resource(path).to(handler.clone()));
        }
    }
}

/// Creates a resource for the paths that match a regular expression. Its last parameter is the path
/// relative to where it is mounted.
fn resource(paths: &str) -> Resource {
    web::resource(format!("/{{path:{paths}}}")).app_data(PayloadConfig::new(MAX_BODY))
}

async fn receive(
    request: &HttpRequest,
    body: Result<Bytes, Error>,
    respond: impl AsyncFnOnce(&RequestHead<'_>, &ManageRequest<'_>) -> http::Response<ManageBody>,
) -> HttpResponse {
    let Ok(body) = body else { return into_actix_response(too_large(MAX_BODY)) };
    let Ok(method) = http::Method::from_bytes(request.method().as_str().as_bytes()) else {
        return HttpResponse::new(StatusCode::METHOD_NOT_ALLOWED);
    };
    let path = request.match_info().iter().last().map_or("", |(_, path)| path);
    let mut head = request_head(request);
    head.path = path;
    let request = ManageRequest::received(&method, &head, &body);
    into_actix_response(respond(&head, &request).await.map(|body| match body.into_complete() {
        Ok(text) => BoxBody::new(text),
        Err(stream) => BoxBody::new(stream),
    }))
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
