//! The page of Lumio: `examples/lumio`, over HTTP.

use std::{fs, process::Stdio, sync::Arc};

use regex::Regex;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::support::{Person, Said, mode},
    support::{
        examples::{Serving, example},
        servers::eventually,
    },
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
        let clock = format!("{date}T12:00:00Z");
        let here = ["--data", self.folder.path().to_str().unwrap(), "--clock", &clock];
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
    cli(&person, &lumio, &[], &["login", "--token", &key[..63]]).fails(1, "");
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
