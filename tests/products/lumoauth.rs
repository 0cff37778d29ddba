//! The product page of LumoAuth: `examples/lumoauth`, over HTTP.

mod bodies;
mod lifecycle;
mod nodes;
mod registration;
mod statements;
mod tenants;

use std::{fs, net::SocketAddr};

use reqwest::{
    Body, Client, Method, RequestBuilder,
    header::{AUTHORIZATION, HeaderMap},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::backend::Backend;
use crate::support::examples::Serving;

/// A server. Ada and Alan are administrators of `acme`, Gus of `globex`.
struct Lumo {
    server: Serving,
    client: Client,
    folder: TempDir,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Lumo {
    fn start(backend: &Backend) -> Self {
        Self::start_in(backend, tempfile::tempdir().unwrap())
    }

    fn start_in(backend: &Backend, folder: TempDir) -> Self {
        let file = |name| folder.path().join(name).to_str().unwrap().to_owned();
        let (clients, publisher) = (file("clients.jsonl"), file("publisher.pem"));
        fs::write(&publisher, statements::public_key()).unwrap();
        let mut arguments = vec!["--database", backend.database()];
        arguments.extend(["--clients", &clients, "--publisher", &publisher]);
        if let Some(space) = backend.rates() {
            arguments.extend(["--redis", space.url()]);
        }
        Self::start_with(folder, &arguments)
    }

    /// Stops the server and starts another one with the same data.
    fn restarted(self, backend: &Backend) -> Self {
        let Self { server, folder, .. } = self;
        server.stop();
        Self::start_in(backend, folder)
    }

    fn start_with(folder: TempDir, arguments: &[&str]) -> Self {
        let server = Serving::start("lumoauth", arguments);
        let client = Client::builder().no_proxy().user_agent("Firefox/140").build().unwrap();
        Self { server, client, folder }
    }

    fn address(&self) -> SocketAddr {
        self.server.url().strip_prefix("http://").unwrap().parse().unwrap()
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.server.url()))
    }

    /// Sends a request to the tenant's portal in the session of an administrator, such as `ada@acme`.
    async fn portal(&self, session: &str, method: Method, path: &str, body: &Value) -> Reply {
        let (_, tenant) = session.split_once('@').unwrap();
        self.portal_of(tenant, session, method, path, body).await
    }

    async fn portal_of(
        &self,
        tenant: &str,
        session: &str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Reply {
        let request = self.request(method, &format!("/t/{tenant}/portal/settings{path}"));
        let request = request.header("cookie", format!("theme=dark; session={session}"));
        reply(with_json(request, body)).await
    }

    async fn listed(&self, session: &str) -> Vec<Value> {
        let listed = self.portal(session, Method::GET, "/api-keys", &Value::Null).await;
        assert_eq!(listed.status, 200, "{}", listed.body);
        listed.body["keys"].as_array().unwrap().clone()
    }

    /// Creates a key, and returns its record and secret.
    async fn key(&self, session: &str, name: &str) -> Value {
        self.key_with(session, &json!({ "name": name })).await
    }

    async fn key_with(&self, session: &str, body: &Value) -> Value {
        let created = self.portal(session, Method::POST, "/api-keys", body).await;
        assert_eq!(created.status, 201, "{}", created.body);
        created.body
    }

    /// Returns the tenant's audit events, newest first.
    async fn log(&self, session: &str) -> Vec<Value> {
        let log = self.portal(session, Method::GET, "/audit", &Value::Null).await;
        log.body["events"].as_array().unwrap().clone()
    }

    /// Sends a request with a key to the tenant's admin API.
    async fn admin(&self, tenant: &str, key: &Value, method: Method, path: &str) -> Reply {
        let request = self.request(method, &format!("/t/{tenant}/api/v1/admin{path}"));
        reply(request.header(AUTHORIZATION, bearer(key))).await
    }

    /// Returns whether the tenant's admin API accepts a key.
    async fn works(&self, tenant: &str, key: &Value) -> bool {
        let used = self.admin(tenant, key, Method::GET, "/users").await;
        assert!([200, 401].contains(&used.status), "{used:?}");
        used.status == 200
    }

    /// Registers a client with a key.
    async fn register(&self, tenant: &str, key: &Value, body: &Value) -> Reply {
        self.register_text(tenant, key, body.to_string()).await
    }

    async fn register_text(&self, tenant: &str, key: &Value, body: impl Into<Body>) -> Reply {
        let request = self.request(Method::POST, &format!("/t/{tenant}/register"));
        let request = request.header("content-type", "application/json");
        reply(request.header(AUTHORIZATION, bearer(key)).body(body)).await
    }

    /// Lists the clients of a tenant.
    async fn clients(&self, tenant: &str, key: &Value) -> Vec<Value> {
        let listed = self.admin(tenant, key, Method::GET, "/clients").await;
        listed.body["clients"].as_array().unwrap().clone()
    }

    /// Returns the contents of the server's files.
    fn stored(&self) -> Vec<u8> {
        let files = fs::read_dir(self.folder.path()).unwrap();
        files.flat_map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
    }
}

impl Reply {
    /// Returns the code of a registration error. Asserts that it has the form of RFC 7591.
    fn error(&self) -> &str {
        assert_eq!(self.status, 400, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json");
        let names: Vec<_> = self.body.as_object().unwrap().keys().collect();
        assert_eq!(names, ["error", "error_description"]);
        let [code, text] =
            ["error", "error_description"].map(|name| self.body[name].as_str().unwrap());
        let allowed = |c: char| matches!(c, ' '..='~') && c != '"' && c != '\\';
        assert!(!text.is_empty() && text.chars().all(allowed), "{text}");
        code
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn with_json(request: RequestBuilder, body: &Value) -> RequestBuilder {
    request.header("content-type", "application/json").body(body.to_string())
}

fn bearer(key: &Value) -> String {
    format!("Bearer {}", secret(key))
}

/// Returns the secret of a created key.
fn secret(key: &Value) -> &str {
    key["key"].as_str().unwrap()
}

fn path_of(key: &Value) -> String {
    format!("/api-keys/{}", key["id"].as_str().unwrap())
}

async fn reply(request: RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
    Reply { status, headers, body }
}

fn contains(stored: &[u8], part: &[u8]) -> bool {
    stored.windows(part.len()).any(|window| window == part)
}
