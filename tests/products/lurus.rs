//! The product page of Lurus Code: `examples/lurus`, over HTTP.

use std::{collections::BTreeSet, fs, io::Write, process::Stdio};

use keyward::audit::EventKind;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::backend::{Backend, on_each_backend};
use crate::{
    client::support::{CommandResult, Terminal, TestUser, mode},
    support::{
        examples::{Serving, example},
        servers::{eventually, smtp},
    },
};

/// A server with a stopped clock.
struct Lurus {
    server: Serving,
    client: Client,
}

impl Backend {
    fn start_lurus(&self, date: &str) -> Lurus {
        self.start_lurus_with(date, &[])
    }

    fn start_lurus_with(&self, date: &str, arguments: &[&str]) -> Lurus {
        let clock = format!("{date}T12:00:00Z");
        let storage = ["--database", self.database(), "--clock", &clock];
        let server = Serving::start("lurus", &[&storage[..], arguments].concat());
        let client = Client::builder().no_proxy().user_agent("Firefox/140").build().unwrap();
        Lurus { server, client }
    }
}

impl Lurus {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.server.url()))
    }

    /// Sends a request of the dashboard in a user's session.
    async fn dashboard(
        &self,
        user: &str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (u16, Value) {
        let request =
            self.request(method, path).header("cookie", format!("theme=dark; session={user}"));
        let request = request.header("content-type", "application/json").body(body.to_string());
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.dashboard("ada", Method::GET, path, &Value::Null).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    async fn create(&self, body: Value) -> (u16, Value) {
        self.dashboard("ada", Method::POST, "/api-keys", &body).await
    }

    /// Creates a key for Ada.
    async fn key(&self, body: Value) -> Value {
        let (status, created) = self.create(body).await;
        assert_eq!(status, 201, "{created}");
        created
    }

    async fn revoke(&self, key: &Value) {
        let path = format!("/api-keys/{}", key["id"].as_str().unwrap());
        assert_eq!(self.dashboard("ada", Method::DELETE, &path, &Value::Null).await.0, 200);
    }

    async fn subscribe(&self, user: &str, plan: &str) {
        let body = json!({ "plan": plan });
        assert_eq!(self.dashboard(user, Method::PUT, "/billing/plan", &body).await.0, 204);
    }

    /// Calls the API with a key, and returns the status.
    async fn code(&self, key: &Value) -> u16 {
        let request = self.request(Method::POST, "/code").body("implement feature X");
        let request = request.header("x-api-key", key["key"].as_str().unwrap());
        request.send().await.unwrap().status().as_u16()
    }

    /// Returns the audit events of this kind.
    async fn logged(&self, kind: EventKind) -> Vec<Value> {
        let log = self.get(&format!("/audit?event={kind}")).await;
        log["events"].as_array().unwrap().clone()
    }

    async fn lists(&self, key: &Value) -> bool {
        let listed = self.get("/api-keys").await;
        listed["keys"].as_array().unwrap().iter().any(|listed| listed["id"] == key["id"])
    }
}

/// > Generate a new API key from the dashboard with a custom name and optional expiration — the full key
/// > is shown only once.
/// > The full key (lc_…) is displayed once. Copy it and store it securely — it cannot be retrieved again.
async fn the_full_key_is_shown_once(backend: &Backend) {
    let lurus = backend.start_lurus("2026-02-09");
    let created = lurus.key(json!({ "name": "deploy from CI", "expiresInDays": 30 })).await;
    let key = created["key"].as_str().unwrap();
    assert!(key.starts_with("lc_"));
    assert_eq!(created["name"], "deploy from CI");
    assert_eq!(created["expiresAt"], "2026-03-11T12:00:00.000Z");
    assert_eq!(lurus.code(&created).await, 200);
    for path in ["/api-keys", &format!("/api-keys/{}", created["id"].as_str().unwrap()), "/audit"] {
        assert!(!lurus.get(path).await.to_string().contains(key), "{path}");
    }
}

/// > Keys are hashed with SHA-256 before being stored. The plaintext key never touches the database.
/// > Keys are stored as SHA-256 hashes — the plaintext key is never persisted
async fn the_plaintext_key_never_touches_the_database(backend: &Backend) {
    let lurus = backend.start_lurus("2026-02-09");
    let created = lurus.key(json!({ "name": "ci" })).await;
    assert_eq!(lurus.code(&created).await, 200);
    let key = created["key"].as_str().unwrap();
    assert!(backend.contains(&Sha256::digest(key)));
    let shown = created["prefix"].as_str().unwrap().len();
    assert!(backend.contains(&key.as_bytes()[..shown]));
    assert!(!backend.contains(&key.as_bytes()[shown..]));
}

/// > Choose from 7 days, 30 days, 90 days, 1 year, or no expiration at all.
async fn a_key_expires_after_the_chosen_time_or_never(backend: &Backend) {
    let mut keys = Vec::new();
    let lurus = backend.start_lurus("2026-02-09");
    for days in [7, 30, 90, 365] {
        keys.push(lurus.key(json!({ "name": "ci", "expiresInDays": days })).await);
    }
    keys.push(lurus.key(json!({ "name": "unlimited" })).await);
    for (expired, date) in
        ["2026-02-15", "2026-02-16", "2026-03-11", "2026-05-10", "2027-02-09"].iter().enumerate()
    {
        let lurus = backend.start_lurus(date);
        for (n, key) in keys.iter().enumerate() {
            let expected = if n < expired { 401 } else { 200 };
            assert_eq!(lurus.code(key).await, expected, "{n} on {date}");
        }
    }
}

/// > Revoke any key instantly from the dashboard. Revoked keys stop working immediately across all
/// > environments.
async fn a_revoked_key_stops_working_immediately_on_all_servers(backend: &Backend) {
    let (here, elsewhere) = (backend.start_lurus("2026-02-09"), backend.start_lurus("2026-02-09"));
    let key = here.key(json!({ "name": "ci" })).await;
    for lurus in [&here, &elsewhere, &here, &elsewhere] {
        assert_eq!(lurus.code(&key).await, 200);
    }
    here.revoke(&key).await;
    assert_eq!(here.code(&key).await, 401);
    eventually("the other server to reject the key", async || elsewhere.code(&key).await == 401)
        .await;
}

/// > Revoked and expired keys are automatically purged after 90 days.
async fn revoked_and_expired_keys_are_purged_after_90_days(backend: &Backend) {
    let lurus = backend.start_lurus("2026-02-09");
    let revoked = lurus.key(json!({ "name": "revoked" })).await;
    lurus.revoke(&revoked).await;
    let expired = lurus.key(json!({ "name": "expired", "expiresInDays": 7 })).await;
    let alive = lurus.key(json!({ "name": "alive" })).await;
    let later = backend.start_lurus("2026-02-20");
    let revoked_later = later.key(json!({ "name": "revoked later" })).await;
    later.revoke(&revoked_later).await;

    let after_90_days = backend.start_lurus("2026-05-18");
    assert_eq!(after_90_days.code(&expired).await, 401, "which brings the server to life");
    for gone in [&revoked, &expired] {
        eventually("the key to be purged", async || !after_90_days.lists(gone).await).await;
    }
    for kept in [&alive, &revoked_later] {
        assert!(after_90_days.lists(kept).await);
    }
    assert_eq!(after_90_days.code(&alive).await, 200);
}

/// > Key creation and revocation are logged with IP, user-agent and timestamp. First usage is tracked
/// > automatically.
async fn creation_revocation_and_first_use_are_logged(backend: &Backend) {
    let lurus = backend.start_lurus("2026-02-09");
    let key = lurus.key(json!({ "name": "ci" })).await;
    for _ in 0..3 {
        assert_eq!(lurus.code(&key).await, 200);
    }
    eventually("the use is noted", async || !lurus.logged(EventKind::FirstUsed).await.is_empty())
        .await;
    lurus.revoke(&key).await;
    for kind in [EventKind::Created, EventKind::FirstUsed, EventKind::Revoked] {
        let logged = lurus.logged(kind).await;
        assert_eq!(logged.len(), 1, "{kind}");
        let event = &logged[0];
        let response = ["keyId", "time", "ip", "userAgent", "result"].map(|field| &event[field]);
        let expected = [
            &key["id"],
            &json!("2026-02-09T12:00:00.000Z"),
            &json!("127.0.0.1"),
            &json!("Firefox/140"),
            &json!("success"),
        ];
        assert_eq!(response, expected, "{kind}");
    }
}

/// > Receive an email notification whenever a new API key is created on your account — with IP and
/// > device details.
async fn the_owner_of_a_new_key_is_emailed_its_ip_and_device(backend: &Backend) {
    let Some(mail) = smtp::start() else { return };
    let lurus = backend.start_lurus_with("2026-02-09", &["--smtp", &mail.url()]);
    let users = ["ada", "bob", "ada"];
    for (n, user) in users.into_iter().enumerate() {
        let body = json!({ "name": format!("ci {n}") }).to_string();
        let request = lurus.request(Method::POST, "/api-keys").body(body);
        let request = request.header("cookie", format!("session={user}"));
        let request = request.header("content-type", "application/json");
        let created = request.header("user-agent", FIREFOX).send().await.unwrap();
        assert_eq!(created.status().as_u16(), 201);
    }
    eventually("they have arrived", async || mail.mails().len() >= users.len()).await;
    let mails = mail.mails();
    assert_eq!(mails.len(), users.len());
    for (n, user) in users.into_iter().enumerate() {
        let subject = format!("[Lurus Code] New API key: ci {n}");
        let response = mails.iter().find(|mail| mail.header("subject") == subject).unwrap();
        assert_eq!(response.to, [format!("{user}@example.com")]);
        for part in [response.text.as_deref().unwrap(), response.html.as_deref().unwrap()] {
            for fact in ["2026-02-09T12:00:00.000Z", "127.0.0.1", "Firefox on Linux"] {
                assert!(part.contains(fact), "{fact}: {part}");
            }
        }
    }
    let printed = lurus.server.printed();
    assert!(!printed.contains("--- To: "), "the email is sent and not printed: {printed}");
}

/// Not on the page: without a mail server, emails are printed.
async fn without_a_mail_server_emails_are_printed(backend: &Backend) {
    let lurus = backend.start_lurus("2026-02-09");
    let created = lurus.key(json!({ "name": "ci" })).await;
    let heading = "--- To: ada@example.com\n--- Subject: [Lurus Code] New API key: ci\n";
    let printed = lurus.server.prints("the complete email", |printed| {
        let (_, letter) = printed.split_once(heading)?;
        letter.contains("If this was not you").then(|| letter.to_owned())
    });
    assert!(printed.contains("127.0.0.1") && printed.contains("Firefox"), "{printed}");
    assert!(!printed.contains(created["key"].as_str().unwrap()), "no secret");
}

/// > Audit logs are retained for 1 year
async fn audit_events_are_retained_for_one_year(backend: &Backend) {
    let first = backend.start_lurus("2026-02-09").key(json!({ "name": "first" })).await;
    let second = backend.start_lurus("2026-02-11").key(json!({ "name": "second" })).await;
    let logs = async |lurus: &Lurus| {
        let created = lurus.logged(EventKind::Created).await;
        created.iter().map(|event| event["keyId"].clone()).collect::<Vec<_>>()
    };
    let beyond = backend.start_lurus("2027-02-10");
    assert_eq!(beyond.code(&first).await, 200);
    eventually("the older is gone", async || logs(&beyond).await == [second["id"].clone()]).await;
}

/// > Use the X-API-Key header. curl -H "X-API-Key: lc_your_key_here"
/// > API key requests bypass CSRF checks (designed for non-browser clients)
async fn csrf_checks_apply_to_cookies_but_not_to_api_keys(backend: &Backend) {
    let lurus = backend.start_lurus("2026-02-09");
    let key = lurus.key(json!({ "name": "ci" })).await;
    let key = key["key"].as_str().unwrap();
    let bearer = format!("Bearer {key}");
    for (name, value, site, status) in [
        ("x-api-key", key, "cross-site", 200),
        ("authorization", bearer.as_str(), "cross-site", 200),
        ("x-api-key", "lc_your_key_here", "cross-site", 401),
        ("cookie", "session=ada", "same-origin", 200),
        ("cookie", "session=ada", "cross-site", 403),
        ("accept", "*/*", "same-origin", 401),
    ] {
        let request = lurus.request(Method::POST, "/code").header(name, value);
        let answer = request.header("sec-fetch-site", site).send().await.unwrap();
        assert_eq!(answer.status(), status, "{name} {site}");
    }
}

/// Not on the page: a request with the key of one user and the cookie of another acts for the owner of the key, or for
/// no one; and the CSRF check applies to it.
async fn a_key_and_a_cookie_are_never_mixed(backend: &Backend) {
    let lurus = backend.start_lurus("2026-02-09");
    let (status, of_eve) =
        lurus.dashboard("eve", Method::POST, "/api-keys", &json!({ "name": "ci" })).await;
    assert_eq!(status, 201);
    let of_eve = of_eve["key"].as_str().unwrap().to_owned();
    let ask = async |method: &Method, path: &str, site: &str, key: (&str, &str)| {
        let request = lurus.request(method.clone(), path).header("cookie", "session=ada");
        let request = request.header("sec-fetch-site", site).header(key.0, key.1);
        let request = request.header("content-type", "application/json");
        let answer = request.body(json!({ "name": "x", "plan": "ultra" }).to_string()).send();
        let answer = answer.await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let bearer = format!("Bearer {of_eve}");
    for key in [("x-api-key", &*of_eve), ("authorization", &*bearer)] {
        for (method, path) in [
            (Method::POST, "/api-keys"),
            (Method::GET, "/api-keys"),
            (Method::GET, "/audit"),
            (Method::PUT, "/billing/plan"),
        ] {
            let (status, text) = ask(&method, path, "same-origin", key).await;
            assert_eq!((status, text.as_str()), (401, ""), "{method} {path}");
        }
        let (status, text) = ask(&Method::POST, "/code", "same-origin", key).await;
        assert_eq!(status, 200);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["user"], "eve");
        for (method, path) in
            [(Method::POST, "/api-keys"), (Method::PUT, "/billing/plan"), (Method::POST, "/code")]
        {
            assert_eq!(ask(&method, path, "cross-site", key).await.0, 403, "{method} {path}");
        }
    }
    assert_eq!(lurus.get("/api-keys").await, json!({ "keys": [] }), "nothing was done for Ada");
}

/// Runs the command line with these variables, arguments and input.
fn cli(
    user: &TestUser,
    variables: &[(&str, &str)],
    arguments: &[&str],
    input: &str,
) -> CommandResult {
    let mut command = user.command(example("lurus_cli"));
    command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program may exit before it reads its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap().into()
}

const CODE: [&str; 2] = ["code", "implement feature X"];

/// > export LURUS_API_KEY=lc_your_key_here; lurus code "implement feature X"
/// > Use the key via environment variable (LURUS_API_KEY)
async fn the_environment_variable_is_sufficient(backend: &Backend) {
    let lurus = backend.start_lurus("2026-02-09");
    let created = lurus.key(json!({ "name": "ci" })).await;
    let (user, url) = (TestUser::new(), ("LURUS_API_URL", lurus.server.url()));
    let variable = ("LURUS_API_KEY", created["key"].as_str().unwrap());
    let result = cli(&user, &[url, variable], &CODE, "");
    assert_eq!((result.status, result.stderr.as_str()), (0, ""));
    assert!(result.stdout.contains("implement feature X"), "{}", result.stdout);
    cli(&user, &[url], &CODE, "").assert_fails(1, "No API key found");
    lurus.revoke(&created).await;
    cli(&user, &[url, variable], &CODE, "").assert_fails(1, "the key is not accepted");
}

/// > lurus login --api-key; # Paste your key when prompted
/// > File permissions on auth storage set to 0600 (owner-only)
async fn a_pasted_key_is_stored_with_mode_0600(backend: &Backend) {
    let lurus = backend.start_lurus("2026-02-09");
    let created = lurus.key(json!({ "name": "laptop" })).await;
    let (key, url) = (created["key"].as_str().unwrap(), ("LURUS_API_URL", lurus.server.url()));
    let (pasted, piped) = (TestUser::new(), TestUser::new());
    let terminal = Terminal::start_program(&example("lurus_cli"), &pasted, "login --api-key", &[]);
    terminal.wait_for("? Your API key (input is hidden):");
    terminal.type_text(&format!("{key}\r"));
    let seen = terminal.wait_for_exit(0);
    assert!(!seen.contains(key), "{seen}");
    let result = cli(&piped, &[], &["login", "--api-key"], key);
    assert_eq!(result.status, 0, "{}", result.stderr);
    for user in [&pasted, &piped] {
        let file = user.home().join(".lurus/credentials");
        assert_eq!(mode(&file), 0o600);
        assert!(fs::read_to_string(&file).unwrap().contains(key));
        assert_eq!(cli(user, &[url], &CODE, "").status, 0);
    }
}

/// > Plan-based limits: up to 5 keys on Pro, up to 10 on Pro+ and Ultra
async fn each_plan_limits_the_number_of_keys(backend: &Backend) {
    let lurus = backend.start_lurus("2026-02-09");
    for (user, plan, most) in [("ada", "pro", 5), ("bob", "pro+", 10), ("eve", "ultra", 10)] {
        lurus.subscribe(user, plan).await;
        let create = async || {
            let body = json!({ "name": "ci" });
            lurus.dashboard(user, Method::POST, "/api-keys", &body).await
        };
        let mut ids = BTreeSet::new();
        for _ in 0..most {
            let (status, created) = create().await;
            assert_eq!(status, 201, "{created}");
            ids.insert(created["id"].to_string());
        }
        let (status, refused) = create().await;
        assert_eq!(
            (status, &refused["code"], &refused["limit"]),
            (409, &json!("limit_reached"), &json!(most))
        );
        assert_eq!(ids.len(), most);
    }
}

/// Not on the page: after a downgrade, existing keys keep working, and new ones are rejected until the number of
/// keys is below the limit.
async fn a_downgrade_keeps_existing_keys_and_rejects_new_ones(backend: &Backend) {
    let lurus = backend.start_lurus("2026-02-09");
    lurus.subscribe("ada", "ultra").await;
    let mut keys = Vec::new();
    for _ in 0..8 {
        keys.push(lurus.key(json!({ "name": "ci" })).await);
    }
    lurus.subscribe("ada", "pro").await;
    for key in &keys {
        assert_eq!(lurus.code(key).await, 200);
    }
    for key in &keys[..4] {
        assert_eq!(lurus.create(json!({ "name": "one more" })).await.0, 409);
        lurus.revoke(key).await;
    }
    lurus.key(json!({ "name": "the fifth" })).await;
    assert_eq!(lurus.create(json!({ "name": "one more" })).await.0, 409);
    for key in &keys[4..] {
        assert_eq!(lurus.code(key).await, 200);
    }
}

on_each_backend!([sqlite, postgres] {
    the_full_key_is_shown_once,
    the_plaintext_key_never_touches_the_database,
    a_key_expires_after_the_chosen_time_or_never,
    a_revoked_key_stops_working_immediately_on_all_servers,
    revoked_and_expired_keys_are_purged_after_90_days,
    creation_revocation_and_first_use_are_logged,
    the_owner_of_a_new_key_is_emailed_its_ip_and_device,
    without_a_mail_server_emails_are_printed,
    audit_events_are_retained_for_one_year,
    csrf_checks_apply_to_cookies_but_not_to_api_keys,
    a_key_and_a_cookie_are_never_mixed,
    the_environment_variable_is_sufficient,
    a_pasted_key_is_stored_with_mode_0600,
    each_plan_limits_the_number_of_keys,
    a_downgrade_keeps_existing_keys_and_rejects_new_ones,
});

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
