//! Not on the pages: the example servers are models of how to serve.

use std::{fs, os::unix::fs::PermissionsExt, pin::pin, process::Command, sync::Arc};

use reqwest::{Client, Method};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    select,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    http::raw::{send, send_and_close},
    support::{
        SECOND,
        examples::{Serving, example},
    },
};

/// Servers for browsers with a session cookie, and where the management API is.
const WITH_COOKIES: [(&str, &str); 5] = [
    ("axum_service", "/v1/api-keys"),
    ("actix_service", "/v1/api-keys"),
    ("lua_server", "/v1/api-keys"),
    ("tonic_service", "/v1/api-keys"),
    ("lurus", "/api-keys"),
];

fn address(serving: &Serving) -> &str {
    serving.url().strip_prefix("http://").unwrap()
}

fn client() -> Client {
    Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap()
}

/// Checks that another client is served, although others hold all connections that the server accepts.
async fn expect_service(serving: &Serving, path: &str) {
    let url = format!("{}{path}", serving.url());
    let request = client().get(&url).header("cookie", "session=ada").send();
    // Longer than the servers wait for each of these clients, several times in a row.
    let mut answer = pin!(timeout_at(Instant::now() + 150 * SECOND, request));
    loop {
        select! {
            answer = answer.as_mut() => {
                assert_eq!(answer.expect("it is served").unwrap().status(), 200, "{url}");
                return;
            }
            () = sleep_until(Instant::now() + SECOND / 20) => {}
        }
        // It can still open a file of its own.
        #[cfg(target_os = "linux")]
        assert!(serving.open_files() < MAX_FILES as usize, "{url}");
    }
}

/// Sends half a head, a head and half of a body, half of HTTP/2's preface, or HTTP/2 without a request.
async fn half_a_request(address: &str, path: &str, n: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nCookie: session=ada\r\n");
    let body = "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"name\": ";
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let request = match n % 4 {
        0 => head,
        1 => head + body,
        2 => preface[..10].into(),
        _ => preface.into(),
    };
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_do_not_keep_others_out() {
    let mut servers = JoinSet::new();
    for (example, path) in WITH_COOKIES {
        let serving = Serving::start(example, &[]);
        serving.limit_files(MAX_FILES);
        servers.spawn(async move {
            let mut slow = Vec::new();
            for n in 0..150 {
                slow.push(half_a_request(address(&serving), path, n).await);
            }
            expect_service(&serving, path).await;
            drop(slow);
        });
    }
    servers.join_all().await;
}

/// Sends requests without reading a response.
#[cfg(target_os = "linux")]
async fn read_nothing(address: String, path: &str) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let requests = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").repeat(1_000);
    while stream.write_all(requests.as_bytes()).await.is_ok() {}
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_responses_do_not_keep_others_out() {
    let mut servers = JoinSet::new();
    for (example, path) in
        [("axum_service", "/openapi.json"), ("actix_service", "/"), ("tonic_service", "/v1/audit")]
    {
        let serving = Serving::start(example, &[]);
        serving.limit_files(MAX_FILES);
        servers.spawn(async move {
            let mut slow = JoinSet::new();
            for _ in 0..100 {
                slow.spawn(read_nothing(address(&serving).to_owned(), path));
            }
            // Until all of them are connected and their buffers are full, they are served like others.
            let deadline = Instant::now() + 10 * SECOND;
            while timeout_at(deadline, client().get(serving.url()).send()).await.is_ok() {}
            expect_service(&serving, "/v1/api-keys").await;
        });
    }
    servers.join_all().await;
}

/// Each bound of its own, sooner than the one for a whole connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_a_client_is_slow_is_closed() {
    let mut connections = JoinSet::new();
    for (example, path) in WITH_COOKIES {
        let serving = Arc::new(Serving::start(example, &[]));
        for n in 0..6 {
            let serving = serving.clone();
            connections.spawn(async move {
                let mut stream = match n {
                    0..4 => half_a_request(address(&serving), path, n).await,
                    // The response does not wait for the body.
                    4 => send_to(&serving, "Content-Length: 100\r\n\r\n{").await,
                    _ => send_to(&serving, "Transfer-Encoding: chunked\r\n\r\n5\r\n{").await,
                };
                let (end, mut answer) = (Instant::now() + 40 * SECOND, Vec::new());
                let closed = timeout_at(end, stream.read_to_end(&mut answer)).await;
                assert!(closed.is_ok(), "{example} {n}");
            });
        }
    }
    connections.join_all().await;
}

async fn send_to(serving: &Serving, rest: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address(serving)).await.unwrap();
    let request = format!("POST /nowhere HTTP/1.1\r\nHost: localhost\r\n{rest}");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_answer_head_as_they_answer_get() {
    for example in ["axum_service", "actix_service"] {
        let serving = Serving::start(example, &[]);
        let new = json!({ "name": "ci", "scopes": ["builds:read"] }).to_string();
        let request = client().post(format!("{}/v1/api-keys", serving.url()));
        let request = request.header("cookie", "session=ada").body(new);
        let created = request.header("content-type", "application/json").send().await.unwrap();
        let created: Value = serde_json::from_slice(&created.bytes().await.unwrap()).unwrap();
        for path in ["/", "/builds"] {
            for method in [Method::GET, Method::HEAD] {
                let request = client().request(method.clone(), format!("{}{path}", serving.url()));
                let request = request.bearer_auth(created["key"].as_str().unwrap());
                let answer = request.send().await.unwrap();
                assert_eq!(answer.status(), 200, "{example} {method} {path}");
            }
        }
    }
}

/// `lumio` reads bodies before the management API does.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_body_is_400_and_only_a_large_one_413() {
    let lumio = Serving::start("lumio", &[]);
    let to = address(&lumio).parse().unwrap();
    let head = "POST /account/security/api-keys HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
        Content-Type: application/json\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\ne\r\n{{\"name\"");
    let short = format!("{head}Content-Length: 100\r\n\r\n{{\"name\": \"ci\"}}");
    for truncated in [chunked, short] {
        let reply = send_and_close(to, truncated.as_bytes()).await;
        assert_eq!((reply.status, &*reply.body), (400, r#"{"code":"malformed_body"}"#));
    }
    let large = format!("{head}Content-Length: 70000\r\n\r\n{}", " ".repeat(70_000));
    let reply = send(to, large.as_bytes()).await;
    assert_eq!((reply.status, &*reply.body), (413, r#"{"code":"too_large"}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_names_only_known_accounts_and_no_other_site_uses_it() {
    for (example, path) in WITH_COOKIES {
        let serving = Serving::start(example, &[]);
        let create = async |cookie: &str, (name, value): (&str, &str)| {
            let request = client().request(Method::POST, format!("{}{path}", serving.url()));
            let request = request.header("cookie", cookie).header(name, value);
            let request = request.header("content-type", "application/json");
            let answer = request.body(json!({ "name": "ci" }).to_string()).send().await.unwrap();
            let status = answer.status().as_u16();
            (status, answer.text().await.unwrap())
        };
        let same_origin = ("sec-fetch-site", "same-origin");
        let (status, created) = create("session=ada", same_origin).await;
        assert_eq!(status, 201, "{example}: {created}");
        let created: serde_json::Value = serde_json::from_str(&created).unwrap();
        let secret = created["key"].as_str().unwrap();
        let (status, answer) = create(&format!("session={secret}"), same_origin).await;
        assert_eq!(status, 401, "{example}: a secret is no account name");
        assert!(!answer.contains(secret));
        // Older browsers send only the origin.
        assert_eq!(create("session=ada", ("origin", serving.url())).await.0, 201, "{example}");
        let elsewhere = format!("{}0", serving.url());
        for header in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", &elsewhere),
        ] {
            assert_eq!(create("session=ada", header).await.0, 403, "{example} {header:?}");
        }
    }
}

#[tokio::test]
async fn a_file_with_secrets_of_second_factors_is_private() {
    let folder = tempfile::tempdir().unwrap();
    // As a server leaves it behind if it ends while it writes, here with another mode.
    let unfinished = folder.path().join("users.json.new");
    fs::write(&unfinished, "{}").unwrap();
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o644)).unwrap();
    let lumio = Serving::start("lumio", &["--data", folder.path().to_str().unwrap()]);
    let request = client().post(format!("{}/sign-up", lumio.url()));
    let request = request.header("content-type", "application/json");
    let answer = request.body(json!({ "email": "ada@example.com" }).to_string()).send().await;
    assert_eq!(answer.unwrap().status(), 201);
    let users = fs::metadata(folder.path().join("users.json")).unwrap();
    assert_eq!(users.permissions().mode() & 0o777, 0o600);
}

/// Service managers end a process with `SIGTERM`, people with Ctrl-C.
#[tokio::test(flavor = "multi_thread")]
async fn servers_end_cleanly_when_terminated_or_interrupted() {
    for example in SERVERS {
        for signal in [Signal::TERM, Signal::INT] {
            let serving = Serving::start(example, &[]);
            // A server that answers also listens for signals.
            let answer = client().get(serving.url()).send().await;
            assert!(answer.is_ok(), "{example}");
            drop(answer);
            if example == "tonic_service" {
                // It calls itself once, and serves from then on.
                serving.prints("the call", |text| text.contains("Use it:").then_some(()));
            }
            serving.stop_with(signal);
        }
    }
}

#[test]
fn a_second_server_says_which_address_is_in_use_and_how_to_choose_another() {
    for server in SERVERS {
        let first = Serving::start(server, &[]);
        let address = address(&first);
        let mut second = Command::new(example(server));
        let second = second.args(["--listen", address]).output().unwrap();
        let text = String::from_utf8_lossy(&second.stderr);
        assert!(!second.status.success(), "{server}");
        let expected = format!("cannot listen on {address}: Address already in use");
        assert!(text.contains(&expected) && text.contains("with --listen"), "{server}: {text}");
    }
}

const SERVERS: [&str; 8] = [
    "axum_service",
    "actix_service",
    "tonic_service",
    "lua_server",
    "lunaos",
    "lurus",
    "lumio",
    "lumoauth",
];
const MAX_FILES: u64 = 100;
