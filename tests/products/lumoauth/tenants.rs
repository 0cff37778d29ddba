//! The admin API of each tenant, and the isolation of tenants.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Lumo, Reply, bearer, path_of, reply, secret, with_json};
use crate::{
    http::raw,
    products::backend::{Backend, on_each_backend},
};

/// The endpoints of the admin API.
const CALLS: [(Method, &str); 4] = [
    (Method::GET, "/users"),
    (Method::POST, "/users"),
    (Method::GET, "/roles"),
    (Method::PUT, "/users/1/roles/editor"),
];

async fn add_user(lumo: &Lumo, tenant: &str, key: &Value, email: &str) -> Reply {
    let request = lumo.request(Method::POST, &format!("/t/{tenant}/api/v1/admin/users"));
    let request = request.header("authorization", bearer(key));
    reply(with_json(request, &json!({ "email": email }))).await
}

async fn users(lumo: &Lumo, tenant: &str, key: &Value) -> Value {
    let listed = lumo.admin(tenant, key, Method::GET, "/users").await;
    assert_eq!(listed.status, 200);
    listed.body["users"].clone()
}

/// > Authenticate calls to the tenant admin API (/t/{tenantSlug}/api/v1/admin/*)
/// > curl https://your-domain.com/t/{tenantSlug}/api/v1/admin/users -H "Authorization: Bearer {your-api-key}"
/// > Alternatively, some endpoints accept the key in an X-API-Key header: -H "X-API-Key: {your-api-key}"
async fn the_admin_api_accepts_a_key_as_bearer_token_or_x_api_key(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "Backend provisioning").await;
    let field = |name, value: String| {
        lumo.request(Method::GET, "/t/acme/api/v1/admin/users").header(name, value)
    };
    for request in [field("authorization", bearer(&key)), field("x-api-key", secret(&key).into())] {
        let listed = reply(request).await;
        assert_eq!((listed.status, listed.body), (200, json!({ "users": [] })));
    }
    for request in [
        field("accept", "*/*".into()),
        field("authorization", "Bearer {your-api-key}".into()),
        field("cookie", "session=ada@acme".into()),
        lumo.request(Method::GET, &format!("/t/acme/api/v1/admin/users?api_key={}", secret(&key))),
    ] {
        let refused = reply(request).await;
        assert_eq!(refused.status, 401);
        assert!(refused.header("www-authenticate").starts_with(r#"Bearer realm="LumoAuth""#));
    }
}

/// > Provision users, manage roles, sync data from a backend service
/// > API keys have admin-level access
async fn a_key_provisions_users_and_assigns_their_roles(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "Backend provisioning").await;
    let created = add_user(&lumo, "acme", &key, "Eve@acme.example").await;
    assert_eq!(created.status, 201);
    assert_eq!(created.body, json!({ "id": 1, "email": "eve@acme.example", "roles": [] }));
    assert_eq!(add_user(&lumo, "acme", &key, "eve@acme.example").await.status, 409);
    assert_eq!(add_user(&lumo, "acme", &key, "no address").await.status, 422);
    let roles = lumo.admin("acme", &key, Method::GET, "/roles").await;
    assert_eq!(roles.body, json!({ "roles": ["admin", "editor", "viewer"] }));
    for role in ["viewer", "editor", "editor"] {
        let path = format!("/users/1/roles/{role}");
        assert_eq!(lumo.admin("acme", &key, Method::PUT, &path).await.status, 200);
    }
    for (path, status) in [("/users/2/roles/editor", 404), ("/users/1/roles/emperor", 400)] {
        assert_eq!(lumo.admin("acme", &key, Method::PUT, path).await.status, status, "{path}");
    }
    let expected = json!([{ "id": 1, "email": "eve@acme.example", "roles": ["editor", "viewer"] }]);
    assert_eq!(users(&lumo, "acme", &key).await, expected);
}

/// Not on the page: a key can be limited to scopes.
async fn a_scoped_key_is_limited_to_its_scopes(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = json!({ "name": "sync", "scopes": ["users:read"] });
    let key = lumo.key_with("ada@acme", &key).await;
    for ((method, path), scope) in
        CALLS.into_iter().zip(["", "users:write", "roles:read", "roles:write"])
    {
        let used = lumo.admin("acme", &key, method, path).await;
        if scope.is_empty() {
            assert_eq!(used.status, 200);
            continue;
        }
        assert_eq!(used.status, 403, "{path}");
        let challenge = used.header("www-authenticate").to_owned();
        assert!(challenge.contains(&format!(r#"scope="{scope}""#)), "{challenge}");
    }
    let body = json!({ "name": "more", "scopes": ["tenants:delete"] });
    let refused = lumo.portal("ada@acme", Method::POST, "/api-keys", &body).await;
    assert_eq!(
        refused.status, 403,
        "a key cannot have scopes that the tenant lacks: {}",
        refused.body
    );
}

/// > API keys are long-lived credentials scoped to your tenant.
async fn a_key_of_one_tenant_is_rejected_by_another(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let (acmes, globexs) =
        (lumo.key("ada@acme", "ours").await, lumo.key("gus@globex", "theirs").await);
    let unknown = json!({ "key": keyward::secret::KeyFormat::builder("lumo").build().unwrap().generate().unwrap().expose() });
    add_user(&lumo, "globex", &globexs, "gus@globex.example").await;
    let before = users(&lumo, "globex", &globexs).await;
    for (method, path) in CALLS {
        let reply = async |tenant: &str, key: &Value| {
            let mut reply = lumo.admin(tenant, key, method.clone(), path).await;
            reply.headers.remove("date");
            reply
        };
        let expected = reply("globex", &unknown).await;
        assert_eq!(expected.status, 401);
        for tenant in ["globex", "initech"] {
            let refused = reply(tenant, &acmes).await;
            assert_eq!(refused.status, 401, "{path} of {tenant}");
            assert_eq!(
                (refused.headers, refused.body),
                (expected.headers.clone(), expected.body.clone())
            );
        }
    }
    assert_eq!(users(&lumo, "globex", &globexs).await, before);
    add_user(&lumo, "acme", &acmes, "eve@acme.example").await;
    assert_eq!(users(&lumo, "acme", &acmes).await[0]["email"], "eve@acme.example");
    assert_eq!(users(&lumo, "globex", &globexs).await, before, "user ids are per tenant");
}

/// No spelling of a tenant's slug, sent as raw bytes, reaches another tenant.
async fn hostile_slugs_never_reach_another_tenant(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let (acmes, globexs) =
        (lumo.key("ada@acme", "ours").await, lumo.key("gus@globex", "theirs").await);
    add_user(&lumo, "globex", &globexs, "gus@globex.example").await;
    let long = "a".repeat(8_000);
    let slugs = [
        "",
        ".",
        "..",
        "%2e%2e",
        "../globex",
        "..%2fglobex",
        "acme%2f..%2fglobex",
        "acme/../globex",
        "acme%2f",
        "acme%00",
        "%00",
        "%ff",
        "%",
        "%2",
        "%zz",
        "%2561cme",
        "globex%20",
        "globex+",
        "Globex",
        "GLOBEX",
        "globex.",
        "globex%2e",
        "globex;acme",
        "globex,acme",
        "globex%0d%0a",
        "%67lobex",
        "%67%6c%6f%62%65%78",
        "gl\u{f8}bex",
        "%ef%bd%87lobex",
        "globe\u{445}",
        "globex%cc%81",
        "%e2%80%8bglobex",
        "{tenantSlug}",
        "*",
        "acme%3fx=",
        "acme%23",
        "acme@globex",
        "null",
        "0",
        "-1",
        "'%20or%20'1'='1",
        &long,
    ];
    for slug in slugs {
        let path = format!("/t/{slug}/api/v1/admin/users");
        let with_key = format!("Authorization: {}\r\n", bearer(&acmes));
        let reply = raw::send(lumo.address(), &raw::get(&path, with_key.as_bytes())).await;
        assert!([400, 401, 404, 414, 431].contains(&reply.status), "{slug}: {reply:?}");
        assert!(!reply.body.contains("globex.example"), "{slug}: {reply:?}");

        let path = format!("/t/{slug}/portal/settings/api-keys");
        let reply =
            raw::send(lumo.address(), &raw::get(&path, b"Cookie: session=ada@acme\r\n")).await;
        assert!([400, 401, 404, 414, 431].contains(&reply.status), "{slug}: {reply:?}");
        assert!(!reply.body.contains(globexs["id"].as_str().unwrap()), "{slug}: {reply:?}");
        let session = format!("Cookie: session=ada@{slug}\r\n");
        let path = "/t/globex/portal/settings/api-keys";
        let reply = raw::send(lumo.address(), &raw::get(path, session.as_bytes())).await;
        assert!([400, 401, 431].contains(&reply.status), "{slug}: {reply:?}");
    }
    // A percent-encoded slug is the same slug.
    let with_key = format!("Authorization: {}\r\n", bearer(&acmes));
    let path = "/t/%61cm%65/api/v1/admin/users";
    let reply = raw::send(lumo.address(), &raw::get(path, with_key.as_bytes())).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"users":[]}"#));
}

async fn a_session_of_one_tenant_is_rejected_by_another(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let (acmes, globexs) =
        (lumo.key("ada@acme", "ours").await, lumo.key("gus@globex", "theirs").await);
    let key = path_of(&globexs);
    let calls = [
        (Method::GET, "/api-keys".to_owned()),
        (Method::POST, "/api-keys".into()),
        (Method::GET, key.clone()),
        (Method::PATCH, key.clone()),
        (Method::DELETE, key.clone()),
        (Method::DELETE, format!("{key}/record")),
        (Method::POST, format!("{key}/rotate")),
        (Method::POST, format!("{key}/disable")),
        (Method::POST, format!("{key}/enable")),
        (Method::GET, format!("{key}/events")),
        (Method::GET, "/audit".into()),
        (Method::GET, "/audit.jsonl".into()),
        (Method::GET, "/audit.csv".into()),
        (Method::POST, "/introspect".into()),
    ];
    let before = (lumo.listed("gus@globex").await, lumo.log("gus@globex").await);
    for (method, path) in calls {
        let body = json!({ "name": "x" });
        for session in ["ada@acme", "ada@globex", "gus@acme", "@globex", "gus"] {
            let reply = lumo.portal_of("globex", session, method.clone(), &path, &body).await;
            assert_eq!(reply.status, 401, "{method} {path} as {session}");
        }
        // Ada's own portal does not find the key's id either.
        if path.contains(&key) {
            let reply = lumo.portal("ada@acme", method.clone(), &path, &body).await;
            assert_eq!(reply.status, 404, "{method} {path}");
        }
    }
    assert_eq!((lumo.listed("gus@globex").await, lumo.log("gus@globex").await), before);
    assert_eq!(lumo.listed("ada@acme").await.len(), 1);
    let introspect = lumo.request(Method::POST, "/t/acme/portal/settings/introspect");
    let introspect = introspect.header("cookie", "session=ada@acme");
    for (key, active) in [(&acmes, true), (&globexs, false)] {
        let form = introspect
            .try_clone()
            .unwrap()
            .header("content-type", "application/x-www-form-urlencoded");
        let reply = reply(form.body(format!("token={}", secret(key)))).await;
        assert_eq!(reply.body["active"], active);
    }
}

on_each_backend!([sqlite, postgres_and_redis] {
    the_admin_api_accepts_a_key_as_bearer_token_or_x_api_key,
    a_key_provisions_users_and_assigns_their_roles,
    a_scoped_key_is_limited_to_its_scopes,
    a_key_of_one_tenant_is_rejected_by_another,
    hostile_slugs_never_reach_another_tenant,
    a_session_of_one_tenant_is_rejected_by_another,
});
