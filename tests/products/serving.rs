//! Not on the pages: the example servers are models of how to serve.

use std::{fs, os::unix::fs::PermissionsExt};

use reqwest::{Client, Method};
use rustix::process::Signal;
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::support::{SECOND, examples::Serving};

/// Sends half a head, or a head and half of a body.
async fn half_a_request(address: &str, n: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("POST /v1/api-keys HTTP/1.1\r\nHost: {address}\r\nCookie: session=ada\r\n");
    let body = "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"name\": ";
    let request = if n.is_multiple_of(2) { head } else { head + body };
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_do_not_keep_others_out() {
    for example in ["axum_service", "lua_server", "actix_service"] {
        let serving = Serving::start(example, &[]);
        serving.limit_files(100);
        let address = serving.url().strip_prefix("http://").unwrap();
        let mut slow = Vec::new();
        for n in 0..150 {
            slow.push(half_a_request(address, n).await);
        }
        let client = Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/v1/api-keys", serving.url());
        let request = client.get(url).header("cookie", "session=ada").send();
        // Longer than the servers wait for a head and for a body.
        let answer = timeout_at(Instant::now() + 120 * SECOND, request).await;
        assert_eq!(answer.expect("it is served").unwrap().status(), 200, "{example}");
        drop(slow);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_names_only_known_accounts_and_no_other_site_uses_it() {
    let client = Client::builder().no_proxy().build().unwrap();
    for (example, path) in [
        ("axum_service", "/v1/api-keys"),
        ("actix_service", "/v1/api-keys"),
        ("lua_server", "/v1/api-keys"),
        ("lurus", "/api-keys"),
    ] {
        let serving = Serving::start(example, &[]);
        let create = async |cookie: &str, site: &str| {
            let request = client.request(Method::POST, format!("{}{path}", serving.url()));
            let request = request.header("cookie", cookie).header("sec-fetch-site", site);
            let request = request.header("content-type", "application/json");
            let answer = request.body(json!({ "name": "ci" }).to_string()).send().await.unwrap();
            let status = answer.status().as_u16();
            (status, answer.text().await.unwrap())
        };
        let (status, created) = create("session=ada", "same-origin").await;
        assert_eq!(status, 201, "{example}: {created}");
        let created: serde_json::Value = serde_json::from_str(&created).unwrap();
        let secret = created["key"].as_str().unwrap();
        let (status, answer) = create(&format!("session={secret}"), "same-origin").await;
        assert_eq!(status, 401, "{example}: a secret is no account name");
        assert!(!answer.contains(secret));
        assert_eq!(create("session=ada", "cross-site").await.0, 403, "{example}");
    }
}

#[tokio::test]
async fn a_file_with_secrets_of_second_factors_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let lumio = Serving::start("lumio", &["--data", folder.path().to_str().unwrap()]);
    let client = Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("{}/sign-up", lumio.url()));
    let request = request.header("content-type", "application/json");
    let answer = request.body(json!({ "email": "ada@example.com" }).to_string()).send().await;
    assert_eq!(answer.unwrap().status(), 201);
    let users = fs::metadata(folder.path().join("users.json")).unwrap();
    assert_eq!(users.permissions().mode() & 0o777, 0o600);
}

/// Service managers end a process with `SIGTERM`.
#[tokio::test(flavor = "multi_thread")]
async fn servers_end_cleanly_when_terminated() {
    let client = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    for example in ["axum_service", "actix_service"] {
        let serving = Serving::start(example, &[]);
        // A server that answers also listens for signals.
        let answer = client.get(serving.url()).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{example}");
        drop(answer);
        serving.stop_with(Signal::TERM);
    }
}
