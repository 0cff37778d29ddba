//! Bodies, methods, paths and headers that HTTP allows and that routers treat differently: axum and actix-web return
//! the same responses.

use keyward::VerifyRequest;
use serde_json::Value;

use super::{
    raw::{Reply, send, send_and_close},
    table::{ask, start},
    world::World,
};

const SESSION: &str = "X-Session: ada\r\nContent-Type: application/json\r\n";

fn request(line: &str, lines: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{SESSION}{lines}\
         Content-Length: {length}\r\n\r\n{body}"
    );
    head.into_bytes()
}

fn chunked(path: &str, chunks: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{SESSION}\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    [head.as_bytes(), chunks].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_or_malformed_body_is_400_and_only_a_large_one_413() {
    let world = World::new();
    let servers = start(&world);
    let large = [b"11170\r\n", &[b' '; 0x11170][..], b"\r\n0\r\n\r\n"].concat();
    let small = b"e\r\n{\"name\": \"ci\"}\r\n0\r\n\r\n".to_vec();
    for (name, server) in servers.both {
        let paths = ["/v1/api-keys", "/v1/introspect", "/leaks"];
        for path in paths {
            let broken: [&[u8]; 6] = [
                b"",
                b"e\r\n{\"name\"",
                b"e\r\n{\"name\": \"ci\"}",
                b"e\r\n{\"name\": \"ci\"}\r\n",
                b"zz\r\n{\"name\": \"ci\"}\r\n0\r\n\r\n",
                b"-1\r\n{\"name\": \"ci\"}\r\n0\r\n\r\n",
            ];
            for body in broken {
                let reply = send_and_close(server, &chunked(path, body)).await;
                let shown = format!("{name} {path} {}: {reply:?}", String::from_utf8_lossy(body));
                assert_eq!(reply.status, 400, "{shown}");
                assert!(reply.body.contains(r#""code":"malformed_body""#), "{shown}");
            }
            // Fewer bytes than announced.
            let mut short = request(&format!("POST {path}"), "", r#"{"name": "ci"}"#);
            short.truncate(short.len() - 3);
            let reply = send_and_close(server, &short).await;
            assert_eq!(reply.status, 400, "{name} {path}: {reply:?}");
        }
        let reply = send(server, &chunked("/v1/api-keys", &large)).await;
        assert_eq!((reply.status, reply.code().as_deref()), (413, Some("too_large")), "{name}");
        let reply = send(server, &chunked("/v1/api-keys", &small)).await;
        assert_eq!(reply.status, 201, "{name}: {reply:?}");
    }
}

/// The response to `HEAD` without what belongs to the connection.
fn lines(reply: &Reply) -> Vec<(String, String)> {
    let ours =
        ["content-type", "content-disposition", "cache-control", "allow", "www-authenticate"];
    let mut fields = reply.fields.clone();
    fields.retain(|(name, _)| ours.contains(&name.as_str()));
    fields.sort();
    fields
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_is_answered_where_get_is_and_without_a_body() {
    let world = World::new();
    let servers = start(&world);
    let key = format!("/v1/api-keys/{}", world.service.issue().await.key.id);
    let events = format!("{key}/events");
    let secret = format!("X-API-Key: {}\r\n", world.reader().await);
    for (path, more, status) in [
        ("/v1/api-keys", "", 200),
        ("/v1/api-keys?limit=1", "", 200),
        ("/v1/api-keys?limit=0", "", 422),
        (&*key, "", 200),
        (&*events, "", 200),
        ("/v1/audit", "", 200),
        ("/v1/audit.jsonl", "", 200),
        ("/v1/audit.csv", "", 200),
        ("/v1/api-keys/none", "", 404),
        ("/v1/introspect", "", 405),
        ("/any", &*secret, 200),
        ("/any", "", 401),
        ("/builds", &*secret, 200),
    ] {
        for (name, server) in servers.both {
            let got = send(server, &request(&format!("GET {path}"), more, "")).await;
            let head = send(server, &request(&format!("HEAD {path}"), more, "")).await;
            assert_eq!((got.status, head.status), (status, status), "{name} {path}: {head:?}");
            assert_eq!(lines(&got), lines(&head), "{name} {path}");
            assert_eq!(head.body, "", "{name} {path}");
        }
    }
}

/// A router that decodes paths would find routes that another does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_percent_encoded_path_names_no_route() {
    let world = World::new();
    let servers = start(&world);
    let issued = world.service.issue().await;
    let id = issued.key.id.to_string();
    let encoded_id = id.replace('-', "%2D");
    for line in [
        // Where the routes are mounted.
        "GET /%761/audit",
        "GET /v%31/api-keys",
        "GET /%74/acme/api-keys",
        &format!("GET /%76%31/api-keys/{id}"),
        &format!("DELETE /v%31/api-keys/{id}"),
        &format!("POST /%761/api-keys/{id}/rotate"),
        "GET /v1/%61udit",
        "GET /v1/audi%74",
        "GET /v1/audit%2Ejsonl",
        "GET /v1/audit%2ecsv",
        "GET /v1/api%2Dkeys",
        "GET /v1/api-keys%2F",
        "POST /v1/%69ntrospect",
        &format!("GET /v1/%61pi-keys/{id}"),
        &format!("GET /v1/api-keys%2F{id}"),
        &format!("GET /v1/api-keys/{encoded_id}"),
        &format!("GET /v1/api-keys/%{:02x}{}", id.as_bytes()[0], &id[1..]),
        &format!("GET /v1/api-keys/{id}/%65vents"),
        &format!("GET /v1/api-keys/{id}%2Fevents"),
        &format!("DELETE /v1/api-keys/{encoded_id}"),
        &format!("DELETE /v1/api-keys/{id}/recor%64"),
        &format!("POST /v1/api-keys/{id}/%72otate"),
        &format!("POST /v1/api-keys/{id}/d%69sable"),
    ] {
        let reply = ask(&servers, &request(line, "", "")).await;
        assert_eq!(reply.status, 404, "{line}: {reply:?}");
    }
    // A parameter of the mount is no name.
    for line in ["GET /t/acme/api-keys", "GET /t/%61cme/api-keys", "GET /t/a%2Fb/audit"] {
        assert_eq!(ask(&servers, &request(line, "", "")).await.status, 200, "{line}");
    }
    // Last, because the use is written in the background and would appear in one of the two lists.
    let verified = world.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await;
    assert!(verified.is_ok(), "nothing was changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trailing_slash_is_another_path() {
    let world = World::new();
    let servers = start(&world);
    let key = format!("/v1/api-keys/{}/", world.service.issue().await.key.id);
    for line in [
        "GET /v1/api-keys/",
        "POST /v1/api-keys/",
        "DELETE /v1/api-keys/",
        "GET /v1/api-keys//",
        &format!("GET {key}"),
        &format!("DELETE {key}"),
    ] {
        let reply = ask(&servers, &request(line, "", r#"{"name": "x"}"#)).await;
        let seen = (reply.status, reply.code());
        assert_eq!(seen, (404, Some("no_such_page".into())), "{line}: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_content_type_or_idempotency_key_is_rejected() {
    let world = World::new();
    let servers = start(&world);
    let key = format!("/v1/api-keys/{}", world.service.issue().await.key.id);
    let body = r#"{"name": "ci"}"#;
    for (line, lines) in [
        ("POST /v1/api-keys", "Content-Type: application/json\r\n"),
        ("POST /v1/api-keys", "Content-Type: text/plain\r\n"),
        ("POST /v1/api-keys", "Idempotency-Key: a\r\nIdempotency-Key: a\r\n"),
        ("POST /v1/api-keys", "Idempotency-Key: a\r\nidempotency-key: b\r\n"),
        (&*format!("PATCH {key}"), "Content-Type: application/json\r\n"),
        (&*format!("POST {key}/rotate"), "Idempotency-Key: a\r\nIdempotency-Key: b\r\n"),
        ("POST /v1/introspect", "Content-Type: application/x-www-form-urlencoded\r\n"),
    ] {
        let body = if line.ends_with("rotate") { "" } else { body };
        let reply = ask(&servers, &request(line, lines, body)).await;
        let seen = (reply.status, reply.code());
        assert_eq!(seen, (400, Some("repeated_header".into())), "{line} {lines}: {reply:?}");
    }
    let listed = ask(&servers, &request("GET /v1/api-keys", "", "")).await;
    let listed: Value = serde_json::from_str(&listed.body).unwrap();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1, "nothing was created");
}
