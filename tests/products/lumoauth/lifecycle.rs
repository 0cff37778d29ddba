//! The life cycle of a key in the portal of its tenant.

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Lumo, bearer, path_of, reply, secret, with_json};
use crate::products::backend::{Backend, on_each_backend};

/// > API keys give you a secure way to authenticate administrative API requests …
/// > Unlike user access tokens, API keys are long-lived credentials scoped to your tenant.
/// > Go to /t/{tenantSlug}/portal/settings/api-keys to manage all API keys for your tenant.
async fn all_administrators_of_a_tenant_manage_its_long_lived_keys(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "Backend provisioning").await;
    assert_eq!(key.get("expiresAt"), Some(&Value::Null));
    assert!(lumo.works("acme", &key).await);
    assert_eq!(lumo.listed("alan@acme").await[0]["id"], key["id"]);
    let revoked = lumo.portal("alan@acme", Method::DELETE, &path_of(&key), &Value::Null).await;
    assert_eq!(revoked.status, 200);
    assert!(!lumo.works("acme", &key).await);
}

/// > Enter a descriptive name (e.g., "CI/CD pipeline" or "Backend provisioning"). Click Create.
/// > Copy the key immediately — it is only shown once and cannot be retrieved again
/// > Create: Generates a new key; shown in full only at creation
async fn a_key_has_a_descriptive_name_and_is_shown_in_full_only_at_creation(backend: &Backend) {
    let lumo = Lumo::start(backend);
    for name in ["CI/CD pipeline", "Backend provisioning"] {
        let created = lumo.key("ada@acme", name).await;
        assert_eq!(created["name"], name);
        assert!(secret(&created).starts_with("lumo_"));
        assert!(lumo.works("acme", &created).await);
        for path in
            ["/api-keys", &path_of(&created), &format!("{}/events", path_of(&created)), "/audit"]
        {
            let shown = lumo.portal("ada@acme", Method::GET, path, &Value::Null).await;
            assert_eq!(shown.status, 200);
            assert!(!shown.body.to_string().contains(secret(&created)), "{path}");
        }
    }
    for name in ["", "  ", &"n".repeat(101), "nul\0"] {
        let body = json!({ "name": name });
        let refused = lumo.portal("ada@acme", Method::POST, "/api-keys", &body).await;
        assert_eq!(refused.status, 422, "{name:?}");
    }
}

/// > LumoAuth stores only a hashed version of the key.
async fn only_a_hashed_version_of_the_key_is_stored(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let created = lumo.key("ada@acme", "CI/CD pipeline").await;
    assert!(lumo.works("acme", &created).await);
    let hint = created["prefix"].as_str().unwrap();
    assert!(backend.contains(&Sha256::digest(secret(&created))));
    assert!(backend.contains(hint.as_bytes()), "the hint is stored");
    assert!(!backend.contains(&secret(&created).as_bytes()[hint.len()..]));
}

/// > Rotate: Generates a replacement key and immediately invalidates the old one
/// > Find the key and click Rotate. Copy the new key — it is shown only once. Update your applications to
/// > use the new key. The old key is invalidated immediately upon rotation
/// > If you lose it, you must rotate it to get a new one.
async fn rotation_replaces_the_key_and_invalidates_the_old_one_immediately(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let old = lumo.key("ada@acme", "CI/CD pipeline").await;
    assert!(lumo.works("acme", &old).await);
    let rotate = format!("{}/rotate", path_of(&old));
    let new = lumo.portal("ada@acme", Method::POST, &rotate, &json!({})).await;
    assert_eq!(new.status, 200);
    assert!(!lumo.works("acme", &old).await);
    assert!(lumo.works("acme", &new.body).await);
    assert_eq!((&new.body["id"], &new.body["name"]), (&old["id"], &old["name"]));
    assert_ne!(secret(&new.body), secret(&old));
    let listed = lumo.listed("ada@acme").await;
    assert_eq!(listed.len(), 1);
    assert!(!json!(listed).to_string().contains(secret(&new.body)));
}

/// > Revoke: Permanently disables the key
async fn a_revoked_key_is_disabled_permanently(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    assert!(lumo.works("acme", &key).await);
    let revoked = lumo.portal("ada@acme", Method::DELETE, &path_of(&key), &Value::Null).await;
    assert_eq!(revoked.status, 200);
    assert!(!lumo.works("acme", &key).await);
    for again in ["enable", "rotate"] {
        let path = format!("{}/{again}", path_of(&key));
        let refused = lumo.portal("ada@acme", Method::POST, &path, &json!({})).await;
        assert_eq!((refused.status, &refused.body["code"]), (409, &json!("not_live")), "{again}");
    }
    assert!(!lumo.works("acme", &key).await);
    let listed = &lumo.listed("ada@acme").await[0];
    assert!(listed["revokedAt"].is_string(), "its record stays: {listed}");
}

/// > Delete: Removes the key record from the portal
async fn deleting_removes_the_record_from_the_portal(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let [revoked, live] =
        [lumo.key("ada@acme", "old").await, lumo.key("ada@acme", "forgotten").await];
    lumo.portal("ada@acme", Method::DELETE, &path_of(&revoked), &Value::Null).await;
    for key in [&revoked, &live] {
        let record = format!("{}/record", path_of(key));
        let deleted = lumo.portal("ada@acme", Method::DELETE, &record, &Value::Null).await;
        assert_eq!(deleted.status, 200);
        let gone = lumo.portal("ada@acme", Method::GET, &path_of(key), &Value::Null).await;
        assert_eq!(gone.status, 404);
        assert!(!lumo.works("acme", key).await);
    }
    assert_eq!(lumo.listed("ada@acme").await, [Value::Null; 0]);
}

/// > Use one key per service — name keys after the service that uses them so you can revoke individual
/// > services without affecting others
async fn one_service_is_revoked_without_affecting_others(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let (billing, sync) =
        (lumo.key("ada@acme", "billing").await, lumo.key("ada@acme", "sync").await);
    lumo.portal("ada@acme", Method::DELETE, &path_of(&billing), &Value::Null).await;
    assert!(!lumo.works("acme", &billing).await);
    assert!(lumo.works("acme", &sync).await);
}

/// > Monitor key usage — suspicious API calls appear in Audit Logs
async fn suspicious_calls_appear_in_the_audit_log(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let narrow = json!({ "name": "sync", "scopes": ["users:read"] });
    let (narrow, stolen) =
        (lumo.key_with("ada@acme", &narrow).await, lumo.key("ada@acme", "CI/CD pipeline").await);
    assert!(lumo.works("acme", &narrow).await);
    assert_eq!(lumo.admin("acme", &narrow, Method::GET, "/roles").await.status, 403);
    assert!(!lumo.works("globex", &narrow).await);
    lumo.portal("ada@acme", Method::DELETE, &path_of(&stolen), &Value::Null).await;
    assert!(!lumo.works("acme", &stolen).await);

    let expected = [
        ("key.created", &narrow, json!("success"), Value::Null),
        ("key.first_used", &narrow, json!("success"), Value::Null),
        ("key.denied", &narrow, json!("failure"), json!("access_missing")),
        ("key.denied", &narrow, json!("failure"), json!("wrong_tenant")),
        ("key.created", &stolen, json!("success"), Value::Null),
        ("key.revoked", &stolen, json!("success"), Value::Null),
        ("key.denied", &stolen, json!("failure"), json!("revoked")),
    ];
    // Refusals are counted together and written every minute, and at the end.
    let lumo = lumo.restarted(backend);
    let log = lumo.log("ada@acme").await;
    for (event, key, result, reason) in expected {
        let response = log.iter().filter(|line| {
            line["event"] == event
                && line["keyId"] == key["id"]
                && line["result"] == result
                && line["reason"] == reason
        });
        let from: Vec<_> = response.map(|line| (&line["ip"], &line["userAgent"])).collect();
        assert_eq!(
            from,
            [(&json!("127.0.0.1"), &json!("Firefox/140"))],
            "{event} {reason}: {log:?}"
        );
    }
    let created =
        lumo.log("ada@acme").await.into_iter().find(|line| line["event"] == "key.created");
    assert_eq!(created.unwrap()["actor"], "ada");
    assert_eq!(lumo.log("gus@globex").await, [Value::Null; 0], "other tenants do not see it");
}

/// Not on the page: another website cannot make the browser call the portal. Requests without a browser are not checked.
async fn cross_site_requests_cannot_create_keys(backend: &Backend) {
    let lumo = Lumo::start(backend);
    let key = lumo.key("ada@acme", "CI/CD pipeline").await;
    for (site, status) in [("cross-site", 403), ("same-origin", 201)] {
        let request = lumo.request(Method::POST, "/t/acme/portal/settings/api-keys");
        let request = request.header("cookie", "session=ada@acme").header("sec-fetch-site", site);
        assert_eq!(
            reply(with_json(request, &json!({ "name": "x" }))).await.status,
            status,
            "{site}"
        );
    }
    let request = lumo.request(Method::POST, "/t/acme/api/v1/admin/users");
    let request =
        request.header("authorization", bearer(&key)).header("sec-fetch-site", "cross-site");
    assert_eq!(
        reply(with_json(request, &json!({ "email": "eve@acme.example" }))).await.status,
        201
    );
}

on_each_backend!([sqlite, postgres_and_redis] {
    all_administrators_of_a_tenant_manage_its_long_lived_keys,
    a_key_has_a_descriptive_name_and_is_shown_in_full_only_at_creation,
    only_a_hashed_version_of_the_key_is_stored,
    rotation_replaces_the_key_and_invalidates_the_old_one_immediately,
    a_revoked_key_is_disabled_permanently,
    deleting_removes_the_record_from_the_portal,
    one_service_is_revoked_without_affecting_others,
    suspicious_calls_appear_in_the_audit_log,
    cross_site_requests_cannot_create_keys,
});
