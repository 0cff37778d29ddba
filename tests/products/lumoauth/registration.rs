//! Dynamic client registration. Quotations are from RFC 7591 unless another source is named.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Lumo, bearer, contains, reply, secret, with_json};
use crate::products::backend::{Backend, on_each_backend};

const CALLBACK: &str = "https://app.example/callback";

/// > Allow your application to register OAuth clients programmatically (RFC 7591)
/// > … enable dynamic OAuth client registration from your applications. (the page)
/// > This response contains the client identifier as well as the client secret, if the client is a
/// > confidential client. … 201 Created … application/json … Cache-Control: no-store, Pragma: no-cache
/// > Additionally, the authorization server MUST return all registered metadata about this client,
/// > including any fields provisioned by the authorization server itself. (3.2.1)
async fn an_application_registers_a_client_with_an_api_key(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let asked = json!({
        "redirect_uris": [CALLBACK, "http://127.0.0.1:7000/cb", "http://[::1]/cb", "http://localhost/cb"],
        "token_endpoint_auth_method": "client_secret_post",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "client_name": "My Example Client",
        "client_name#ja-Jpan-JP": "\u{30AF}\u{30E9}\u{30A4}\u{30A2}\u{30F3}\u{30C8}\u{540D}",
        "client_uri": "https://app.example/",
        "logo_uri": "https://app.example/logo.png",
        "scope": "openid email",
        "contacts": ["ada@acme.example"],
        "tos_uri": "https://app.example/tos",
        "policy_uri": "https://app.example/policy",
        "policy_uri#fr": "https://app.example/fr/policy",
        "jwks": { "keys": [{ "kty": "EC", "crv": "P-256", "x": "eA", "y": "eQ" }] },
        "software_id": "4NRB1-0XZABZI9E6-5SM3R",
        "software_version": "2.1",
    });
    let created = lumo.register("acme", &key, &asked).await;
    assert_eq!(created.status, 201, "{}", created.body);
    let fields = ["content-type", "cache-control", "pragma"].map(|name| created.header(name));
    assert_eq!(fields, ["application/json", "no-store", "no-cache"]);
    for (name, value) in asked.as_object().unwrap() {
        assert_eq!(created.body[name], *value, "{name}");
    }
    let more: BTreeSet<_> = created.body.as_object().unwrap().keys().map(String::as_str).collect();
    let more: Vec<_> = more.into_iter().filter(|name| asked.get(name).is_none()).collect();
    let expected =
        ["client_id", "client_id_issued_at", "client_secret", "client_secret_expires_at"];
    assert_eq!(more, expected);
    let clients = lumo.clients("acme", &key).await;
    assert_eq!((clients.len(), &clients[0]["client_id"]), (1, &created.body["client_id"]));
    let theirs = lumo.key("gus@globex", "theirs").await;
    assert_eq!(
        lumo.clients("globex", &theirs).await,
        [Value::Null; 0],
        "other tenants do not see it"
    );
}

/// > client_id: REQUIRED. … It SHOULD NOT be currently valid for any other registered client
/// > client_secret: … this value MUST be unique for each "client_id"
/// > client_id_issued_at: … the number of seconds from 1970-01-01T00:00:00Z
/// > client_secret_expires_at: REQUIRED if "client_secret" is issued. … or 0 if it will not expire. (3.2.1)
async fn each_client_has_its_own_id_and_secret(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let (mut identifiers, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..20 {
        let body = json!({ "redirect_uris": [CALLBACK] });
        let created = lumo.register("acme", &key, &body).await.body;
        assert_eq!(created["client_secret_expires_at"], 0);
        let issued = created["client_id_issued_at"].as_i64().unwrap();
        assert!(issued > 1_700_000_000 && issued < 10_000_000_000, "{issued}");
        identifiers.insert(created["client_id"].as_str().unwrap().to_owned());
        secrets.insert(created["client_secret"].as_str().unwrap().to_owned());
    }
    assert_eq!((identifiers.len(), secrets.len()), (20, 20));
}

/// > Copy the key immediately — it is only shown once (the page)
async fn a_client_secret_is_shown_once_and_stored_as_a_digest(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let created = lumo.register("acme", &key, &json!({ "redirect_uris": [CALLBACK] })).await.body;
    let secret = created["client_secret"].as_str().unwrap();
    let lumo = lumo.restarted(backend);
    let clients = lumo.clients("acme", &key).await;
    assert_eq!(clients[0]["client_id"], created["client_id"], "the client survives a restart");
    assert_eq!(clients[0].get("client_secret"), None);
    let stored = lumo.stored();
    assert!(contains(&stored, BASE64_STANDARD.encode(Sha256::digest(secret)).as_bytes()));
    assert!(!contains(&stored, &secret.as_bytes()[12..]));
}

/// > "none": The client is a public client … and does not have a client secret. … If unspecified or omitted,
/// > the default is "client_secret_basic"
/// > grant_types: If omitted, the default behavior is that the client will use only the
/// > "authorization_code" Grant Type.
/// > response_types: If omitted, the default is that the client will use only the "code" response type.
/// > scope: If omitted, an authorization server MAY register a client with a default set of scopes. (2)
async fn omitted_metadata_has_defaults(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let body = json!({ "redirect_uris": [CALLBACK], "client_name": null });
    let created = lumo.register("acme", &key, &body).await.body;
    assert_eq!(created["token_endpoint_auth_method"], "client_secret_basic");
    assert_eq!(created["grant_types"], json!(["authorization_code"]));
    assert_eq!(created["response_types"], json!(["code"]));
    assert_eq!((&created["scope"], created.get("client_name")), (&json!("openid"), None));

    for method in ["none", "private_key_jwt"] {
        let jwks = "https://app.example/jwks";
        let body = json!({ "redirect_uris": [CALLBACK], "token_endpoint_auth_method": method, "jwks_uri": jwks });
        let created = lumo.register("acme", &key, &body).await;
        assert_eq!(
            (created.status, &created.body["token_endpoint_auth_method"]),
            (201, &json!(method))
        );
        assert_eq!(created.body.get("client_secret"), None);
        assert_eq!(created.body.get("client_secret_expires_at"), None);
    }
    let created =
        lumo.register("acme", &key, &json!({ "grant_types": ["client_credentials"] })).await;
    assert_eq!((created.status, &created.body["response_types"]), (201, &json!([])));
}

/// > The authorization server MUST ignore any client metadata sent by the client that it does not understand
/// > (for instance, by silently removing unknown metadata from the client's registration record during
/// > processing). (2)
/// > The authorization server MAY reject or replace any of the client's requested metadata values submitted
/// > during the registration and substitute them with suitable values. (3.2.1)
async fn unknown_metadata_is_ignored_and_unknown_scopes_are_replaced(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let unknown = json!({
        "example_extension_parameter": { "a": [1, null] },
        "client_id": "mine", "client_secret": "mine", "client_id_issued_at": 1, "tenant": "globex",
        "secret_sha256": "", "client_name#": "x", "client_name#no tag": "x", "software_id#de": "x", "": "",
        "registration_access_token": "x",
    });
    let mut body = unknown.clone();
    body["redirect_uris"] = json!([CALLBACK]);
    body["scope"] = json!("email root openid");
    let created = lumo.register("acme", &key, &body).await;
    assert_eq!(
        (created.status, &created.body["scope"]),
        (201, &json!("openid email")),
        "{}",
        created.body
    );
    for (name, value) in unknown.as_object().unwrap() {
        assert_ne!(created.body.get(name), Some(value), "{name}");
    }
    assert_eq!(lumo.clients("acme", &key).await.len(), 1);
    let lumo = lumo.restarted(backend);
    assert_eq!(lumo.clients("acme", &key).await[0]["client_id"], created.body["client_id"]);
}

/// > The client registration endpoint … MAY accept an initial access token in the form of an OAuth 2.0 access
/// > token to limit registration to only previously authorized parties. (3)
/// > When an OAuth 2.0 error condition occurs, such as the client presenting an invalid initial access token,
/// > the authorization server returns an error response appropriate to the OAuth 2.0 token type. (3.2.2)
/// > invalid_token: … expired, revoked, malformed, or invalid for other reasons. The resource SHOULD respond
/// > with the HTTP 401 … insufficient_scope: … 403 … the "scope" attribute (RFC 6750, 3.1)
async fn registration_needs_a_key_with_permission(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let narrow = json!({ "name": "reads", "scopes": ["users:read", "clients:read"] });
    let narrow = lumo.key_with("ada@acme", &narrow).await;
    let theirs = lumo.key("gus@globex", "theirs").await;
    let (none, invalid) =
        (r#"Bearer realm="LumoAuth""#, r#"Bearer realm="LumoAuth", error="invalid_token""#);
    let missing =
        r#"Bearer realm="LumoAuth", error="insufficient_scope", scope="clients:register""#;
    for (name, value, status, challenge) in [
        ("accept", "*/*".to_owned(), 401, none),
        ("x-api-key", secret(&key).to_owned(), 401, none),
        ("cookie", "session=ada@acme".into(), 401, none),
        ("authorization", "Bearer".into(), 401, invalid),
        ("authorization", "Bearer not-a-key".into(), 401, invalid),
        ("authorization", format!("Bearer lumo_{}", "0".repeat(36)), 401, invalid),
        ("authorization", format!("Bearer {}x", secret(&key)), 401, invalid),
        ("authorization", bearer(&theirs), 401, invalid),
        ("authorization", bearer(&narrow), 403, missing),
    ] {
        let request = lumo.request(Method::POST, "/t/acme/register").header(name, &value);
        let refused = reply(with_json(request, &json!({ "redirect_uris": ["what?"] }))).await;
        let response = (refused.status, refused.header("www-authenticate"));
        assert_eq!(response, (status, challenge), "{name}: {value}");
    }
    let elsewhere = lumo.register("globex", &key, &json!({ "redirect_uris": [CALLBACK] })).await;
    assert_eq!((elsewhere.status, elsewhere.header("www-authenticate")), (401, invalid));
    assert_eq!(lumo.clients("acme", &key).await, [Value::Null; 0]);
    assert_eq!(lumo.clients("globex", &theirs).await, [Value::Null; 0]);
}

/// > The client registration endpoint MUST accept HTTP POST messages with request parameters encoded in the
/// > entity body using the "application/json" format. (3)
/// > registration_endpoint: URL of the authorization server's OAuth 2.0 Dynamic Client Registration endpoint
/// > (RFC 8414, 2)
async fn the_tenants_metadata_names_the_registration_endpoint(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let path = "/.well-known/oauth-authorization-server/t/";
    let found = reply(lumo.request(Method::GET, &format!("{path}acme"))).await;
    assert_eq!(found.status, 200);
    assert_eq!(found.body["issuer"], format!("{}/t/acme", lumo.server.url()));
    let endpoint = found.body["registration_endpoint"].as_str().unwrap();
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    let post = lumo.client.post(endpoint).header("authorization", bearer(&key));
    let methods = found.body["token_endpoint_auth_methods_supported"].as_array().unwrap();
    for method in methods {
        let body = json!({
            "redirect_uris": [CALLBACK], "token_endpoint_auth_method": method,
            "grant_types": ["authorization_code"], "response_types": found.body["response_types_supported"],
            "scope": found.body["scopes_supported"][2], "jwks_uri": "https://app.example/jwks",
        });
        let created = reply(with_json(post.try_clone().unwrap(), &body)).await;
        assert_eq!(created.status, 201, "{method}: {}", created.body);
    }
    let get = lumo.request(Method::GET, "/t/acme/register").header("authorization", bearer(&key));
    assert_eq!(reply(get).await.status, 405);
    for unknown in ["initech", "ACME", "%2e%2e", "acme%2fregister"] {
        let found = reply(lumo.request(Method::GET, &format!("{path}{unknown}"))).await;
        assert_eq!(found.status, 404, "{unknown}");
    }
}

on_each_backend!([sqlite, postgres_and_redis] {
    an_application_registers_a_client_with_an_api_key,
    each_client_has_its_own_id_and_secret,
    a_client_secret_is_shown_once_and_stored_as_a_digest,
    omitted_metadata_has_defaults,
    unknown_metadata_is_ignored_and_unknown_scopes_are_replaced,
    registration_needs_a_key_with_permission,
    the_tenants_metadata_names_the_registration_endpoint,
});
