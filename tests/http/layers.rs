//! The tower layer, without a server.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use actix_web::{
    App,
    dev::Service as _,
    test::{TestRequest, init_service, read_body},
    web,
};
use axum::body::Body;
use http::{HeaderValue, Request, Response, StatusCode};
use keyward::{
    Access, Verified,
    actix::ApiKeyAuth,
    http::{
        ClientIp, Credentials, Guard,
        leaks::{LeakReceiver, LeakReport},
        manage::{Caller, ManageRequest, ManagementApi},
        openapi::CallerAuth,
    },
    model::{Networks, Rate},
    tower::{ApiKeyLayer, UnlessVerifiedLayer},
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_http::csrf::CsrfLayer;

use super::{
    leaks::GitHub,
    world::{World, text},
};

async fn handler(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let name = request.extensions().get::<Verified>().map(|key| key.owner().account().to_owned());
    Ok(Response::new(name.unwrap_or_default().into()))
}

async fn status<S>(service: &S, request: Request<Body>) -> StatusCode
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    service.clone().oneshot(request).await.unwrap().status()
}

fn with_key(secret: &str) -> Request<Body> {
    Request::builder().header("x-api-key", secret).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn require_any_accepts_any_of_the_scopes_and_require_all_of_them() {
    let world = World::new();
    let scopes = ["builds:read", "builds:write"];
    let any = ApiKeyLayer::new(world.guard_builder().require_any(scopes).build().unwrap())
        .layer(service_fn(handler));
    let guard = world.guard_builder().require(scopes[0]).require(scopes[1]).build().unwrap();
    let all = ApiKeyLayer::new(guard).layer(service_fn(handler));
    for (access, one, both) in [
        (&["builds:read"][..], 200, 403),
        (&["builds:write"][..], 200, 403),
        (&scopes[..], 200, 200),
        (&["deploy"][..], 403, 403),
        (&[][..], 403, 403),
    ] {
        let secret = text(&world.service.issue_with(Access::only(access).unwrap()).await);
        assert_eq!(status(&any, with_key(&secret)).await, one, "{access:?}");
        assert_eq!(status(&all, with_key(&secret)).await, both, "{access:?}");
    }
}

#[tokio::test]
async fn an_invalid_required_scope_is_rejected_when_the_guard_is_built() {
    let world = World::new();
    for scope in ["projects read", "", "a\"b", "a\\b", "gr\u{fc}n", "a\nb"] {
        let builders = [
            world.guard_builder().require(scope),
            world.guard_builder().require("a").require(scope),
            world.guard_builder().require_any(["a", scope]),
            world.guard_builder().optional().require_any([scope]),
        ];
        for builder in builders {
            let error = builder.build().unwrap_err();
            assert_eq!(error.what(), "scope");
            let text = error.to_string();
            assert!(text.contains(&format!("{scope:?}")) && text.contains("use "), "{text}");
        }
    }
    let longest = "x".repeat(100).leak();
    assert!(world.guard_builder().require(longest).build().is_ok());
    assert!(world.guard_builder().require("x".repeat(101).leak()).build().is_err());
    let no_tenant = world.guard_builder().tenant_in_path("/t").build().unwrap_err();
    assert_eq!(no_tenant.what(), "tenant path");
}

#[tokio::test]
async fn a_nested_layer_counts_a_request_once_and_checks_its_own_scopes() {
    let world = World::new();
    let inner = ApiKeyLayer::new(world.guard_builder().require("builds:read").build().unwrap());
    let outer = ApiKeyLayer::new(world.guard());
    let service = outer.layer(inner.layer(inner.layer(service_fn(handler))));
    let secret = world.limited(Rate::per_hour(2)).await;
    assert_eq!(status(&service, with_key(&secret)).await, 200);
    assert_eq!(status(&service, with_key(&secret)).await, 200);
    assert_eq!(status(&service, with_key(&secret)).await, 429);
    let other = world.service.issue_with(Access::only(["deploy"]).unwrap()).await;
    assert_eq!(status(&service, with_key(&text(&other))).await, 403);
    let strangers = World::new();
    let both = outer.layer(ApiKeyLayer::new(strangers.guard()).layer(service_fn(handler)));
    assert_eq!(
        status(&both, with_key(&text(&other))).await,
        401,
        "the inner guard has another ApiKeys"
    );
}

#[tokio::test]
async fn the_handler_is_not_called_before_the_key_is_verified() {
    let world = World::new();
    let calls = Arc::new(Mutex::new(0));
    let counted = calls.clone();
    let inner = service_fn(move |request| {
        *counted.lock().unwrap() += 1;
        handler(request)
    });
    let service = ApiKeyLayer::new(world.guard_builder().require("builds:read").build().unwrap())
        .layer(inner);
    let other = text(&world.service.issue_with(Access::only(["deploy"]).unwrap()).await);
    for secret in ["", "guess", &world.unknown(), &world.revoked().await, &other] {
        assert_ne!(status(&service, with_key(secret)).await, 200);
    }
    assert_ne!(status(&service, Request::new(Body::empty())).await, 200);
    assert_eq!(*calls.lock().unwrap(), 0);
    assert_eq!(status(&service, with_key(&world.reader().await)).await, 200);
    assert_eq!(*calls.lock().unwrap(), 1);
}

#[tokio::test]
async fn the_header_with_the_secret_is_marked_sensitive() {
    let world = World::new();
    let service = ApiKeyLayer::new(world.guard_builder().optional().build().unwrap()).layer(
        service_fn(async |request: Request<Body>| {
            assert!(request.headers().values().all(|value| value.is_sensitive()));
            Ok::<_, Infallible>(Response::new(Body::from(format!("{:?}", request.headers()))))
        }),
    );
    let secret = world.reader().await;
    let request = Request::builder().header("authorization", format!("Bearer {secret}"));
    let response = service.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let shown = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
    assert!(!String::from_utf8_lossy(&shown).contains(&secret));
    let other = Request::builder().header("authorization", "Basic YTpi").body(Body::empty());
    assert_eq!(status(&service, other.unwrap()).await, 200);
}

#[tokio::test]
async fn only_keys_of_the_tenant_named_by_the_request_are_accepted() {
    let world = World::new();
    let tenant =
        |request: &keyward::http::RequestHead<'_>| request.path().split('/').nth(1).map(Into::into);
    let rules = world.guard_builder().tenant(tenant).build().unwrap();
    let inner = ApiKeyLayer::new(rules.clone()).layer(service_fn(handler));
    let nested = ApiKeyLayer::new(world.guard()).layer(inner.clone());
    let secret = world.reader().await;
    for (path, expected) in [("/acme/builds", 200), ("/umbrella/builds", 401), ("/", 401)] {
        let request = || {
            let mut request = with_key(&secret);
            *request.uri_mut() = path.parse().unwrap();
            request
        };
        assert_eq!(status(&inner, request()).await, expected, "{path}");
        assert_eq!(status(&nested, request()).await, expected, "{path}, inside another layer");
    }
}

/// Also inside a layer without a tenant. A path without a tenant rejects every key.
#[tokio::test]
async fn only_keys_of_the_tenant_in_the_path_are_accepted() {
    let world = World::new();
    let no_tenant = keyward::model::Owner::account_only("ada").unwrap();
    let new = keyward::manage::NewKey::new(&no_tenant, "key of a host without tenants").unwrap();
    let key_without_tenant = text(&world.keys().issue(new, &world.service.actor).await.unwrap());
    let key_of_acme = world.reader().await;
    let rules = world.guard_builder().tenant_in_path("/t/{tenant}").build().unwrap();
    let inner = ApiKeyLayer::new(rules).layer(service_fn(handler));
    let nested = ApiKeyLayer::new(world.guard()).layer(inner.clone());
    for (path, expected) in [
        ("/t/acme", 200),
        ("/t/acme/builds?of=umbrella", 200),
        ("/t/%61cme/builds", 200),
        ("/t/umbrella/builds", 401),
        ("/t/umbrella/../acme/builds", 401),
        ("/t/acme%2f..%2fumbrella", 401),
        ("/t/ACME/builds", 401),
        ("/t//builds", 401),
        ("/t/%00/builds", 401),
        ("/t", 401),
        ("/acme/builds", 401),
        ("/", 401),
    ] {
        for secret in [&key_of_acme, &key_without_tenant] {
            let request = || {
                let mut request = with_key(secret);
                *request.uri_mut() = path.parse().unwrap();
                request
            };
            let expected = if *secret == key_of_acme { expected } else { 401 };
            assert_eq!(status(&inner, request()).await, expected, "{path}");
            assert_eq!(status(&nested, request()).await, expected, "{path}, inside another layer");
        }
    }
}

/// actix-web decodes the text around an invalid escape, and then decodes the result again.
#[tokio::test]
async fn a_path_that_routers_decode_differently_names_no_tenant() {
    let world = World::new();
    let odd = keyward::model::Owner::new("%61cme", "ada").unwrap();
    let new = keyward::manage::NewKey::new(&odd, "key of a tenant with an unusual name").unwrap();
    let secret = text(&world.keys().issue(new, &world.service.actor).await.unwrap());
    let guard = world.guard_builder().tenant_in_path("/t/{tenant}").build().unwrap();
    let tenant = |tenant: web::Path<String>| async move { tenant.into_inner() };
    let app = App::new().wrap(ApiKeyAuth::new(guard)).route("/t/{tenant}", web::get().to(tenant));
    let app = init_service(app).await;
    for (path, expected) in [("/t/%2561cme", Some("%61cme")), ("/t/%%36%31cme", None)] {
        let request = TestRequest::get().uri(path).insert_header(("x-api-key", &*secret));
        let response = app.call(request.to_request()).await.unwrap();
        let passed = response.status() == 200;
        let body = read_body(response).await;
        assert_eq!(passed.then_some(&body[..]), expected.map(str::as_bytes), "{path}");
    }
}

/// A nested axum router receives only the rest of the path, which names no tenant.
#[tokio::test]
async fn tenant_in_path_rejects_every_key_inside_a_nested_router() {
    let world = World::new();
    let secret = world.reader().await;
    let layer = || {
        keyward::axum::layer(world.guard_builder().tenant_in_path("/t/{tenant}").build().unwrap())
    };
    let inner = || axum::Router::new().route("/builds", axum::routing::get(async || "built"));
    let around = axum::Router::new().nest("/t/{tenant}", inner()).layer(layer());
    let within = axum::Router::new().nest("/t/{tenant}", inner().layer(layer()));
    for (router, path, expected) in [
        (&around, "/t/acme/builds", 200),
        (&around, "/t/umbrella/builds", 401),
        (&within, "/t/acme/builds", 401),
        (&within, "/t/umbrella/builds", 401),
    ] {
        let mut request = with_key(&secret);
        *request.uri_mut() = path.parse().unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), expected, "{path}");
    }
}

#[tokio::test]
async fn a_key_bound_to_networks_is_accepted_only_from_them_whatever_the_headers_say() {
    let world = World::new();
    let new = world.service.new_key().networks(Networks::only(["198.51.100.0/24"]).unwrap());
    let secret = text(&world.keys().issue(new, &world.service.actor).await.unwrap());
    let layer = |client| {
        ApiKeyLayer::new(world.guard_builder().client_ip(client).build().unwrap())
            .layer(service_fn(handler))
    };
    let direct = layer(ClientIp::peer());
    let proxied = layer(ClientIp::x_forwarded_for(["10.0.0.0/8"]).unwrap());
    let request = |peer: &str, forwarded: &str| {
        let mut request = with_key(&secret);
        request.extensions_mut().insert(peer.parse::<IpAddr>().unwrap());
        let forwarded = HeaderValue::from_bytes(forwarded.as_bytes()).unwrap();
        request.headers_mut().insert("x-forwarded-for", forwarded);
        request
    };
    assert_eq!(status(&direct, request("198.51.100.7", "1.1.1.1")).await, 200);
    assert_eq!(status(&direct, request("192.0.2.1", "198.51.100.7")).await, 401);
    assert_eq!(status(&proxied, request("10.0.0.1", "1.1.1.1, 198.51.100.7")).await, 200);
    assert_eq!(status(&proxied, request("10.0.0.1", "198.51.100.7, 1.1.1.1")).await, 401);
    assert_eq!(status(&proxied, request("192.0.2.1", "198.51.100.7")).await, 401);
    assert_eq!(status(&proxied, request("10.0.0.1", "é, 198.51.100.7")).await, 200);
    assert_eq!(status(&proxied, request("10.0.0.1", "198.51.100.7, é")).await, 401);
    assert_eq!(status(&direct, with_key(&secret)).await, 401, "the address is unknown");
}

#[tokio::test]
async fn rejections_have_grpc_statuses() {
    let world = World::new();
    let guard: Guard = world.guard_builder().require("builds:read").build().unwrap();
    let service = ApiKeyLayer::grpc(guard).layer(service_fn(handler));
    let limited = world.limited(Rate::per_hour(1)).await;
    assert_eq!(status(&service, with_key(&limited)).await, 200);
    let other = text(&world.service.issue_with(Access::only(["deploy"]).unwrap()).await);
    let check = async |secret: &str, code: &str| {
        let response = service.clone().oneshot(with_key(secret)).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"application/grpc".parse().unwrap())
        );
        assert_eq!(response.headers()["grpc-status"], code, "{secret}");
        assert_eq!(response.headers().get("retry-after").is_some(), code == "8" || code == "14");
    };
    check("", "16").await;
    check(&world.revoked().await, "16").await;
    check(&other, "7").await;
    check(&limited, "8").await;
    world.store.set_find_fault(crate::cache::faulty_store::Fault::Unavailable);
    check(&world.unknown(), "14").await;
}

#[tokio::test]
async fn a_busy_store_says_when_to_try_again() {
    use crate::cache::faulty_store::Fault;
    let world = World::new();
    let service = ApiKeyLayer::new(world.guard()).layer(service_fn(handler));
    for (fault, wait) in [(Fault::Busy, "7"), (Fault::Unavailable, "5")] {
        world.store.set_find_fault(fault);
        let response = service.clone().oneshot(with_key(&world.unknown())).await.unwrap();
        let status = response.status().as_u16();
        assert_eq!((status, &response.headers()["retry-after"]), (503, &wait.parse().unwrap()));
    }
}

#[tokio::test]
async fn the_csrf_layer_applies_only_to_requests_without_a_key() {
    let world = World::new();
    let layers = (
        ApiKeyLayer::new(world.guard_builder().optional().build().unwrap()),
        UnlessVerifiedLayer::new(CsrfLayer::new()),
    );
    let service = layers.layer(service_fn(handler));
    let post = |site: &str, secret: Option<&str>| {
        let request =
            Request::post("/").header("host", "acme.example").header("sec-fetch-site", site);
        let request = match secret {
            Some(secret) => request.header("x-api-key", secret),
            None => request.header("cookie", "session=1"),
        };
        request.body(Body::empty()).unwrap()
    };
    assert_eq!(status(&service, post("same-origin", None)).await, 200);
    assert_eq!(status(&service, post("cross-site", None)).await, 403);
    assert_eq!(status(&service, post("cross-site", Some(&world.reader().await))).await, 200);
    assert_eq!(status(&service, post("cross-site", Some(&world.revoked().await))).await, 401);
}

#[tokio::test]
async fn the_csrf_layer_applies_unless_the_key_alone_identifies_the_caller() {
    let world = World::new();
    let secret = world.reader().await;
    let credentials = Credentials::header("x-api-key").or_bearer();
    let credentials = credentials.or_header("accept-language");
    let credentials = credentials.or_header("Sec-Key");
    let credentials = credentials.danger_or_query_parameter("key");
    let cookie = Credentials::header("cookie");
    let bearer = format!("Bearer {secret}");
    for (credentials, uri, lines, status_of_cross_site) in [
        (&credentials, "/".to_owned(), &[("x-api-key", &*secret)][..], 200),
        (&credentials, "/".into(), &[("authorization", &bearer)], 200),
        (&credentials, "/?key=".into(), &[], 401),
        (&credentials, format!("/?key={secret}"), &[], 403),
        (&credentials, format!("/?key={secret}"), &[("cookie", "session=ada")], 403),
        (&credentials, "/".into(), &[("accept-language", &secret)], 403),
        (&credentials, "/".into(), &[("sec-key", &secret)], 403),
        (&credentials, "/".into(), &[("x-api-key", &secret), ("cookie", "session=ada")], 403),
        (&credentials, "/".into(), &[("authorization", &bearer), ("cookie", "")], 403),
        (&cookie, "/".into(), &[("cookie", &secret)], 403),
        (&credentials, "/".into(), &[], 403),
    ] {
        let guard = world.guard_builder().credentials(credentials.clone()).optional();
        let layers =
            (ApiKeyLayer::new(guard.build().unwrap()), UnlessVerifiedLayer::new(CsrfLayer::new()));
        let service = layers.layer(service_fn(handler));
        for (site, expected) in [("cross-site", status_of_cross_site), ("same-origin", 200)] {
            let expected = if status_of_cross_site == 401 { 401 } else { expected };
            let request = Request::post(&uri).header("host", "acme.example");
            let request = lines.iter().fold(request.header("sec-fetch-site", site), |all, line| {
                all.header(line.0, line.1)
            });
            let seen = status(&service, request.body(Body::empty()).unwrap()).await;
            assert_eq!(seen, expected, "{site} {uri} {lines:?}");
        }
    }
}

/// A proof that a guard gives is the same in every framework, and an inner guard cannot be given that of an outer one.
#[tokio::test]
async fn only_a_guard_declares_a_request_exempt_from_csrf_protection() {
    let (world, other) = (World::new(), World::new());
    let (secret, of_other) = (world.reader().await, other.reader().await);
    let keys = world.keys();
    let verified = keys.verify(&secret, &keyward::VerifyRequest::new()).await.unwrap();
    assert!(!verified.is_csrf_exempt(), "without a guard");
    let credentials = Credentials::header("x-api-key");
    let credentials = credentials.danger_or_query_parameter("key");
    let guard = world.guard_builder().credentials(credentials).build().unwrap();
    let by_query = other.guard_builder();
    let by_query = by_query.credentials(Credentials::bearer().danger_or_query_parameter("other"));
    let by_query = by_query.build().unwrap();

    let shown = async |verified: Verified| verified.is_csrf_exempt().to_string();
    let axum = axum::Router::new()
        .route("/", axum::routing::get(shown))
        .layer(keyward::axum::layer(guard.clone()));
    let route = web::get().to(shown);
    let actix = App::new().wrap(ApiKeyAuth::new(guard.clone())).route("/", route);
    let actix = init_service(actix).await;
    for (uri, lines, expected) in [
        ("/".to_owned(), &[("x-api-key", &*secret)][..], true),
        ("/".into(), &[("x-api-key", &secret), ("cookie", "a=b")], false),
        (format!("/?key={secret}"), &[], false),
    ] {
        let request = lines.iter().fold(Request::get(&uri), |all, line| all.header(line.0, line.1));
        let request = request.body(Body::empty()).unwrap();
        let (mut head, _) = request.into_parts();
        let checked = guard.check(&mut head, None).await.unwrap().unwrap();
        assert_eq!(checked.is_csrf_exempt(), expected, "{uri} {lines:?}");
        let (mut inner, _) =
            Request::get(format!("/?other={of_other}")).body(()).unwrap().into_parts();
        inner.extensions = head.extensions.clone();
        let innermost = by_query.check(&mut inner, None).await.unwrap().unwrap();
        assert!(!innermost.is_csrf_exempt());
        assert!(!inner.extensions.get::<Verified>().unwrap().is_csrf_exempt());

        let (head, _) = Request::get(&uri).body(()).unwrap().into_parts();
        let mut request = Request::from_parts(head, Body::empty());
        let mut of_actix = TestRequest::get().uri(&uri);
        for (name, value) in lines {
            request.headers_mut().append(*name, value.parse().unwrap());
            of_actix = of_actix.append_header((*name, *value));
        }
        let response = axum.clone().oneshot(request).await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(body, expected.to_string(), "axum: {uri} {lines:?}");
        let response = actix.call(of_actix.to_request()).await.unwrap();
        assert_eq!(read_body(response).await, expected.to_string(), "actix: {uri} {lines:?}");
    }
}

#[tokio::test]
async fn check_applies_the_guard_without_an_adapter() {
    fn sends<T: Send>(future: T) -> T {
        future
    }
    let world = World::new();
    let guard = world.guard_builder().require("builds:read").optional().build().unwrap();
    let secret = world.reader().await;
    let (mut head, _) = with_key(&secret).into_parts();
    let verified = sends(guard.check(&mut head, None)).await.unwrap();
    assert_eq!(verified.unwrap().owner().account(), "ada");
    assert!(head.extensions.get::<Verified>().is_some());
    assert!(head.headers["x-api-key"].is_sensitive());
    let again =
        world.guard_builder().require("deploy").build().unwrap().check(&mut head, None).await;
    assert_eq!(again.unwrap_err().status(), 403);
    assert!(guard.check(&mut head, None).await.unwrap().is_some(), "the key is not verified again");

    let (mut without_key, _) = Request::new(Body::empty()).into_parts();
    assert!(guard.check(&mut without_key, None).await.unwrap().is_none());
    let (mut guess, _) = with_key("guess").into_parts();
    let refusal = guard.check(&mut guess, None).await.unwrap_err();
    assert_eq!(
        (refusal.status(), refusal.code().as_str()),
        (StatusCode::UNAUTHORIZED, "invalid_key")
    );
}

#[tokio::test]
async fn debug_output_of_the_http_types_contains_no_secret() {
    fn crosses<T: Send + Sync + 'static>(_: &T) {}
    let world = World::new();
    let secret = world.reader().await;
    let guard = world.guard();
    let (mut head, _) = with_key(&secret).into_parts();
    guard.check(&mut head, None).await.unwrap();
    let (mut guess, _) = with_key(&world.unknown()).into_parts();
    let refusal = guard.check(&mut guess, None).await.unwrap_err();
    let layer = ApiKeyLayer::new(guard.clone());
    let (manage, auth) = (ManagementApi::new(world.keys().clone()), ApiKeyAuth::new(guard.clone()));
    let caller = Caller::new(world.service.owner.clone(), world.service.actor.clone());
    crosses(&guard);
    crosses(&refusal);
    crosses(&layer);
    crosses(&manage);
    crosses(&auth);
    crosses(&caller);
    let leaks = LeakReceiver::github(world.keys().clone(), GitHub::new());
    let report = LeakReport::new(secret.as_bytes());
    let callers = CallerAuth::api_key(&guard);
    crosses(&leaks);
    crosses(&callers);
    let body = format!("token={secret}");
    let call = ManageRequest::new(&http::Method::POST, "/introspect").body(b"", body.as_bytes());
    let shown: [&dyn std::fmt::Debug; 11] = [
        &guard, &refusal, &layer, &manage, &auth, &caller, &call, &head, &leaks, &report, &callers,
    ];
    for shown in shown.map(|shown| format!("{shown:?} {shown:#?}")) {
        assert!(!crate::support::log::holds_a_secret(&shown), "{shown}");
    }
    let create = ManageRequest::new(&http::Method::POST, "/api-keys").json(br#"{"name": "ci"}"#);
    let created = manage.handle(&caller, &create).await;
    assert_eq!(created.status(), 201);
    assert!(!crate::support::log::holds_a_secret(&format!("{created:?}")));
}
