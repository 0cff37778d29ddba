//! The page of LumoAuth: `examples/lumoauth`, over HTTP.

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

use super::place::Place;
use crate::support::examples::Serving;

/// A server; Ada and Alan administer `acme`, and Gus administers `globex`.
struct Lumo {
    server: Serving,
    client: Client,
    folder: TempDir,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    fields: HeaderMap,
    body: Value,
}

impl Lumo {
    fn start(place: &Place) -> Self {
        Self::on(place, tempfile::tempdir().unwrap())
    }

    fn on(place: &Place, folder: TempDir) -> Self {
        let file = |name| folder.path().join(name).to_str().unwrap().to_owned();
        let (clients, publisher) = (file("clients.jsonl"), file("publisher.pem"));
        fs::write(&publisher, statements::public_key()).unwrap();
        let mut arguments = vec!["--database", place.database()];
        arguments.extend(["--clients", &clients, "--publisher", &publisher]);
        if let Some(space) = place.rates() {
            arguments.extend(["--redis", space.url()]);
        }
        Self::with(folder, &arguments)
    }

    /// Another server in the same place, after this one has ended in order.
    fn restarted(self, place: &Place) -> Self {
        let Self { server, folder, .. } = self;
        server.stop();
        Self::on(place, folder)
    }

    fn with(folder: TempDir, arguments: &[&str]) -> Self {
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

    /// What the portal does in the session of an administrator, `ada@acme`, in the portal of his tenant.
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

    /// A new key, with its text.
    async fn key(&self, session: &str, name: &str) -> Value {
        self.key_with(session, &json!({ "name": name })).await
    }

    async fn key_with(&self, session: &str, body: &Value) -> Value {
        let made = self.portal(session, Method::POST, "/api-keys", body).await;
        assert_eq!(made.status, 201, "{}", made.body);
        made.body
    }

    /// What happened to the keys of a tenant, the newest first.
    async fn log(&self, session: &str) -> Vec<Value> {
        let log = self.portal(session, Method::GET, "/audit", &Value::Null).await;
        log.body["events"].as_array().unwrap().clone()
    }

    /// What a program is answered by the admin API of a tenant.
    async fn admin(&self, tenant: &str, key: &Value, method: Method, path: &str) -> Reply {
        let request = self.request(method, &format!("/t/{tenant}/api/v1/admin{path}"));
        reply(request.header(AUTHORIZATION, bearer(key))).await
    }

    /// Whether a key works.
    async fn works(&self, tenant: &str, key: &Value) -> bool {
        let used = self.admin(tenant, key, Method::GET, "/users").await;
        assert!([200, 401].contains(&used.status), "{used:?}");
        used.status == 200
    }

    /// What a program is answered that registers a client.
    async fn register(&self, tenant: &str, key: &Value, body: &Value) -> Reply {
        self.register_text(tenant, key, body.to_string()).await
    }

    async fn register_text(&self, tenant: &str, key: &Value, body: impl Into<Body>) -> Reply {
        let request = self.request(Method::POST, &format!("/t/{tenant}/register"));
        let request = request.header("content-type", "application/json");
        reply(request.header(AUTHORIZATION, bearer(key)).body(body)).await
    }

    /// The clients of a tenant.
    async fn clients(&self, tenant: &str, key: &Value) -> Vec<Value> {
        let listed = self.admin(tenant, key, Method::GET, "/clients").await;
        listed.body["clients"].as_array().unwrap().clone()
    }

    /// What it keeps of clients.
    fn stored(&self) -> Vec<u8> {
        let files = fs::read_dir(self.folder.path()).unwrap();
        files.flat_map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
    }
}

impl Reply {
    /// The code of a registration error, all of which have the one form of RFC 7591.
    fn error(&self) -> &str {
        assert_eq!(self.status, 400, "{self:?}");
        assert_eq!(self.field("content-type"), "application/json");
        let names: Vec<_> = self.body.as_object().unwrap().keys().collect();
        assert_eq!(names, ["error", "error_description"]);
        let [code, text] =
            ["error", "error_description"].map(|name| self.body[name].as_str().unwrap());
        let allowed = |c: char| matches!(c, ' '..='~') && c != '"' && c != '\\';
        assert!(!text.is_empty() && text.chars().all(allowed), "{text}");
        code
    }

    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn with_json(request: RequestBuilder, body: &Value) -> RequestBuilder {
    request.header("content-type", "application/json").body(body.to_string())
}

fn bearer(key: &Value) -> String {
    format!("Bearer {}", text(key))
}

/// The text of a key as it was shown once.
fn text(key: &Value) -> &str {
    key["key"].as_str().unwrap()
}

fn path_of(key: &Value) -> String {
    format!("/api-keys/{}", key["id"].as_str().unwrap())
}

async fn reply(request: RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    let (status, fields) = (response.status().as_u16(), response.headers().clone());
    let body = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
    Reply { status, fields, body }
}

fn holds(stored: &[u8], part: &[u8]) -> bool {
    stored.windows(part.len()).any(|window| window == part)
}
