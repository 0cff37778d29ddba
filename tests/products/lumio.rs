//! The page of Lumio: `examples/lumio`, over HTTP.

use std::{fs, process::Stdio, sync::Arc, time::Instant};

use keyward::totp::TotpSecret;
use regex::Regex;
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde_json::{Value, json};
use tempfile::TempDir;
use webauthn_authenticator_rs::{WebauthnAuthenticator, softpasskey::SoftPasskey};

use crate::{
    client::support::{Person, Said, mode},
    support::{
        examples::{Serving, example},
        servers::{eventually, redis::shared},
        stores,
    },
    totp::code,
};

/// Where the keys and the people of some servers are.
struct Place {
    folder: Arc<TempDir>,
    elsewhere: Vec<String>,
}

/// A server whose clock stands still; others in the same place are later.
struct Lumio {
    server: Serving,
    client: Client,
    _folder: Arc<TempDir>,
}

/// How a request says who sends it.
#[derive(Clone)]
struct Pass(&'static str, String);

type Reply = (u16, Value);

impl Place {
    fn new() -> Self {
        Self { folder: Arc::new(tempfile::tempdir().unwrap()), elsewhere: Vec::new() }
    }

    fn at(&self, date: &str) -> Lumio {
        self.at_time(&format!("{date}T12:00:00Z"))
    }

    fn at_time(&self, clock: &str) -> Lumio {
        let here = ["--data", self.folder.path().to_str().unwrap(), "--clock", clock];
        let elsewhere: Vec<&str> = self.elsewhere.iter().map(String::as_str).collect();
        let server = Serving::start("lumio", &[&here, &elsewhere[..]].concat());
        let client = Client::builder().no_proxy().user_agent("Firefox/140").build().unwrap();
        Lumio { server, client, _folder: self.folder.clone() }
    }

    fn now(&self) -> Lumio {
        self.at("2026-02-09")
    }
}

impl Lumio {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.server.url()))
    }

    async fn send(&self, method: Method, path: &str, by: &Pass, body: &Value) -> Response {
        let request = self.request(method, path).header(by.0, &by.1);
        let request = request.header("content-type", "application/json").body(body.to_string());
        request.send().await.unwrap()
    }

    async fn call(&self, method: Method, path: &str, by: &Pass, body: Value) -> Reply {
        let response = self.send(method, path, by, &body).await;
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn post(&self, path: &str, by: &Pass, body: Value) -> Reply {
        self.call(Method::POST, path, by, body).await
    }

    async fn get(&self, path: &str, by: &Pass) -> Value {
        let (status, body) = self.call(Method::GET, path, by, Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Someone with an account, in a browser.
    async fn sign_in(&self, email: &str) -> Pass {
        let by = Pass("accept", "*/*".into());
        let body = json!({ "email": email });
        let answer = self.send(Method::POST, "/sign-in", &by, &body).await;
        assert_eq!(answer.status(), 204, "{email}");
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        Pass("cookie", cookie.split(';').next().unwrap().to_owned())
    }

    /// Someone with a team of one.
    async fn founder(&self, email: &str) -> Pass {
        let by = Pass("accept", "*/*".into());
        assert_eq!(self.post("/sign-up", &by, json!({ "email": email })).await.0, 201);
        self.sign_in(email).await
    }

    /// A key's record and secret, for the session's account.
    async fn create(&self, by: &Pass, label: &str) -> Value {
        let (status, made) = self.post(KEYS, by, json!({ "name": label })).await;
        assert_eq!(status, 201, "{made}");
        made
    }

    /// What a request with this key, or in this session, is answered.
    async fn deploy(&self, by: &Pass) -> u16 {
        self.post("/extensions/weather/deploy", by, Value::Null).await.0
    }

    /// Each power that the page's table has: whether it is there.
    async fn powers(&self, by: &Pass) -> [u16; 3] {
        let publish = self.post("/extensions/weather/publish", by, json!({})).await.0;
        let bill = json!({ "to": "accounts payable" });
        let billing = self.call(Method::PUT, "/account/billing", by, bill).await.0;
        [self.deploy(by).await, publish, billing]
    }

    async fn revoke(&self, by: &Pass, key: &Value) {
        let path = format!("{KEYS}/{}", key["id"].as_str().unwrap());
        assert_eq!(self.call(Method::DELETE, &path, by, Value::Null).await.0, 200);
    }
}

/// What a program sends that has this key.
fn with(key: &Value) -> Pass {
    Pass("x-api-key", key["key"].as_str().unwrap().to_owned())
}

const KEYS: &str = "/account/security/api-keys";
const ADA: &str = "ada@example.com";

/// > Keys are prefixed with lm_dev_ and are 64 characters long.
#[tokio::test]
async fn a_key_is_lm_dev_and_64_characters_long() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    let format = Regex::new("^lm_dev_[0-9A-Za-z]{57}$").unwrap();
    for n in 0..20 {
        let made = lumio.create(&ada, &format!("key {n}")).await;
        let key = made["key"].as_str().unwrap();
        assert!(format.is_match(key) && key.len() == 64, "{key}");
    }
}

/// > Navigate to Account → Security → API Keys. Click New API Key. Enter a label (e.g. ci-github-actions).
/// > Copy the key — it is shown only once
#[tokio::test]
async fn a_key_has_a_label_and_is_shown_once() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    let made = lumio.create(&ada, "ci-github-actions").await;
    assert_eq!(made["name"], "ci-github-actions");
    assert_eq!(lumio.deploy(&with(&made)).await, 200);
    let one = format!("{KEYS}/{}", made["id"].as_str().unwrap());
    for path in [KEYS, &one, "/account/security/audit", "/account/security/audit-log"] {
        let told = lumio.get(path, &ada).await.to_string();
        assert!(told.contains("ci-github-actions") || told.contains("key.created"), "{path}");
        assert!(!told.contains(made["key"].as_str().unwrap()), "{path}");
    }
    for nobody in [Pass("accept", "*/*".into()), with(&made)] {
        assert_eq!(lumio.post(KEYS, &nobody, json!({ "name": "x" })).await.0, 401);
    }
}

/// > All API keys inherit the permissions of the account that created them. There is no per-key scope
/// > restriction.
#[tokio::test]
async fn asking_for_scopes_is_refused() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    let made = lumio.create(&ada, "ci").await;
    assert_eq!(lumio.powers(&with(&made)).await, [200; 3], "all that an owner may do");
    let one = format!("{KEYS}/{}", made["id"].as_str().unwrap());
    for scopes in [json!(["deploy"]), json!([]), Value::Null] {
        let asked = json!({ "name": "narrow", "scopes": scopes });
        let refused = lumio.post(KEYS, &ada, asked.clone()).await;
        assert_eq!(refused, (400, json!({ "code": "no_scopes_per_key" })));
        assert_eq!(lumio.call(Method::PATCH, &one, &ada, asked).await.0, 400);
    }
    assert_eq!(lumio.get(KEYS, &ada).await["keys"].as_array().unwrap().len(), 1);
    assert_eq!(lumio.powers(&with(&made)).await, [200; 3]);
}

/// > Revoke a key immediately from Account → Security → API Keys → Revoke. Revocation takes effect within
/// > 30 seconds across all API regions. Revoked keys cannot be restored.
async fn revocation(place: &Place) {
    let [here, elsewhere] = [place.now(), place.now()];
    let ada = here.founder(ADA).await;
    let made = here.create(&ada, "ci").await;
    let key = with(&made);
    for lumio in [&here, &elsewhere, &here, &elsewhere] {
        assert_eq!(lumio.deploy(&key).await, 200);
    }
    here.revoke(&ada, &made).await;
    assert_eq!(here.deploy(&key).await, 401);
    eventually("the other region has heard", async || elsewhere.deploy(&key).await == 401).await;
    for again in ["enable", "rotate"] {
        let path = format!("{KEYS}/{}/{again}", made["id"].as_str().unwrap());
        let (status, refused) = here.post(&path, &ada, json!({})).await;
        assert_eq!((status, &refused["code"]), (409, &json!("not_live")), "{again}");
    }
    for lumio in [&here, &elsewhere] {
        assert_eq!(lumio.deploy(&key).await, 401);
    }
}

#[tokio::test]
async fn a_revoked_key_stops_in_all_regions_and_cannot_be_restored() {
    revocation(&Place::new()).await;
}

/// > Rotate API keys every 90 days
#[tokio::test]
async fn after_90_days_a_rotation_is_due() {
    let place = Place::new();
    let first = place.now();
    let ada = first.founder(ADA).await;
    let made = [first.create(&ada, "old").await, first.create(&ada, "rotated").await];
    let due = async |lumio: &Lumio| {
        let ada = lumio.sign_in(ADA).await;
        let told = lumio.get("/account/security/audit?event=key.rotation_due", &ada).await;
        let told = told["events"].as_array().unwrap().iter().map(|event| event["keyId"].clone());
        told.collect::<Vec<_>>()
    };
    let later = place.at("2026-05-09");
    assert_eq!(later.deploy(&with(&made[0])).await, 200, "which brings the server to life");
    let path = format!("{KEYS}/{}/rotate", made[1]["id"].as_str().unwrap());
    let ada = later.sign_in(ADA).await;
    let (status, rotated) = later.post(&path, &ada, json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(later.deploy(&with(&made[1])).await, 401, "the old secret");
    assert_eq!(later.deploy(&with(&rotated)).await, 200);

    let on_the_day = place.at("2026-05-10");
    assert_eq!(on_the_day.deploy(&with(&made[0])).await, 200, "it is a recommendation");
    eventually("it is told", async || due(&on_the_day).await == [made[0]["id"].clone()]).await;
    assert_eq!(due(&later).await.len(), 1, "in one log");
}

/// What the command line says, which is called with these arguments.
fn cli(person: &Person, lumio: &Lumio, variables: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = person.command(example("lumio_cli"));
    command.env("LUMIO_API_URL", lumio.server.url()).envs(variables.iter().copied());
    command.args(arguments).stdin(Stdio::null());
    command.output().unwrap().into()
}

/// > The lumio CLI (lumio login --token <key>)
/// > API keys are long-lived credentials scoped to your developer account.
#[tokio::test]
async fn the_cli_signs_in_with_a_token_and_deploys() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    let made = lumio.create(&ada, "laptop").await;
    let (key, person) = (made["key"].as_str().unwrap(), Person::new());
    cli(&person, &lumio, &[], &["deploy"]).fails(1, "No API key found");
    cli(&person, &lumio, &[], &["login", "--token", &key[..63]]).fails(1, "63 characters");
    let said = cli(&person, &lumio, &[], &["login", "--token", key]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(!said.out.contains(key) && !said.err.contains(key));
    let file = person.home().join(".lumio/credentials");
    assert_eq!(mode(&file), 0o600);
    assert!(fs::read_to_string(&file).unwrap().contains(key));
    let said = cli(&person, &lumio, &[], &["deploy", "weather"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    assert!(said.out.contains("weather") && said.out.contains(ADA), "{}", said.out);
    lumio.revoke(&ada, &made).await;
    cli(&person, &lumio, &[], &["deploy", "weather"]).fails(1, "the key is not accepted");
}

/// > CI/CD pipelines running lumio deploy
/// > Direct calls to the Developer REST API
/// > Store API keys in your CI/CD secret store. Use environment-specific keys — a separate key for staging
/// > vs production deployments
#[tokio::test]
async fn a_pipeline_deploys_with_a_key_of_its_own() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    let [staging, production] =
        [lumio.create(&ada, "staging").await, lumio.create(&ada, "production").await];
    let runner = Person::new();
    let deploy = |key: &Value| {
        cli(&runner, &lumio, &[("LUMIO_API_KEY", key["key"].as_str().unwrap())], &["deploy"])
    };
    for key in [&staging, &production] {
        assert_eq!(deploy(key).status, 0);
    }
    lumio.revoke(&ada, &staging).await;
    deploy(&staging).fails(1, "the key is not accepted");
    assert_eq!(deploy(&production).status, 0);
    let bearer = format!("Bearer {}", production["key"].as_str().unwrap());
    assert_eq!(lumio.deploy(&Pass("authorization", bearer)).await, 200);
}

/// Someone whom the session's account has taken into its team.
async fn invited(lumio: &Lumio, by: &Pass, email: &str, role: &str) -> Pass {
    let body = json!({ "email": email, "role": role });
    assert_eq!(lumio.post(TEAM, by, body).await.0, 201, "{email}");
    lumio.sign_in(email).await
}

async fn make(lumio: &Lumio, by: &Pass, email: &str, role: &str) -> u16 {
    let path = format!("{TEAM}/{email}");
    lumio.call(Method::PUT, &path, by, json!({ "role": role })).await.0
}

async fn remove(lumio: &Lumio, by: &Pass, email: &str) -> u16 {
    lumio.call(Method::DELETE, &format!("{TEAM}/{email}"), by, Value::Null).await.0
}

const TEAM: &str = "/account/team";
const BOB: &str = "bob@example.com";
const OWNER: [u16; 3] = [200, 200, 200];
const ADMIN: [u16; 3] = [200, 200, 403];
const MEMBER: [u16; 3] = [200, 403, 403];

/// > Role: Can deploy, Can publish, Can manage billing, Can invite members. Owner: Yes, Yes, Yes, Yes.
/// > Admin: Yes, Yes, No, Yes. Member: Yes, No, No, No.
/// > Multiple developers can collaborate on an extension via the team feature. Go to Account → Team to
/// > invite members.
#[tokio::test]
async fn each_role_has_the_powers_of_the_table_in_a_session_and_by_a_key() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    for (n, (role, powers, may_invite)) in
        [("owner", OWNER, true), ("admin", ADMIN, true), ("member", MEMBER, false)]
            .into_iter()
            .enumerate()
    {
        let person = invited(&lumio, &ada, &format!("{role}@example.com"), role).await;
        let key = with(&lumio.create(&person, "ci").await);
        for pass in [&person, &key] {
            assert_eq!(lumio.powers(pass).await, powers, "{role} by {}", pass.0);
        }
        let guest = json!({ "email": format!("guest{n}@example.com"), "role": "member" });
        let status = if may_invite { 201 } else { 403 };
        assert_eq!(lumio.post(TEAM, &person, guest.clone()).await.0, status, "{role}");
        assert_eq!(lumio.post(TEAM, &key, guest).await.0, 401, "a key manages no team");
    }
    let (_, deployed) = lumio.post("/extensions/weather/deploy", &ada, Value::Null).await;
    assert_eq!(deployed["team"], ADA);
    let members = lumio.get(TEAM, &lumio.sign_in("member@example.com").await).await;
    assert_eq!(members["members"].as_array().unwrap().len(), 6, "{members}");
}

/// Beyond the page: nobody raises himself or others above the own role, reaches into other teams, or
/// has an account that is someone else's.
#[tokio::test]
async fn nobody_hands_out_a_role_above_the_own_or_reaches_into_another_team() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    let admin = invited(&lumio, &ada, "admin@example.com", "admin").await;
    let bob = invited(&lumio, &ada, BOB, "member").await;
    let eve = lumio.founder("eve@example.com").await;
    let to_owner = json!({ "email": "x@example.com", "role": "owner" });
    assert_eq!(lumio.post(TEAM, &admin, to_owner).await.0, 403);
    for (by, email, role, status) in [
        (&admin, BOB, "owner", 403),
        (&admin, ADA, "member", 403),
        (&admin, "admin@example.com", "owner", 403),
        (&ada, ADA, "member", 404),
        (&bob, BOB, "admin", 403),
        (&eve, BOB, "member", 404),
        (&admin, BOB, "admin", 204),
    ] {
        assert_eq!(make(&lumio, by, email, role).await, status, "{email} {role}");
    }
    for (by, email, status) in [(&admin, ADA, 403), (&eve, BOB, 404), (&ada, ADA, 404)] {
        assert_eq!(remove(&lumio, by, email).await, status, "{email}");
    }
    let taken = json!({ "email": "eve@example.com", "role": "member" });
    assert_eq!(lumio.post(TEAM, &ada, taken).await.0, 409);
    assert_eq!(lumio.powers(&ada).await, OWNER);
    assert_eq!(lumio.powers(&bob).await, ADMIN);
}

/// > Each team member authenticates with their own credentials — shared passwords or shared API keys are
/// > not needed or recommended.
/// > Rotate API keys … immediately when: A team member with access to the key leaves
async fn shrinking(place: &Place) {
    let [here, elsewhere] = [place.now(), place.now()];
    let ada = here.founder(ADA).await;
    let bob = invited(&here, &ada, BOB, "admin").await;
    let [own, key] = [(&ada, "hers"), (&bob, "his")].map(|(by, label)| here.create(by, label));
    let [own, key] = [with(&own.await), with(&key.await)];
    for lumio in [&here, &elsewhere] {
        assert_eq!(lumio.powers(&key).await, ADMIN);
    }
    assert_eq!(make(&here, &ada, BOB, "member").await, 204);
    assert_eq!(here.powers(&key).await, MEMBER, "at once");
    eventually("the other region has heard", async || elsewhere.powers(&key).await == MEMBER).await;
    assert_eq!(remove(&here, &ada, BOB).await, 204);
    assert_eq!(here.deploy(&key).await, 401);
    assert_eq!(here.deploy(&bob).await, 401, "nor in the session");
    eventually("the other region has heard", async || elsewhere.deploy(&key).await == 401).await;
    for lumio in [&here, &elsewhere] {
        assert_eq!(lumio.powers(&own).await, OWNER, "nobody else's key is touched");
    }
    here.founder(BOB).await;
    assert_eq!(here.deploy(&key).await, 401, "what was revoked stays so in a new account");
}

#[tokio::test]
async fn a_member_whose_role_shrinks_or_ends_loses_those_powers_on_existing_keys() {
    shrinking(&Place::new()).await;
}

/// > If you need limited access for a specific use case, create a separate developer sub-account (see
/// > Teams).
#[tokio::test]
async fn a_sub_account_has_keys_for_limited_access() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    let robot = invited(&lumio, &ada, "ada+ci@example.com", "member").await;
    let [full, limited] = [lumio.create(&ada, "mine").await, lumio.create(&robot, "ci").await];
    assert_eq!(lumio.powers(&with(&full)).await, OWNER);
    assert_eq!(lumio.powers(&with(&limited)).await, MEMBER);
    let (_, deployed) = lumio.post("/extensions/weather/deploy", &with(&limited), json!(0)).await;
    assert_eq!(deployed["team"], ADA, "in the same team");
    assert_eq!(remove(&lumio, &ada, "ada+ci@example.com").await, 204);
    assert_eq!(lumio.deploy(&with(&limited)).await, 401);
    assert_eq!(lumio.powers(&with(&full)).await, OWNER);
}

impl Lumio {
    /// The log as the page has it, oldest first.
    async fn log(&self, by: &Pass) -> Vec<Value> {
        let mut log = self.get("/account/security/audit-log", by).await;
        let mut entries = log["entries"].take().as_array().unwrap().clone();
        entries.reverse();
        entries
    }
}

/// > Every authentication event, deployment, and settings change is logged in the audit log under
/// > Account → Security → Audit Log. timestamp: UTC timestamp of the event. event: Event type (e.g.
/// > api_key.created, extension.deployed). actor: Email or API key label. ip: Source IP address. result:
/// > success or failure
#[tokio::test]
async fn authentication_deployments_and_settings_are_logged_with_the_fields_of_the_page() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    let bob = invited(&lumio, &ada, BOB, "member").await;
    let made = lumio.create(&bob, "ci-github-actions").await;
    assert_eq!(lumio.powers(&with(&made)).await, MEMBER);
    assert_eq!(make(&lumio, &bob, BOB, "owner").await, 403);
    lumio.revoke(&bob, &made).await;
    assert_eq!(lumio.deploy(&with(&made)).await, 401);
    let expected = [
        ("session.created", BOB, "success"),
        ("api_key.created", BOB, "success"),
        ("extension.published", "ci-github-actions", "failure"),
        ("billing.changed", "ci-github-actions", "failure"),
        ("extension.deployed", "ci-github-actions", "success"),
        ("team.role_changed", BOB, "failure"),
        ("api_key.revoked", BOB, "success"),
        ("api_key.first_used", "ci-github-actions", "success"),
        ("api_key.denied", "ci-github-actions", "failure"),
    ];
    let told = |entry: &Value| {
        ["event", "actor", "result"].map(|field| entry[field].as_str().unwrap().to_owned())
    };
    let log = lumio.log(&bob).await;
    let expected = expected.map(|(event, actor, result)| [event, actor, result].map(str::to_owned));
    for expected in &expected {
        let found = log.iter().filter(|entry| told(entry) == *expected).count();
        assert_eq!(found, 1, "{expected:?} in {log:#?}");
    }
    assert_eq!(log.len(), expected.len(), "{log:#?}");
    for entry in &log {
        assert_eq!(entry["timestamp"], "2026-02-09T12:00:00.000Z");
        assert_eq!(entry["ip"], "127.0.0.1", "{entry}");
    }
    let hers: Vec<_> = lumio.log(&ada).await.iter().map(told).collect();
    let event = |event: &str| [event, ADA, "success"].map(str::to_owned);
    assert_eq!(hers, [event("session.created"), event("team.member_invited")]);
}

/// Beyond the page: the log is read to its end, page by page.
#[tokio::test]
async fn the_log_is_read_to_its_end() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    for _ in 0..2 {
        // Not by a key, for these have a rate.
        for _ in 0..60 {
            assert_eq!(lumio.deploy(&ada).await, 200);
        }
    }
    let (mut path, mut seen) = ("/account/security/audit-log".to_owned(), 0);
    loop {
        let log = lumio.get(&path, &ada).await;
        let entries = log["entries"].as_array().unwrap();
        let Some(last) = entries.last() else { break };
        seen += entries.len();
        let id = last["id"].as_str().unwrap();
        path = format!("/account/security/audit-log?before={id}");
    }
    assert_eq!(seen, 121);
    for wrong in ["?before=", "?before=x", "?after=x"] {
        let path = format!("/account/security/audit-log{wrong}");
        assert_eq!(lumio.call(Method::GET, &path, &ada, Value::Null).await.0, 400, "{wrong}");
    }
}

/// > Audit logs are retained for 90 days.
#[tokio::test]
async fn the_audit_log_is_kept_for_90_days() {
    let place = Place::new();
    let dates = ["2026-02-09", "2026-02-11"];
    let first = place.at(dates[0]);
    let key = with(&first.create(&first.founder(ADA).await, "ci").await);
    assert_eq!(first.deploy(&key).await, 200);
    assert_eq!(place.at(dates[1]).deploy(&key).await, 200);
    let deployed = async |lumio: &Lumio| {
        let log = lumio.log(&lumio.sign_in(ADA).await).await;
        let deployed = log.iter().filter(|entry| entry["event"] == "extension.deployed");
        let days = deployed.map(|entry| entry["timestamp"].as_str().unwrap()[..10].to_owned());
        days.collect::<Vec<_>>()
    };
    let within = place.at("2026-05-10");
    assert_eq!(deployed(&within).await, dates);
    let beyond = place.at("2026-05-11");
    assert_eq!(beyond.deploy(&key).await, 200, "which brings the server to life");
    let left = [dates[1], "2026-05-11"];
    eventually("the older is gone", async || deployed(&beyond).await == left).await;
}

/// What an authenticator app has that scanned the address.
struct App(TotpSecret);

impl App {
    fn scan(setup: &Value) -> Self {
        let uri = setup["uri"].as_str().unwrap();
        assert!(uri.starts_with("otpauth://totp/Lumio:ada%40example.com?secret="), "{uri}");
        assert!(setup["qr"].as_str().unwrap().starts_with("<svg "));
        let secret = uri.split(['=', '&']).nth(1).unwrap();
        Self(TotpSecret::from_base32(secret).unwrap())
    }

    /// What it shows on the server's stopped clock, or so many steps from there.
    fn shows(&self, steps: i64) -> Value {
        let now = "2026-02-09T12:00:00Z".parse().unwrap();
        json!({ "code": code(&self.0, now, steps) })
    }
}

/// An authenticator that makes passkeys, and a browser that shows it a page of this origin.
struct Authenticator(SoftPasskey, Url);

impl Authenticator {
    fn of(lumio: &Lumio) -> Self {
        let origin = lumio.server.url().replace("127.0.0.1", "localhost");
        Self(SoftPasskey::new(true), origin.parse().unwrap())
    }

    fn create(&mut self, options: Value) -> Value {
        let options = serde_json::from_value(options).unwrap();
        json!(self.0.do_registration(self.1.clone(), options).unwrap())
    }

    fn get(&mut self, options: Value) -> Value {
        let options = serde_json::from_value(options).unwrap();
        json!(self.0.do_authentication(self.1.clone(), options).unwrap())
    }
}

impl Lumio {
    async fn two_factor(&self, method: Method, path: &str, by: &Pass, body: Value) -> Reply {
        self.call(method, &format!("/account/security/two-factor{path}"), by, body).await
    }

    /// What the server asks of an app or an authenticator.
    async fn asks(&self, path: &str, by: &Pass) -> Value {
        let (status, asked) = self.two_factor(Method::POST, path, by, Value::Null).await;
        assert_eq!(status, 200, "{path}: {asked}");
        asked
    }

    /// What it says to their answer.
    async fn told(&self, path: &str, by: &Pass, answer: Value) -> Reply {
        self.two_factor(Method::PUT, path, by, answer).await
    }

    async fn types(&self, by: &Pass, code: Value) -> Reply {
        self.two_factor(Method::POST, "/code", by, code).await
    }

    async fn enable_app(&self, by: &Pass) -> App {
        let app = App::scan(&self.asks("/totp", by).await);
        assert_eq!(self.told("/totp", by, app.shows(-1)).await.0, 204);
        app
    }

    async fn add_passkey(&self, by: &Pass) -> Authenticator {
        let mut authenticator = Authenticator::of(self);
        let made = authenticator.create(self.asks("/passkeys", by).await);
        assert_eq!(self.told("/passkeys", by, made).await, (204, Value::Null));
        authenticator
    }

    async fn events(&self, by: &Pass, event: &str) -> Vec<Value> {
        let of = |entry: &Value| entry["event"] == event;
        self.log(by).await.into_iter().filter(of).map(|entry| entry["result"].clone()).collect()
    }
}

fn refused(status: u16, code: &str) -> Reply {
    (status, json!({ "code": code }))
}

/// > Enable 2FA for your account under Account → Security → Two-Factor Authentication. TOTP — any
/// > authenticator app (Google Authenticator, Authy, 1Password)
#[tokio::test]
async fn an_authenticator_app_is_enabled_by_its_first_code_and_asked_for_from_then_on() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    assert_eq!(lumio.told("/totp", &ada, json!({ "code": "123456" })).await.0, 409, "not begun");
    let app = App::scan(&lumio.asks("/totp", &ada).await);
    let far = app.shows(500);
    assert_eq!(lumio.told("/totp", &ada, far.clone()).await, refused(400, "wrong_code"));
    let elsewhere = lumio.sign_in(ADA).await;
    lumio.get(KEYS, &elsewhere).await;
    assert_eq!(lumio.told("/totp", &ada, app.shows(-1)).await.0, 204);
    lumio.get(KEYS, &ada).await;

    let (status, asked) = lumio.call(Method::GET, KEYS, &elsewhere, Value::Null).await;
    assert_eq!((status, asked), refused(401, "confirm_by_second_factor"));
    assert_eq!(lumio.types(&elsewhere, app.shows(-1)).await, refused(400, "used_code"));
    assert_eq!(lumio.types(&elsewhere, far).await, refused(400, "wrong_code"));
    assert_eq!(lumio.types(&elsewhere, app.shows(0)).await.0, 204);
    lumio.get(KEYS, &elsewhere).await;
    assert_eq!(lumio.events(&ada, "two_factor.totp_enabled").await, ["success"]);
    assert_eq!(lumio.events(&ada, "second_factor.accepted").await, ["success"; 2]);
    let refusals = lumio.events(&ada, "second_factor.refused").await;
    assert!(!refusals.is_empty() && refusals.iter().all(|result| result == "failure"));
}

/// Beyond the page: a million codes are not tried out, and the owner of the account is not asked for
/// patience longer than that takes.
#[tokio::test]
async fn codes_cannot_be_guessed() {
    let place = Place::new();
    let lumio = place.now();
    let app = lumio.enable_app(&lumio.founder(ADA).await).await;
    let thief = lumio.sign_in(ADA).await;
    for n in 100..105 {
        assert_eq!(lumio.types(&thief, app.shows(n)).await, refused(400, "wrong_code"));
    }
    for code in [app.shows(0), app.shows(106)] {
        assert_eq!(lumio.types(&thief, code).await, refused(429, "too_many_codes"));
    }
}

/// > 2FA is required for all accounts that have published paid extensions.
#[tokio::test]
async fn who_sells_makes_and_rotates_keys_with_a_fresh_second_factor_only() {
    let place = Place::new();
    let lumio = place.now();
    let ada = lumio.founder(ADA).await;
    let made = lumio.create(&ada, "ci").await;
    let key = with(&made);
    let publish = async |by: &Pass, price: u32| {
        lumio.post("/extensions/weather/publish", by, json!({ "price": price })).await.0
    };
    for by in [&ada, &key] {
        assert_eq!((publish(by, 0).await, publish(by, 5).await), (200, 403), "by {}", by.0);
    }
    let app = lumio.enable_app(&ada).await;
    assert_eq!(publish(&key, 5).await, 200);

    let path = format!("{KEYS}/{}", made["id"].as_str().unwrap());
    let rotate = format!("{path}/rotate");
    lumio.create(&ada, "within a quarter of an hour").await;
    let later = place.at_time("2026-02-09T12:15:01Z");
    let ada = later.sign_in(ADA).await;
    let late = |steps: i64| app.shows(30 + steps);
    assert_eq!(later.types(&ada, late(-1)).await.0, 204);
    later.create(&ada, "confirmed").await;
    let (status, rotated) = later.post(&rotate, &ada, json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(later.deploy(&with(&rotated)).await, 200, "keys themselves go on working");
    let pass = with(&rotated);
    assert_eq!(later.powers(&pass).await, OWNER);
}

/// > Passkey — hardware security key or platform authenticator
#[tokio::test]
async fn a_passkey_is_a_second_factor() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    let nothing = lumio.two_factor(Method::POST, "/passkey", &ada, Value::Null).await;
    assert_eq!(nothing, refused(404, "no_passkey"));
    let mut authenticator = lumio.add_passkey(&ada).await;
    lumio.get(KEYS, &ada).await;
    for _ in 0..2 {
        let elsewhere = lumio.sign_in(ADA).await;
        let (status, asked) = lumio.call(Method::GET, KEYS, &elsewhere, Value::Null).await;
        assert_eq!((status, asked), refused(401, "confirm_by_second_factor"));
        let assertion = authenticator.get(lumio.asks("/passkey", &elsewhere).await);
        assert_eq!(lumio.told("/passkey", &elsewhere, assertion).await, (204, Value::Null));
        lumio.get(KEYS, &elsewhere).await;
    }
    assert_eq!(lumio.events(&ada, "two_factor.passkey_added").await, ["success"]);
    assert_eq!(lumio.events(&ada, "second_factor.accepted").await, ["success"; 2]);
    assert!(lumio.events(&ada, "second_factor.refused").await.is_empty());
}

/// Beyond the page: what a passkey has answered is good once, for the session that asked, and on the
/// pages of the product.
#[tokio::test]
async fn a_replayed_assertion_a_wrong_origin_and_a_wrong_passkey_are_refused() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    let not_accepted = refused(400, "passkey_not_accepted");
    let phishing = |mut authenticator: Authenticator| {
        authenticator.1 = "http://localhost:1".parse().unwrap();
        authenticator
    };
    let mut fake = phishing(Authenticator::of(&lumio));
    let made = fake.create(lumio.asks("/passkeys", &ada).await);
    assert_eq!(lumio.told("/passkeys", &ada, made).await, not_accepted, "a wrong origin");
    let mut authenticator = Authenticator::of(&lumio);
    let made = authenticator.create(lumio.asks("/passkeys", &ada).await);
    assert_eq!(lumio.told("/passkeys", &ada, made.clone()).await.0, 204);
    assert_eq!(lumio.told("/passkeys", &ada, made.clone()).await, not_accepted, "a replay");
    let _ = lumio.asks("/passkeys", &ada).await;
    assert_eq!(lumio.told("/passkeys", &ada, made).await, not_accepted, "to another challenge");

    let thief = lumio.sign_in(ADA).await;
    let assertion = authenticator.get(lumio.asks("/passkey", &ada).await);
    assert_eq!(
        lumio.told("/passkey", &thief, assertion.clone()).await,
        not_accepted,
        "nothing asked"
    );
    assert_eq!(lumio.told("/passkey", &ada, assertion.clone()).await.0, 204);
    assert_eq!(lumio.told("/passkey", &ada, assertion.clone()).await, not_accepted, "a replay");
    let asked = lumio.asks("/passkey", &thief).await;
    assert_eq!(lumio.told("/passkey", &thief, assertion).await, not_accepted, "another challenge");
    assert_eq!(lumio.call(Method::GET, KEYS, &thief, Value::Null).await.0, 401);
    let assertion = authenticator.get(asked);
    assert_eq!(lumio.told("/passkey", &thief, assertion).await, not_accepted, "one try each");

    let mut authenticator = phishing(authenticator);
    let assertion = authenticator.get(lumio.asks("/passkey", &thief).await);
    assert_eq!(lumio.told("/passkey", &thief, assertion).await, not_accepted, "a wrong origin");
    assert_eq!(lumio.call(Method::GET, KEYS, &thief, Value::Null).await.0, 401);

    // Somebody else's passkey, made to look like hers.
    let bob = lumio.founder(BOB).await;
    let mut his = lumio.add_passkey(&bob).await;
    let to_him = lumio.asks("/passkey", &bob).await["publicKey"]["allowCredentials"].clone();
    let mut asked = lumio.asks("/passkey", &thief).await;
    asked["publicKey"]["allowCredentials"] = to_him;
    assert_eq!(lumio.told("/passkey", &thief, his.get(asked)).await, not_accepted);
    assert_eq!(lumio.call(Method::GET, KEYS, &thief, Value::Null).await.0, 401);
}

/// Beyond the page: who has stolen a session does not set up a factor of his own beside hers.
#[tokio::test]
async fn another_factor_takes_a_fresh_one_of_those_there_are() {
    let lumio = Place::new().now();
    let ada = lumio.founder(ADA).await;
    let thief = lumio.sign_in(ADA).await;
    let his = App::scan(&lumio.asks("/totp", &thief).await);
    let mut authenticator = lumio.add_passkey(&ada).await;
    let late = lumio.told("/totp", &thief, his.shows(-1)).await;
    assert_eq!(late, refused(403, "second_factor_required"), "begun before there was one");
    for path in ["/totp", "/passkeys"] {
        let (status, told) = lumio.two_factor(Method::POST, path, &thief, Value::Null).await;
        assert_eq!((status, told), refused(403, "second_factor_required"), "{path}");
    }
    let app = lumio.enable_app(&ada).await;
    let elsewhere = lumio.sign_in(ADA).await;
    assert_eq!(lumio.types(&elsewhere, app.shows(0)).await.0, 204, "either of them will do");
    let assertion = authenticator.get(lumio.asks("/passkey", &thief).await);
    assert_eq!(lumio.told("/passkey", &thief, assertion).await.0, 204);
}

/// Beyond the page: two servers on PostgreSQL that count in Redis let through as much as one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_the_same_on_postgresql_with_rates_in_redis() {
    let (Some(database), Some(redis)) = (stores::postgres().await, shared()) else { return };
    let space = redis.space();
    let elsewhere = ["--database", database.url(), "--redis", space.url()].map(str::to_owned);
    let place = Place { elsewhere: elsewhere.into(), ..Place::new() };
    let servers = [place.now(), place.now()];
    let founder = format!("{}@example.com", space.prefix());
    let by = servers[0].founder(&founder).await;
    let key = with(&servers[0].create(&by, "ci").await);
    let (begun, mut accepted) = (Instant::now(), 0);
    for lumio in servers.iter().cycle().take(240) {
        accepted += u64::from(lumio.deploy(&key).await == 200);
    }
    // What Redis keeps ends by its own clock, which does not stand still.
    let most = 60 + begun.elapsed().as_secs() + 1;
    assert!((60..=most).contains(&accepted), "{accepted} of {most}");
    revocation(&place).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_shrink_on_postgresql_as_well() {
    let Some(database) = stores::postgres().await else { return };
    let elsewhere = ["--database", database.url()].map(str::to_owned);
    shrinking(&Place { elsewhere: elsewhere.into(), ..Place::new() }).await;
}
