//! Invalid client metadata. Quotations are from RFC 7591 unless another source is named.

use proptest::{collection, option, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Lumo, bearer, reply};
use crate::products::backend::{Backend, on_each_backend};

const METADATA: &str = "invalid_client_metadata";
const REDIRECT: &str = "invalid_redirect_uri";

/// > invalid_redirect_uri: The value of one or more redirection URIs is invalid.
/// > As required by Section 2 of OAuth 2.0, clients using flows with redirection MUST register their
/// > redirection URI values. (2)
/// > The redirection endpoint URI MUST be an absolute URI … MUST NOT include a fragment component.
/// > (RFC 6749, 3.1.2)
async fn redirect_uris_are_absolute_https_or_loopback_urls(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let long = format!("https://app.example/{}", "a".repeat(2_000));
    let bad = [
        "",
        " ",
        "/callback",
        "callback",
        "//app.example/cb",
        "https:",
        "https:/",
        "https://",
        "https:///cb",
        "https:app.example",
        "https://app.example/cb#",
        "https://app.example/cb#fragment",
        "#",
        "*",
        "http://app.example/cb",
        "http://127.0.0.1.app.example/",
        "http://localhost.app.example/",
        "http://127.0.0.1@app.example/",
        "http://127.0.0.2/",
        "http://10.0.0.1/",
        "http://0.0.0.0/",
        "http://[::2]/",
        "https://user@app.example/",
        "https://user:password@app.example/",
        "https://*.app.example/cb",
        "https://app.example:port/",
        "https://app.example:99999/",
        "https://app.example:/",
        "https://:443/",
        "https://app.example\\@evil.example/",
        "https://app example/",
        "https://app.example/a b",
        " https://app.example/",
        "https://app.example/\n",
        "https://app.example/\t",
        "https://app.example/\0",
        "https://\u{430}pp.example/",
        "https://app.example/\u{e9}",
        "https://app.example/<script>",
        "https://app.example/\"",
        "https://[::1/",
        "https://[zz]/",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "ftp://app.example/",
        "urn:ietf:wg:oauth:2.0:oob",
        "com.example.app:/cb",
        "https",
        "null",
        &long,
    ];
    for uri in bad {
        for list in [json!([uri]), json!(["https://app.example/cb", uri])] {
            let refused = lumo.register("acme", &key, &json!({ "redirect_uris": list })).await;
            assert_eq!(refused.error(), REDIRECT, "{uri:?}");
        }
    }
    let url = "https://app.example/cb";
    for list in [
        json!([]),
        json!([7]),
        json!([[url]]),
        json!([null]),
        json!(url),
        json!({ "0": url }),
        json!(true),
    ] {
        let refused = lumo.register("acme", &key, &json!({ "redirect_uris": list })).await;
        assert_eq!(refused.error(), REDIRECT, "{list}");
    }
    let many: Vec<_> = (0..21).map(|n| format!("{url}/{n}")).collect();
    let refused = lumo.register("acme", &key, &json!({ "redirect_uris": many })).await;
    assert_eq!(refused.error(), REDIRECT);
    for missing in [
        json!({}),
        json!({ "redirect_uris": null }),
        json!({ "token_endpoint_auth_method": "none" }),
    ] {
        assert_eq!(lumo.register("acme", &key, &missing).await.error(), REDIRECT, "{missing}");
    }
}

/// > a server supporting dynamic registration SHOULD take steps to ensure that a client cannot register
/// > itself into an inconsistent state, for example, by returning an "invalid_client_metadata" error (2.1)
/// > invalid_client_metadata: The value of one of the client metadata fields is invalid and the server has
/// > rejected this request. (3.2.2)
/// > The "jwks_uri" and "jwks" parameters MUST NOT both be present in the same request or response. (2)
async fn invalid_or_inconsistent_metadata_is_rejected(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let jwks = "https://app.example/jwks";
    let code = json!(["authorization_code"]);
    let bad = [
        json!({ "grant_types": ["authorization_code"], "response_types": [] }),
        json!({ "grant_types": ["client_credentials"], "response_types": ["code"] }),
        json!({ "response_types": [] }),
        json!({ "grant_types": [] }),
        json!({ "grant_types": [], "response_types": [] }),
        json!({ "grant_types": ["refresh_token"] }),
        json!({ "grant_types": ["client_credentials", "refresh_token"] }),
        json!({ "grant_types": ["implicit"], "response_types": ["token"] }),
        json!({ "grant_types": ["password"] }),
        json!({ "grant_types": ["authorization_code", "urn:ietf:params:oauth:grant-type:saml2-bearer"] }),
        json!({ "grant_types": ["AUTHORIZATION_CODE"] }),
        json!({ "grant_types": "authorization_code" }),
        json!({ "grant_types": { "0": "authorization_code" } }),
        json!({ "grant_types": [code] }),
        json!({ "grant_types": [null] }),
        json!({ "grant_types": vec!["authorization_code"; 21] }),
        json!({ "response_types": ["code token"] }),
        json!({ "response_types": ["code", "token"] }),
        json!({ "response_types": "code" }),
        json!({ "response_types": [1] }),
        json!({ "token_endpoint_auth_method": "client_secret_jwt" }),
        json!({ "token_endpoint_auth_method": "" }),
        json!({ "token_endpoint_auth_method": ["none"] }),
        json!({ "token_endpoint_auth_method": false }),
        json!({ "token_endpoint_auth_method": "none", "grant_types": ["client_credentials"] }),
        json!({ "token_endpoint_auth_method": "private_key_jwt" }),
        json!({ "jwks_uri": jwks, "jwks": { "keys": [] } }),
        json!({ "jwks_uri": "http://app.example/jwks" }),
        json!({ "jwks_uri": "http://localhost/jwks" }),
        json!({ "jwks_uri": "jwks" }),
        json!({ "jwks_uri": [jwks] }),
        json!({ "jwks": [] }),
        json!({ "jwks": "{\"keys\": []}" }),
        json!({ "jwks": {} }),
        json!({ "jwks": { "keys": {} } }),
        json!({ "jwks": { "keys": [1] } }),
        json!({ "jwks": { "keys": [{}] } }),
        json!({ "jwks": { "keys": [{ "kty": 7 }] } }),
        json!({ "jwks": { "keys": [{ "kty": "EC", "d": "cHJpdmF0ZQ" }] } }),
        json!({ "jwks": { "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] } }),
        json!({ "client_name": "" }),
        json!({ "client_name": "  " }),
        json!({ "client_name": "two\nlines" }),
        json!({ "client_name": "nul\u{0}" }),
        json!({ "client_name": "\u{1b}[2J" }),
        json!({ "client_name": "safe\u{202e}exe" }),
        json!({ "client_name": "n".repeat(201) }),
        json!({ "client_name": 7 }),
        json!({ "client_name": ["x"] }),
        json!({ "client_name#de": 7 }),
        json!({ "client_uri": "javascript:alert(1)" }),
        json!({ "client_uri": "app.example" }),
        json!({ "client_uri#de": "/de" }),
        json!({ "logo_uri": "data:image/png;base64,AAAA" }),
        json!({ "tos_uri": "https://" }),
        json!({ "policy_uri": { "href": "https://app.example/" } }),
        json!({ "scope": "" }),
        json!({ "scope": " openid" }),
        json!({ "scope": "openid  email" }),
        json!({ "scope": "open\"id" }),
        json!({ "scope": "\u{e9}" }),
        json!({ "scope": ["openid"] }),
        json!({ "contacts": "ada@acme.example" }),
        json!({ "contacts": [7] }),
        json!({ "contacts": ["a\r\nBcc: b"] }),
        json!({ "contacts": vec!["ada@acme.example"; 21] }),
        json!({ "software_id": 7 }),
        json!({ "software_id": "s".repeat(201) }),
        json!({ "software_version": 2.1 }),
    ];
    for wrong in bad {
        let mut body = json!({ "redirect_uris": ["https://app.example/cb"] });
        body.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        assert_eq!(lumo.register("acme", &key, &body).await.error(), METADATA, "{wrong}");
    }
    assert_eq!(lumo.clients("acme", &key).await, [Value::Null; 0]);
}

/// > the authorization server returns an HTTP 400 status code (unless otherwise specified) with content type
/// > "application/json" consisting of a JSON object describing the error in the response body. … error:
/// > Single ASCII error code string. error_description: Human-readable ASCII text (3.2.2)
async fn a_body_that_is_not_a_json_object_is_rejected(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let good = r#"{"redirect_uris": ["https://app.example/cb"]}"#;
    let bodies: [Vec<u8>; 18] = [
        b"".into(),
        b" ".into(),
        b"null".into(),
        b"true".into(),
        b"7".into(),
        b"\"x\"".into(),
        b"[]".into(),
        b"{".into(),
        b"{]".into(),
        b"{}{}".into(),
        b"{'redirect_uris': []}".into(),
        b"{\"a\": \"\\ud800\"}".into(),
        b"{\"a\": \"\xff\"}".into(),
        b"\xef\xbb\xbf{}".into(),
        b"redirect_uris=https%3A%2F%2Fapp.example".into(),
        format!("{good},").into(),
        "[".repeat(60_000).into(),
        format!("{{\"a\": \"{}\"}}", "a".repeat(70_000)).into(),
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!(lumo.register_text("acme", &key, body).await.error(), METADATA, "{shown}");
    }
    for (kind, status) in [
        ("application/json", 201),
        ("Application/JSON; charset=utf-8", 201),
        ("application/x-www-form-urlencoded", 400),
        ("application/json-patch+json", 400),
        ("text/plain", 400),
        ("", 400),
    ] {
        let request = lumo.request(Method::POST, "/t/acme/register").header("content-type", kind);
        let reply = reply(request.header("authorization", bearer(&key)).body(good)).await;
        assert_eq!(reply.status, status, "{kind}");
    }
}

/// Property test: any body is registered in a consistent state, or rejected with a well-formed error.
async fn no_request_body_causes_a_server_error(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let (mut runner, bodies, mut registered) = (TestRunner::default(), bodies(), 0);
    for _ in 0..400 {
        let body = bodies.new_tree(&mut runner).unwrap().current();
        let reply = lumo.register("acme", &key, &body).await;
        if reply.status != 201 {
            assert!(
                [METADATA, REDIRECT, "invalid_software_statement"].contains(&reply.error()),
                "{body}"
            );
            continue;
        }
        registered += 1;
        let lists =
            |name: &str, value: &str| reply.body[name].as_array().unwrap().contains(&json!(value));
        let code = lists("grant_types", "authorization_code");
        assert_eq!(code, lists("response_types", "code"), "{body}");
        assert!(!code || !reply.body["redirect_uris"].as_array().unwrap().is_empty(), "{body}");
        let secret = reply.body["token_endpoint_auth_method"].as_str().unwrap().contains("secret");
        assert_eq!(secret, reply.body.get("client_secret").is_some(), "{body}");
        assert!(reply.body.get("jwks").is_none() || reply.body.get("jwks_uri").is_none(), "{body}");
    }
    assert_eq!(lumo.clients("acme", &key).await.len(), registered);
    assert!(registered > 0, "some of the bodies are valid");
}

/// Generates client metadata from valid and invalid values.
fn bodies() -> impl Strategy<Value = Value> {
    let right = [
        ("redirect_uris", json!(["https://app.example/cb"])),
        ("grant_types", json!(["client_credentials"])),
        ("grant_types", json!(["authorization_code", "refresh_token"])),
        ("response_types", json!(["code"])),
        ("response_types", json!([])),
        ("token_endpoint_auth_method", json!("none")),
        ("token_endpoint_auth_method", json!("private_key_jwt")),
        ("jwks", json!({ "keys": [{ "kty": "EC" }] })),
        ("jwks_uri", json!("https://app.example/jwks")),
        ("client_name#de", json!("Name")),
        ("contacts", json!(["ada@acme.example"])),
        ("scope", json!("openid email")),
        ("logo_uri", json!("https://app.example/logo")),
    ];
    let names = right.iter().map(|(name, _)| *name).chain(["software_statement", "unknown"]);
    let names: Vec<_> = names.collect();
    let right = prop::sample::select(right.to_vec());
    let right = right.prop_map(|(name, value)| (name.to_owned(), value));
    let wrong = (prop::sample::select(names).prop_map(str::to_owned), json_value());
    let first =
        option::weighted(0.8, Just(("redirect_uris".to_owned(), json!(["https://app.example/"]))));
    let rest = collection::vec(prop_oneof![4 => right, 1 => wrong], 0..6);
    (first, rest)
        .prop_map(|(first, rest)| first.into_iter().chain(rest).collect::<Map<_, _>>().into())
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let list = collection::vec(inner.clone(), 0..4).prop_map(Value::from);
        let object = collection::vec((any::<String>(), inner), 0..4)
            .prop_map(|pairs| pairs.into_iter().collect::<Map<_, _>>().into());
        prop_oneof![list, object]
    })
}

on_each_backend!([sqlite, postgres_and_redis] {
    redirect_uris_are_absolute_https_or_loopback_urls,
    invalid_or_inconsistent_metadata_is_rejected,
    a_body_that_is_not_a_json_object_is_rejected,
    no_request_body_causes_a_server_error,
});
