use std::{
    io,
    sync::{Arc, Mutex},
};

use axum::body::Body;
use http::{Request, Response};
use keyward::tower::ApiKeyLayer;
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

#[tokio::test]
async fn a_span_records_key_id_outcome_and_cache_but_no_secret() {
    let world = World::new();
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
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
