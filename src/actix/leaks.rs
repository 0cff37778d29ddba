//! The leak receiver as a resource.

use actix_web::{
    Error, HttpRequest, HttpResponse, Resource,
    web::{self, Bytes, PayloadConfig},
};

use super::response::into_actix_response;
use crate::http::leaks::{LeakReceiver, LeakReport, MAX_BODY};

/// Creates a resource that receives reports by `POST`. Only GitHub needs to know its path.
///
/// # Examples
/// ```
/// use actix_web::App;
/// # fn mount(receiver: keyward::http::leaks::LeakReceiver) {
/// let app = App::new().service(keyward::actix::leaks::resource("/leaks/github", receiver));
/// # }
/// ```
pub fn resource(path: &str, receiver: LeakReceiver) -> Resource {
    let handler = move |request: HttpRequest, body: Result<Bytes, Error>| {
        let receiver = receiver.clone();
        async move { receive(&receiver, &request, body).await }
    };
    web::resource(path).app_data(PayloadConfig::new(MAX_BODY)).route(web::post().to(handler))
}

async fn receive(
    receiver: &LeakReceiver,
    request: &HttpRequest,
    body: Result<Bytes, Error>,
) -> HttpResponse {
    let Ok(body) = body else { return into_actix_response(LeakReceiver::too_large()) };
    let header = |name| request.headers().get(name).map_or(&b""[..], |value| value.as_bytes());
    let report = LeakReport::new(&body)
        .identifier(header("github-public-key-identifier"))
        .signature(header("github-public-key-signature"));
    into_actix_response(receiver.receive(&report).await)
}
