//! A glob import of the prelude shadows no crate: this file does not compile if it does.

use axum::{Router, routing::get};
use http::StatusCode;
use keyward::prelude::*;
use serde_json::Value;
use tower::ServiceExt as _;

async fn account(verified: Verified) -> String {
    verified.owner().account().into()
}

#[tokio::test]
async fn the_prelude_does_not_shadow_crates() {
    let keys =
        ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build().unwrap()).build();
    let guard = keyward::http::Guard::new(keys);
    let app: Router = Router::new().route("/", get(account)).layer(keyward::axum::layer(guard));
    let request = axum::extract::Request::get("/").body(axum::body::Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["code"], "missing_key");
}
