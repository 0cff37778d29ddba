use std::{
    io,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    routing::get,
};
use http::{Request, Response};
use keyward::{Verified, tower::ApiKeyLayer};
use tower::{Layer, ServiceExt, service_fn};
use tracing_subscriber::fmt::format::FmtSpan;

use super::world::World;
use crate::support::log::holds_a_secret;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs to the returned lines until the guard is dropped.
fn log() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn a_handler_whose_route_requires_no_key_is_a_mistake_that_only_the_log_explains() {
    let world = World::new();
    let (lines, _guard) = log();
    let optional = world.guard_builder().optional().build().unwrap();
    let handler = async |_: Verified| "never";
    let app: Router = Router::new()
        .route("/optional", get(handler).layer(keyward::axum::layer(optional)))
        .route("/forgotten", get(handler))
        .route("/forgotten-optional", get(async |_: Option<Verified>| "never"));
    for (path, hint) in [
        ("/optional", "take Option<Verified>"),
        ("/forgotten", "add keyward::axum::layer(guard)"),
        ("/forgotten-optional", "add keyward::axum::layer(guard)"),
    ] {
        lines.0.lock().unwrap().clear();
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500, "{path}");
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        let body = String::from_utf8(body.into()).unwrap();
        for inside in ["Verified", "layer", "guard", "keyward"] {
            assert!(!body.contains(inside), "{path}: {body}");
        }
        let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let errors = log.lines().filter(|line| line.contains("ERROR") && line.contains(hint));
        assert_eq!(errors.count(), 1, "{path}: {log}");
    }
}

#[tokio::test]
async fn a_span_records_key_id_outcome_and_cache_but_no_secret() {
    let world = World::new();
    let (lines, _guard) = log();
    let issued = world.service.issue().await;
    let handler = async |_: Request<Body>| Ok::<_, io::Error>(Response::new(Body::empty()));
    let service = ApiKeyLayer::new(world.guard()).layer(service_fn(handler));
    let (unknown, revoked) = (world.unknown(), world.revoked().await);
    let good = issued.secret.expose();
    for secret in [good, good, &unknown, &revoked, &format!("{good}{good}"), "k"] {
        let request = Request::builder().header("x-api-key", secret).body(Body::empty()).unwrap();
        service.clone().oneshot(request).await.unwrap();
    }
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let id = issued.key.id;
    let verified = |cache: &str| format!("cache=\"{cache}\" key_id={id} outcome=\"verified\"");
    let spans: Vec<&str> = log.lines().filter(|line| line.contains(" api_key{")).collect();
    let count = |text: &str| spans.iter().filter(|line| line.contains(text)).count();
    assert_eq!(count(&verified("hit")), 1, "{log}");
    assert_eq!(count(&verified("miss")), 1, "{log}");
    assert!(count("outcome=\"invalid_key\"") >= 4, "{log}");
    assert!(!holds_a_secret(&log), "{log}");
}
