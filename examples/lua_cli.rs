//! A command line that mounts Keyward's authentication commands and calls an API with the key:
//! `cargo run -p keyward-tests --example lua_cli -- auth --help`.
//!
//! `LUA_API_URL` is the URL of the server. The program calls these endpoints: `POST /auth/otp {email}`;
//! `POST /auth/otp/verify {email, code}`, which returns `{key}`; and with the key `GET /auth/key`,
//! `DELETE /auth/key` and `POST /push`.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use keyward::{
    KeyFormat, Secret,
    client::{
        App, SendKey,
        cli::{AuthCommand, Exit, Server, ServerError},
    },
};
use reqwest::{Client, RequestBuilder, StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};

/// Build, test and deploy skills.
#[derive(Parser)]
#[command(name = "lua")]
enum Lua {
    /// Sign in and out
    #[command(subcommand)]
    Auth(AuthCommand),
    /// Deploy the current directory
    Push,
}

fn main() -> ExitCode {
    let command = Lua::parse();
    let format = KeyFormat::builder("lk").build().expect("the format is constant and valid");
    let app = App::new("lua", format).credentials_dir(".lua-cli");
    let server = LuaServer::new();
    match command {
        Lua::Auth(command) => command.run(&app, &server).into(),
        Lua::Push => push(&app, &server).into(),
    }
}

fn push(app: &App, server: &LuaServer) -> Exit {
    let resolved = match app.resolve(&Default::default()) {
        Ok(resolved) => resolved,
        Err(error) => {
            eprintln!("Error: {error}");
            return Exit::NotAuthenticated;
        }
    };
    match server.call(server.client.post(server.url("/push")).api_key(&resolved.key)) {
        Ok(_) => {
            println!("Pushed as {}.", resolved.masked());
            Exit::Success
        }
        Err(ServerError::KeyRejected) => {
            eprintln!("Error: ❌ Authentication failed. See `lua auth status --check`.");
            Exit::NotAuthenticated
        }
        Err(error) => {
            eprintln!("Error: {error}");
            Exit::Error
        }
    }
}

/// Calls the product's server over HTTP.
struct LuaServer {
    base: String,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl LuaServer {
    fn new() -> Self {
        let base = std::env::var("LUA_API_URL").unwrap_or_else(|_| "http://127.0.0.1:3000".into());
        let client = Client::builder().timeout(Duration::from_secs(30)).no_proxy().build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self {
            base: base.trim_end_matches('/').to_owned(),
            client: client.expect("the HTTP client options are valid"),
            runtime: runtime
                .expect("the runtime starts unless the process is out of file descriptors"),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn call(&self, request: RequestBuilder) -> Result<Value, ServerError> {
        self.runtime.block_on(async {
            let response = request.send().await.map_err(unavailable)?;
            let status = response.status();
            let wait = response.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok());
            let retry_after = wait.and_then(|wait| wait.parse().ok()).map(Duration::from_secs);
            let body = response.bytes().await.map_err(unavailable)?;
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            match (status, body["code"].as_str()) {
                (status, _) if status.is_success() => Ok(body),
                (_, Some("invalid_code")) => Err(ServerError::InvalidCode),
                (_, Some("expired_code")) => Err(ServerError::ExpiredCode),
                (StatusCode::UNAUTHORIZED, _) => Err(ServerError::KeyRejected),
                (StatusCode::TOO_MANY_REQUESTS, _) => Err(ServerError::RateLimited { retry_after }),
                (StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, _) => {
                    Err(ServerError::Unsupported)
                }
                (status, Some(_)) if status.is_client_error() => {
                    let detail = body["detail"].as_str().unwrap_or_default();
                    Err(ServerError::Refused { message: detail.to_owned() })
                }
                (status, _) => Err(unavailable(std::io::Error::other(format!("HTTP {status}")))),
            }
        })
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        let json = ("content-type", "application/json");
        self.client.post(self.url(path)).header(json.0, json.1).body(body.to_string())
    }
}

impl Server for LuaServer {
    fn request_code(&self, email: &str) -> Result<(), ServerError> {
        self.call(self.post("/auth/otp", &json!({ "email": email }))).map(drop)
    }

    fn verify_code(&self, email: &str, code: &Secret) -> Result<Secret, ServerError> {
        let body = json!({ "email": email, "code": code.expose() });
        let response = self.call(self.post("/auth/otp/verify", &body))?;
        match response["key"].as_str() {
            Some(key) => Ok(Secret::from(key.to_owned())),
            None => Err(unavailable(std::io::Error::other("the response has no key"))),
        }
    }

    fn check_key(&self, key: &Secret) -> Result<(), ServerError> {
        self.call(self.client.get(self.url("/auth/key")).api_key(key)).map(drop)
    }

    fn revoke_key(&self, key: &Secret) -> Result<(), ServerError> {
        self.call(self.client.delete(self.url("/auth/key")).api_key(key)).map(drop)
    }
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> ServerError {
    ServerError::Unavailable(Box::new(error))
}
