//! The page of Lumio: `examples/lumio`, over HTTP.

mod keys;
mod log;
mod second_factor;
mod teams;

use std::sync::Arc;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::place::Place;
use crate::support::examples::Serving;

/// Some servers: their keys are in a place of the run, and their people in a folder.
struct Site {
    folder: Arc<TempDir>,
    keys: Vec<String>,
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

impl Site {
    fn new(place: &Place) -> Self {
        let mut keys = vec!["--database".to_owned(), place.database().to_owned()];
        if let Some(space) = place.rates() {
            keys.extend(["--redis".to_owned(), space.url().to_owned()]);
        }
        Self { folder: Arc::new(tempfile::tempdir().unwrap()), keys }
    }

    fn at(&self, date: &str) -> Lumio {
        self.at_time(&format!("{date}T12:00:00Z"))
    }

    fn at_time(&self, clock: &str) -> Lumio {
        let here = ["--data", self.folder.path().to_str().unwrap(), "--clock", clock];
        let keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        let server = Serving::start("lumio", &[&here, &keys[..]].concat());
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
        let cookie = cookie.split(';').next().unwrap();
        Pass("cookie", format!("theme=dark; {cookie}"))
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

impl Lumio {
    /// The log as the page has it, oldest first, to its end.
    async fn log(&self, by: &Pass) -> Vec<Value> {
        let (mut path, mut read) = (LOG.to_owned(), Vec::new());
        loop {
            let mut page = self.get(&path, by).await;
            let Value::Array(page) = page["entries"].take() else { panic!("{page}") };
            let Some(last) = page.last() else { break };
            path = format!("{LOG}?before={}", last["id"].as_str().unwrap());
            read.extend(page);
        }
        read.reverse();
        read
    }
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

const KEYS: &str = "/account/security/api-keys";
const LOG: &str = "/account/security/audit-log";
const TEAM: &str = "/account/team";
const ADA: &str = "ada@example.com";
const BOB: &str = "bob@example.com";
const OWNER: [u16; 3] = [200, 200, 200];
const ADMIN: [u16; 3] = [200, 200, 403];
const MEMBER: [u16; 3] = [200, 403, 403];
