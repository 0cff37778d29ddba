use axum::{
    Router,
    body::{Body, to_bytes},
};
use http::{HeaderMap, Request};
use keyward::{
    Verified,
    axum::openapi::GuardedRoutes,
    http::{
        Credentials,
        openapi::{CallerAuth, document},
    },
    model::Rate,
};
use serde_json::{Value, json};
use tower::ServiceExt;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    declared::{Document, Seen},
    manage::Client,
    world::World,
};
use crate::cache::faulty_store::Fault;

pub const METHODS: [&str; 8] =
    ["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"];

#[tokio::test]
async fn the_document_describes_exactly_the_routes_that_are_served() {
    let world = World::new();
    let ada = Client::new(world.keys(), "acme/ada");
    let document = Client::document();
    let paths = document.0["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 11);
    for (template, described) in paths {
        let path = template.strip_prefix("/v1").unwrap().replace("{id}", "no-such-key");
        let mut all: Vec<_> = METHODS.into_iter().collect();
        // `HEAD` is answered where `GET` is, and not described.
        let of = |method: &str| if method == "HEAD" { "get".into() } else { method.to_lowercase() };
        all.retain(|method| described.get(of(method)).is_some());
        all.sort_unstable();
        for method in METHODS {
            let reply = ada.call(method, &path, "").await;
            assert_eq!(reply.status != 405, all.contains(&method), "{method} {path}");
            if let Some(allowed) = reply.fields.get("allow") {
                let mut allowed: Vec<_> = allowed.to_str().unwrap().split(", ").collect();
                allowed.sort_unstable();
                assert_eq!(allowed, all, "{path}");
            }
        }
    }
}

#[test]
fn the_document_is_valid_openapi_31_and_its_references_resolve() {
    let Document(document) = Client::document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = Vec::new();
    for operation in document["paths"].as_object().unwrap().values() {
        for described in operation.as_object().unwrap().values() {
            ids.push(described["operationId"].as_str().unwrap());
            assert_eq!(described["security"], json!([{ "session": [] }]));
        }
    }
    assert_eq!(ids.len(), 14);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 14, "operation ids are unique");
    assert_eq!(document["components"]["securitySchemes"]["session"]["in"], "header");
    refer(&document, &document);
}

fn refer(part: &Value, document: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(Value::String(to)) = fields.get("$ref") {
                let found = document.pointer(to.strip_prefix('#').unwrap());
                assert!(found.is_some(), "{to}");
            }
            fields.values().for_each(|part| refer(part, document));
        }
        Value::Array(items) => items.iter().for_each(|part| refer(part, document)),
        _ => {}
    }
}

#[tokio::test]
async fn routes_behind_a_guard_describe_its_security_and_error_responses() {
    let world = World::new();
    let (app, document) = service(&world);
    let security = |path: &str| document.operation("GET", path).unwrap()["security"].clone();
    let reads = json!([{ "bearer": ["builds:read"] }, { "x-api-key": ["builds:read"] }]);
    assert_eq!(security("/builds"), reads);
    let either = json!([{ "x-key": ["a", "b"] }, { "x-key": ["a", "c"] }]);
    assert_eq!(security("/either"), either);
    assert_eq!(security("/"), json!([{ "bearer": [] }, { "x-api-key": [] }, {}]));
    assert_eq!(document.operation("GET", "/open").unwrap().get("security"), None);
    let schemes = &document.0["components"]["securitySchemes"];
    assert_eq!(schemes["bearer"], json!({ "type": "http", "scheme": "bearer" }));
    assert_eq!(schemes["x-key"], json!({ "type": "apiKey", "in": "header", "name": "x-key" }));
    refer(&document.0, &document.0);

    let limited = world.limited(Rate::per_hour(1)).await;
    let good = world.reader().await;
    let narrow = world.service.issue_with(keyward::model::Access::only(["deploy"]).unwrap()).await;
    let mut seen = Vec::new();
    for path in ["/builds", "/either", "/", "/open"] {
        for key in ["", "nonsense", &good, narrow.secret.expose(), &limited, &limited] {
            for field in ["x-api-key", "x-key"] {
                let fields = [(field, key)];
                seen.push(ask(&app, &document, path, &fields[usize::from(key.is_empty())..]).await);
            }
        }
        let twice = [("x-api-key", "a"), ("x-api-key", "b"), ("x-key", "a"), ("x-key", "b")];
        seen.push(ask(&app, &document, path, &twice).await);
    }
    world.store.set_find_fault(Fault::Unavailable);
    let unknown = world.unknown();
    seen.push(ask(&app, &document, "/builds", &[("x-api-key", &unknown)]).await);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [200, 400, 401, 403, 429, 503]);
}

#[test]
fn a_guard_keeps_the_responses_that_the_route_describes() {
    let (_, document) = service(&World::new());
    let forbidden = &document.operation("GET", "/builds").unwrap()["responses"]["403"];
    assert_eq!(forbidden["description"], "Not on Sundays");
    let shapes = &forbidden["content"]["application/problem+json"]["schema"]["anyOf"];
    assert_eq!(shapes.as_array().unwrap().len(), 2, "{forbidden}");
    assert!(forbidden["headers"]["WWW-Authenticate"].is_object());
}

#[test]
fn callers_that_authenticate_by_key_are_described_by_their_guard() {
    let guard = World::new().guard_builder().require("keys:manage").build().unwrap();
    let Document(document) = Document::new(&document(&CallerAuth::api_key(&guard)));
    let rotate = &document["paths"]["/api-keys/{id}/rotate"]["post"];
    assert_eq!(rotate["security"][0], json!({ "bearer": ["keys:manage"] }));
    assert!(rotate["responses"]["429"].is_object());
    let forbidden = rotate["responses"]["403"].to_string();
    assert!(forbidden.contains("insufficient_scope") && forbidden.contains("beyond_reach"));
}

async fn ask(app: &Router, document: &Document, path: &str, fields: &[(&str, &str)]) -> u16 {
    let request = fields
        .iter()
        .fold(Request::builder().uri(path), |request, (name, value)| request.header(*name, *value));
    let request = request.body(Body::empty()).unwrap();
    let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, 100_000).await.unwrap();
    let body = std::str::from_utf8(&body).unwrap();
    let fields: &HeaderMap = &parts.headers;
    document.expect("GET", path, &Seen { status: parts.status.as_u16(), fields, body });
    parts.status.as_u16()
}

#[utoipa::path(get, path = "/builds", responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = 403, body = String, content_type = "application/problem+json", description = "Not on Sundays"),
))]
async fn builds(_: Verified) -> &'static str {
    "builds"
}

#[utoipa::path(get, path = "/either", responses((status = 200, body = String, content_type = "text/plain")))]
async fn either(_: Verified) -> &'static str {
    "either"
}

#[utoipa::path(get, path = "/", responses((status = 200, body = String, content_type = "text/plain")))]
async fn front_page(_: Option<Verified>) -> &'static str {
    "hello"
}

#[utoipa::path(get, path = "/open", responses((status = 200, body = String, content_type = "text/plain")))]
async fn open() -> &'static str {
    "open"
}

fn service(world: &World) -> (Router, Document) {
    let either_of = world
        .guard_builder()
        .require("a")
        .require_any(["b", "c"])
        .credentials(Credentials::header("x-key"))
        .build()
        .unwrap();
    let (app, document) = OpenApiRouter::new()
        .guarded_routes(
            &world.guard_builder().require("builds:read").build().unwrap(),
            routes!(builds),
        )
        .guarded_routes(&either_of, routes!(either))
        .guarded_routes(&world.guard_builder().optional().build().unwrap(), routes!(front_page))
        .routes(routes!(open))
        .split_for_parts();
    (app, Document::new(&document))
}
