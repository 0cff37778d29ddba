//! The receiver of leaked keys as a resource.

use actix_web::{
    Error, HttpRequest, HttpResponse, Resource,
    web::{self, Bytes, PayloadConfig},
};

use super::manage::translated;
use crate::http::leaks::{LeakReceiver, MAX_BODY, LeakReport};

/// Receives reports by `POST`, under a path that nobody but GitHub needs to know.
///
/// # Examples
/// ```
/// use actix_web::App;
/// # fn mount(leaks: keyward::http::leaks::LeakReceiver) {
/// let app = App::new().service(keyward::actix::leaks::resource("/leaks/github", leaks));
/// # }
/// ```
pub fn resource(path: &str, leaks: LeakReceiver) -> Resource {
    let handler = move |request: HttpRequest, body: Result<Bytes, Error>| {
        let leaks = leaks.clone();
        async move { receive(&leaks, &request, body).await }
    };
    web::resource(path).app_data(PayloadConfig::new(MAX_BODY)).route(web::post().to(handler))
}

async fn receive(leaks: &LeakReceiver, request: &HttpRequest, body: Result<Bytes, Error>) -> HttpResponse {
    let Ok(body) = body else { return translated(LeakReceiver::too_large()) };
    let field = |name| request.headers().get(name).map_or(&b""[..], |value| value.as_bytes());
    let report = LeakReport::new(&body)
        .identifier(field("github-public-key-identifier"))
        .signature(field("github-public-key-signature"));
    translated(leaks.receive(&report).await)
}
