//! The product page of Lumio: `examples/lumio`, over HTTP.

mod keys;
mod log;
mod second_factor;
mod teams;

use std::sync::Arc;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::backend::Backend;
use crate::support::examples::Serving;

/// The shared data of several servers: a backend for keys, and a folder for users.
struct Deployment {
    folder: Arc<TempDir>,
    storage_arguments: Vec<String>,
}

/// A server with a stopped clock.
struct Lumio {
    server: Serving,
    client: Client,
    _folder: Arc<TempDir>,
}

/// The header that authenticates a request.
#[derive(Clone)]
struct Credential(&'static str, String);

type Reply = (u16, Value);

impl Deployment {
    fn new(backend: &Backend) -> Self {
        let mut storage_arguments = vec!["--database".to_owned(), backend.database().to_owned()];
        if let Some(space) = backend.rates() {
            storage_arguments.extend(["--redis".to_owned(), space.url().to_owned()]);
        }
        Self { folder: Arc::new(tempfile::tempdir().unwrap()), storage_arguments }
    }

    fn server_on(&self, date: &str) -> Lumio {
        self.server_at(&format!("{date}T12:00:00Z"))
    }

    fn server_at(&self, clock: &str) -> Lumio {
        let arguments = ["--data", self.folder.path().to_str().unwrap(), "--clock", clock];
        let storage: Vec<&str> = self.storage_arguments.iter().map(String::as_str).collect();
        let server = Serving::start("lumio", &[&arguments, &storage[..]].concat());
        let client = Client::builder().no_proxy().user_agent("Firefox/140").build().unwrap();
        Lumio { server, client, _folder: self.folder.clone() }
    }

    fn server(&self) -> Lumio {
        self.server_on("2026-02-09")
    }
}

impl Lumio {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.server.url()))
    }

    async fn send(&self, method: Method, path: &str, by: &Credential, body: &Value) -> Response {
        let request = self.request(method, path).header(by.0, &by.1);
        let request = request.header("content-type", "application/json").body(body.to_string());
        request.send().await.unwrap()
    }

    async fn call(&self, method: Method, path: &str, by: &Credential, body: Value) -> Reply {
        let response = self.send(method, path, by, &body).await;
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn post(&self, path: &str, by: &Credential, body: Value) -> Reply {
        self.call(Method::POST, path, by, body).await
    }

    async fn get(&self, path: &str, by: &Credential) -> Value {
        let (status, body) = self.call(Method::GET, path, by, Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Signs in a user who has an account.
    async fn sign_in(&self, email: &str) -> Credential {
        let by = Credential("accept", "*/*".into());
        let body = json!({ "email": email });
        let answer = self.send(Method::POST, "/sign-in", &by, &body).await;
        assert_eq!(answer.status(), 204, "{email}");
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap();
        Credential("cookie", format!("theme=dark; {cookie}"))
    }

    /// Signs up and signs in a user with a new team.
    async fn sign_up(&self, email: &str) -> Credential {
        let by = Credential("accept", "*/*".into());
        assert_eq!(self.post("/sign-up", &by, json!({ "email": email })).await.0, 201);
        self.sign_in(email).await
    }

    /// Creates a key, and returns its record and secret.
    async fn create(&self, by: &Credential, label: &str) -> Value {
        let (status, created) = self.post(KEYS, by, json!({ "name": label })).await;
        assert_eq!(status, 201, "{created}");
        created
    }

    /// Deploys with a key or a session, and returns the status.
    async fn deploy(&self, by: &Credential) -> u16 {
        self.post("/extensions/weather/deploy", by, Value::Null).await.0
    }

    /// Tries each permission of the page's table, and returns the statuses.
    async fn permissions(&self, by: &Credential) -> [u16; 3] {
        let publish = self.post("/extensions/weather/publish", by, json!({})).await.0;
        let bill = json!({ "to": "accounts payable" });
        let billing = self.call(Method::PUT, "/account/billing", by, bill).await.0;
        [self.deploy(by).await, publish, billing]
    }

    async fn revoke(&self, by: &Credential, key: &Value) {
        let path = format!("{KEYS}/{}", key["id"].as_str().unwrap());
        assert_eq!(self.call(Method::DELETE, &path, by, Value::Null).await.0, 200);
    }
}

/// Returns the header that presents this key.
fn present(key: &Value) -> Credential {
    Credential("x-api-key", key["key"].as_str().unwrap().to_owned())
}

impl Lumio {
    /// Reads all pages of the log. The oldest entry is first.
    async fn log(&self, by: &Credential) -> Vec<Value> {
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

/// Invites a user into the team and signs them in.
async fn invite(lumio: &Lumio, by: &Credential, email: &str, role: &str) -> Credential {
    let body = json!({ "email": email, "role": role });
    assert_eq!(lumio.post(TEAM, by, body).await.0, 201, "{email}");
    lumio.sign_in(email).await
}

async fn change_role(lumio: &Lumio, by: &Credential, email: &str, role: &str) -> u16 {
    let path = format!("{TEAM}/{email}");
    lumio.call(Method::PUT, &path, by, json!({ "role": role })).await.0
}

async fn remove(lumio: &Lumio, by: &Credential, email: &str) -> u16 {
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
