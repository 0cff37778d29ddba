use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use axum::body::Body;
use http::{Request, Response};
use keyward::{Access, model::Rate, tower::ApiKeyLayer};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::{Layer, ServiceExt, service_fn};

use super::world::{World, text};
use crate::{cache::faulty_store::Fault, support::log::holds_a_secret};

#[tokio::test]
async fn checks_are_counted_by_outcome_and_no_label_identifies_a_key() {
    let recorder = DebuggingRecorder::new();
    let snapshots = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let world = World::new();
    let handler = async |_: Request<Body>| Ok::<_, io::Error>(Response::new(Body::empty()));
    let guard = world.guard_builder().require("builds:read").build().unwrap();
    let service = ApiKeyLayer::new(guard).layer(service_fn(handler));
    let (good, revoked, unknown) = (world.reader().await, world.revoked().await, world.unknown());
    let narrow = text(&world.service.issue_with(Access::only(["deploy"]).unwrap()).await);
    let limited = world.limited(Rate::per_hour(1)).await;
    let ask = async |secret: &str| {
        let request = Request::builder().header("x-api-key", secret).body(Body::empty()).unwrap();
        service.clone().oneshot(request).await.unwrap();
    };
    for secret in [&good, &good, &good, &revoked, &unknown, &narrow, &limited, &limited] {
        ask(secret).await;
    }
    ask("").await;
    ask(&good[..20]).await;
    world.store.set_find_fault(Fault::Unavailable);
    ask(&world.unknown()).await;

    let (mut counts, mut timed) = (BTreeMap::new(), 0);
    let (mut names, mut labels) = (BTreeSet::new(), BTreeSet::new());
    for (key, _, _, value) in snapshots.snapshot().into_vec() {
        let shown = format!("{key:?}");
        assert!(!holds_a_secret(&shown) && !shown.contains("ada"), "{shown}");
        let key = key.key();
        names.insert(key.name().to_owned());
        labels.extend(key.labels().map(|label| label.key().to_owned()));
        let values: Vec<_> = key.labels().map(|label| label.value().to_owned()).collect();
        match value {
            DebugValue::Counter(count) => {
                counts.insert(values.join(" "), count);
            }
            DebugValue::Histogram(times) => timed += times.len(),
            DebugValue::Gauge(_) => panic!("{shown}"),
        }
    }
    let expected = [
        ("access_missing", 1),
        ("insufficient_scope miss", 1),
        ("invalid_key hit", 1),
        ("invalid_key miss", 2),
        ("invalid_key none", 1),
        ("malformed", 1),
        ("rate_limited hit", 1),
        ("revoked", 1),
        ("unavailable miss", 1),
        ("unknown", 1),
        ("verified hit", 2),
        ("verified miss", 2),
    ];
    assert_eq!(counts, expected.map(|(labels, count)| (labels.to_owned(), count)).into());
    assert_eq!(timed, 11, "each check is measured once");
    let all = ["keyward_check_seconds", "keyward_checks_total", "keyward_denials_total"];
    assert_eq!(names, all.map(String::from).into());
    assert_eq!(labels, ["cache", "outcome", "reason"].map(String::from).into());
}
