//! The product page of LunaOS: `examples/lunaos`, over HTTP.

use std::{collections::BTreeSet, time::Instant};

use keyward::KeyId;
use regex::Regex;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::backend::{Backend, on_each_backend};
use crate::support::{examples::Serving, servers::eventually};

/// A server whose clock is stopped at the date on the page.
struct Luna {
    server: Serving,
    client: Client,
    /// The prefix of account names, which separates the rate limits of tests that share one Redis.
    account_prefix: String,
}

struct Reply {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

impl Luna {
    fn start(backend: &Backend) -> Self {
        let mut arguments =
            vec!["--database", backend.database(), "--clock", "2026-02-09T12:00:00Z"];
        if let Some(space) = backend.rates() {
            arguments.extend(["--redis", space.url()]);
        }
        let server = Serving::start("lunaos", &arguments);
        let client = Client::builder().no_proxy().build().unwrap();
        let account_prefix =
            backend.rates().map_or_else(String::new, |space| space.prefix().to_owned());
        Self { server, client, account_prefix }
    }

    fn account(&self, user: &str) -> String {
        format!("{}{user}", self.account_prefix)
    }

    fn session(&self, user: &str) -> String {
        format!("session-{}", self.account(user))
    }

    fn request(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.server.url()));
        request.header("authorization", format!("Bearer {token}"))
    }

    async fn call(&self, method: Method, path: &str, token: &str, body: &Value) -> Reply {
        let request = self.request(method, path, token).header("content-type", "application/json");
        reply(request.body(body.to_string())).await
    }

    async fn get(&self, path: &str, token: &str) -> Reply {
        reply(self.request(Method::GET, path, token)).await
    }

    async fn generate(&self, user: &str, name: &str) -> Reply {
        let token = self.session(user);
        self.call(Method::POST, "/api-keys", &token, &json!({ "name": name })).await
    }

    /// Creates a key, and returns its secret.
    async fn key(&self, user: &str) -> String {
        let created = self.generate(user, "ci-pipeline").await;
        assert_eq!(created.status, 201, "{}", created.body);
        created.body["key"].as_str().unwrap().to_owned()
    }

    async fn use_key(&self, key: &str) -> Reply {
        let task = json!({ "agent": "code-review", "context": "your code here" });
        self.call(Method::POST, "/agents/execute", key, &task).await
    }

    async fn subscribe(&self, user: &str, tier: &str) {
        let token = self.session(user);
        let body = json!({ "tier": tier });
        let reply = self.call(Method::PUT, "/billing/tier", &token, &body).await;
        assert_eq!(reply.status, 204);
    }

    async fn list(&self, user: &str) -> Vec<Value> {
        let listed = self.get("/api-keys", &self.session(user)).await;
        assert_eq!(listed.status, 200);
        listed.body["keys"].as_array().unwrap().clone()
    }
}

impl Reply {
    /// Returns the remaining requests of the user's rate limit.
    fn remaining(&self) -> u32 {
        let field = self.headers["ratelimit"].to_str().unwrap();
        let left = Regex::new(r#"^"owner";r=(\d+);"#).unwrap().captures(field).expect(field);
        left[1].parse().unwrap()
    }

    fn policy(&self) -> &str {
        self.headers["ratelimit-policy"].to_str().unwrap()
    }
}

async fn reply(request: RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
    Reply { status, headers, body }
}

fn names(object: &Value) -> Vec<&str> {
    let names: BTreeSet<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    names.into_iter().collect()
}

/// > POST /api-keys, Authorization: Bearer <token>, {"name": "ci-pipeline"}. Response (201): id, name,
/// > key, prefix, createdAt: "2026-02-09T12:00:00.000Z"
/// > Create a new API key.
async fn creating_a_key_returns_the_documented_response(backend: &Backend) {
    let luna = Luna::start(backend);
    let created = luna.generate("ada", "ci-pipeline").await;
    assert_eq!(created.status, 201);
    assert_eq!(
        names(&created.body),
        ["createdAt", "expiresAt", "id", "key", "name", "prefix", "scopes"]
    );
    // The page does not show these two: the key does not expire, and may do all that its user may do.
    assert!(created.body["expiresAt"].is_null() && created.body["scopes"].is_null());
    assert!(created.body["id"].as_str().unwrap().parse::<KeyId>().is_ok());
    assert_eq!(created.body["name"], "ci-pipeline");
    assert_eq!(created.body["createdAt"], "2026-02-09T12:00:00.000Z");
    let key = created.body["key"].as_str().unwrap();
    assert_eq!(created.body["prefix"], key[..18]);
    for token in ["", "unknown", key] {
        let refused = luna.call(Method::POST, "/api-keys", token, &json!({ "name": "x" })).await;
        assert_eq!(refused.status, 401, "{token}");
    }
}

/// > All API keys follow the format: lnos_live_{32 random hex characters}
/// > Prefix: lnos_live_ — identifies LunaOS API keys. Body: 128-bit random entropy (32 hex chars)
async fn a_key_is_lnos_live_and_32_random_hex_characters(backend: &Backend) {
    let luna = Luna::start(backend);
    let format = Regex::new("^lnos_live_[0-9a-f]{32}$").unwrap();
    let mut seen = BTreeSet::new();
    for user in ["ada", "bob"] {
        for _ in 0..5 {
            let key = luna.key(user).await;
            assert!(format.is_match(&key), "{key}");
            assert!(seen.insert(key));
        }
    }
}

/// > The full API key is only shown once at creation time. Store it securely.
/// > Retrieve all API keys (prefix only — not the full key). id, name, prefix, createdAt, lastUsedAt;
/// > lastUsedAt: null
/// > Generate and manage API keys for programmatic access.
async fn keys_are_listed_by_prefix_and_never_shown_again(backend: &Backend) {
    let luna = Luna::start(backend);
    let first = luna.generate("ada", "local-dev").await.body;
    let second = luna.generate("ada", "ci-pipeline").await.body;
    luna.key("bob").await;
    let [key, unused] = [&second["key"], &first["key"]].map(|key| key.as_str().unwrap());
    assert_eq!(luna.use_key(key).await.status, 200);
    eventually("the use is noted", async || !luna.list("ada").await[0]["lastUsedAt"].is_null())
        .await;
    let shown = |created: &Value, used: Value| {
        json!({ "id": created["id"], "name": created["name"], "prefix": created["prefix"],
            "createdAt": created["createdAt"], "lastUsedAt": used,
            "expiresAt": null, "scopes": null })
    };
    let mut expected =
        [shown(&second, json!("2026-02-09T12:00:00.000Z")), shown(&first, Value::Null)];
    // The page does not show this field.
    expected[0]["lastUsedIp"] = json!("127.0.0.1");
    assert_eq!(luna.list("ada").await, expected);
    let one = format!("/api-keys/{}", first["id"].as_str().unwrap());
    for path in ["/api-keys", &one, "/audit"] {
        let response = luna.get(path, &luna.session("ada")).await;
        assert_eq!(response.status, 200);
        assert!(![key, unused].iter().any(|key| response.body.to_string().contains(key)), "{path}");
    }
}

/// > Permanently revoke an API key. DELETE /api-keys/:id. Response (200): {"message": "API key revoked"}
async fn a_revoked_key_is_revoked_permanently(backend: &Backend) {
    let luna = Luna::start(backend);
    let created = luna.generate("ada", "ci-pipeline").await.body;
    let (key, path) = (
        created["key"].as_str().unwrap(),
        format!("/api-keys/{}", created["id"].as_str().unwrap()),
    );
    assert_eq!(luna.use_key(key).await.status, 200);
    let others = reply(luna.request(Method::DELETE, &path, &luna.session("bob"))).await;
    assert_eq!(others.status, 404);
    assert_eq!(luna.use_key(key).await.status, 200);
    let revoked = reply(luna.request(Method::DELETE, &path, &luna.session("ada"))).await;
    assert_eq!((revoked.status, revoked.body), (200, json!({ "message": "API key revoked" })));
    assert_eq!(luna.use_key(key).await.status, 401);
    for again in ["enable", "rotate"] {
        let path = format!("{path}/{again}");
        let refused = reply(luna.request(Method::POST, &path, &luna.session("ada"))).await;
        assert_eq!((refused.status, &refused.body["code"]), (409, &json!("not_live")), "{again}");
    }
    assert_eq!(luna.use_key(key).await.status, 401);
}

/// > Maximum 5 active keys per user.
async fn a_user_has_at_most_five_active_keys(backend: &Backend) {
    let luna = Luna::start(backend);
    let mut racing = JoinSet::new();
    for _ in 0..20 {
        let request = luna.request(Method::POST, "/api-keys", &luna.session("ada"));
        let request = request.header("content-type", "application/json").body(r#"{"name": "ci"}"#);
        racing.spawn(async { reply(request).await.status });
    }
    let mut statuses = racing.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [[201; 5].as_slice(), &[409; 15]].concat());
    let refused = luna.generate("ada", "one more").await;
    assert_eq!(
        (&refused.body["code"], &refused.body["limit"]),
        (&json!("limit_reached"), &json!(5))
    );
    luna.key("bob").await;

    let path = format!("/api-keys/{}", luna.list("ada").await[0]["id"].as_str().unwrap());
    assert_eq!(reply(luna.request(Method::DELETE, &path, &luna.session("ada"))).await.status, 200);
    luna.key("ada").await;
    assert_eq!(luna.generate("ada", "one more").await.status, 409);
}

/// > API keys are used like Bearer tokens: POST /agents/execute, Authorization: Bearer lnos_live_…,
/// > {"agent": "code-review", "context": "your code here"}
/// > API keys can be used in CI/CD pipelines, scripts, and integrations.
async fn a_key_is_used_like_a_bearer_token(backend: &Backend) {
    let luna = Luna::start(backend);
    let key = luna.key("ada").await;
    let done = luna.use_key(&key).await;
    assert_eq!(done.status, 200);
    assert_eq!(
        done.body,
        json!({ "agent": "code-review", "lines": 1, "user": luna.account("ada") })
    );
    let other = format!("lnos_live_{}", "0".repeat(32));
    for token in ["", "session-ada", &key[..41], &key.to_uppercase(), &other] {
        assert_eq!(luna.use_key(token).await.status, 401, "{token}");
    }
}

/// > Keys are hashed with SHA-256 before storage — we never store raw keys
async fn the_database_stores_only_the_sha256_of_a_key(backend: &Backend) {
    let luna = Luna::start(backend);
    let key = luna.key("ada").await;
    assert_eq!(luna.use_key(&key).await.status, 200);
    assert!(backend.contains(&Sha256::digest(&key)));
    assert!(backend.contains(&key.as_bytes()[..18]), "the hint is stored");
    assert!(!backend.contains(&key.as_bytes()[18..]));
}

/// > API keys inherit the rate limits of the user who created them: Free 60 req/min, Pro 600 req/min,
/// > Team 6,000 req/min
async fn all_keys_of_a_user_share_the_tiers_rate_limit(backend: &Backend) {
    let luna = Luna::start(backend);
    for (user, tier, rate) in [("ada", "free", 60), ("bob", "pro", 600), ("eve", "team", 6_000)] {
        luna.subscribe(user, tier).await;
        let keys = [luna.key(user).await, luna.key(user).await];
        let begun = Instant::now();
        let mut both = keys.iter().cycle();
        for n in 1..=rate.min(600) {
            let used = luna.use_key(both.next().unwrap()).await;
            let most = rate - n + refilled(backend, begun, rate);
            assert_eq!(used.status, 200, "{tier}");
            assert!(
                (rate - n..=most).contains(&used.remaining()),
                "{tier}: {} of {most}",
                used.remaining()
            );
            assert_eq!(used.policy(), format!(r#""owner";q={rate};w=60"#));
        }
        if rate > 600 {
            assert_eq!(luna.use_key(&keys[0]).await.status, 200, "{tier}");
            continue;
        }
        let mut more = 0;
        while more < rate && luna.use_key(both.next().unwrap()).await.status == 200 {
            more += 1;
        }
        assert!(more <= refilled(backend, begun, rate), "{tier}: {more} more");
    }
}

/// Returns how much of a rate limit has been refilled since `begun`. The server's clock is stopped; the clock
/// of Redis is not.
fn refilled(backend: &Backend, begun: Instant, per_minute: u32) -> u32 {
    let seconds = begun.elapsed().as_secs_f64();
    backend.rates().map_or(0, |_| (seconds * f64::from(per_minute) / 60.0).ceil() as u32 + 1)
}

/// Not on the page: after a downgrade, existing keys work at the new tier's rate, and no new ones can be created.
async fn a_downgrade_keeps_existing_keys_and_rejects_new_ones(backend: &Backend) {
    let luna = Luna::start(backend);
    luna.subscribe("ada", "team").await;
    let mut keys = Vec::new();
    for _ in 0..5 {
        keys.push(luna.key("ada").await);
    }
    for key in keys.iter().cycle().take(25) {
        assert_eq!(luna.use_key(key).await.policy(), r#""owner";q=6000;w=60"#);
    }
    luna.subscribe("ada", "free").await;
    for key in &keys {
        let used = luna.use_key(key).await;
        assert_eq!((used.status, used.policy()), (200, r#""owner";q=60;w=60"#));
    }
    assert_eq!(luna.generate("ada", "a sixth").await.status, 409);
    let (begun, mut accepted) = (Instant::now(), 0);
    for key in keys.iter().cycle().take(240) {
        accepted += u32::from(luna.use_key(key).await.status == 200);
    }
    let most = 60 + refilled(backend, begun, 60);
    assert!(accepted <= most, "{accepted} of {most}");
}

on_each_backend!([sqlite, postgres_and_redis] {
    creating_a_key_returns_the_documented_response,
    a_key_is_lnos_live_and_32_random_hex_characters,
    keys_are_listed_by_prefix_and_never_shown_again,
    a_revoked_key_is_revoked_permanently,
    a_user_has_at_most_five_active_keys,
    a_key_is_used_like_a_bearer_token,
    the_database_stores_only_the_sha256_of_a_key,
    all_keys_of_a_user_share_the_tiers_rate_limit,
    a_downgrade_keeps_existing_keys_and_rejects_new_ones,
});

/// Not on the page: two servers share one rate limit through Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_one_rate_limit() {
    let Some(backend) = &Backend::postgres_and_redis().await else { return };
    let servers = [Luna::start(backend), Luna::start(backend)];
    let key = servers[0].key("ada").await;
    let (begun, mut accepted) = (Instant::now(), 0);
    for luna in servers.iter().cycle().take(240) {
        accepted += u32::from(luna.use_key(&key).await.status == 200);
    }
    let most = 60 + refilled(backend, begun, 60);
    assert!((60..=most).contains(&accepted), "{accepted} of {most}");
}
