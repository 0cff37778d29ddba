//! Sign-in over HTTP: axum and actix-web return the same bytes.

use keyward::http::{ClientIp, leaks::LeakReceiver, manage::SignIn};

use super::{
    declared::Seen,
    leaks::GitHub,
    openapi::METHODS,
    raw::{Reply, send},
    servers::{Rules, Servers},
};
use crate::{
    enroll::support::{EnrollmentHarness, HostMode, ada, ada_actor, wrong},
    support::{random::Random, stores},
};

struct Front {
    harness: EnrollmentHarness,
    servers: Servers,
}

impl Front {
    fn open(harness: EnrollmentHarness) -> Self {
        Self::behind(ClientIp::peer(), harness)
    }

    fn behind(client_ip: ClientIp, harness: EnrollmentHarness) -> Self {
        let keys = harness.service.keys().clone();
        let guard = keyward::http::Guard::new(keys.clone());
        let servers = Servers::start(&Rules {
            leaks: LeakReceiver::github(keys.clone(), GitHub::new()),
            keys,
            any: guard.clone(),
            builds: guard.clone(),
            optional: guard.clone(),
            header: guard.clone(),
            query: guard,
            sign_in: Some(SignIn::new(harness.node().clone()).client_ip(client_ip)),
        });
        Self { harness, servers }
    }

    /// Sends a request to one of the two servers, and checks that the document declares the response.
    async fn call(&self, server: usize, line: &str, key: Option<&str>, body: &str) -> Reply {
        let key = key.map_or_else(String::new, |key| format!("Authorization: Bearer {key}\r\n"));
        let request = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nUser-Agent: lua/1\r\n{key}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = send(self.servers.both[server].1, request.as_bytes()).await;
        let seen = Seen { status: reply.status, fields: &reply.map(), body: &reply.body };
        let (method, path) = line.split_once(' ').unwrap();
        self.servers.document.expect(method, path, &seen);
        reply
    }

    /// Sends a request with these header lines to one of the two servers.
    async fn post(&self, server: usize, path: &str, lines: &[u8], body: &str) -> Reply {
        let head = format!(
            "POST /lua/auth/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        let request = [head.as_bytes(), lines, b"\r\n", body.as_bytes()].concat();
        send(self.servers.both[server].1, &request).await
    }

    /// Sends a request to both servers, and checks that their responses are equal.
    async fn both(&self, line: &str, body: &str) -> Reply {
        let answers = [self.call(0, line, None, body).await, self.call(1, line, None, body).await];
        let [first, second] = answers.map(plain);
        assert_eq!(first, second, "{line} {body}");
        first
    }

    async fn verify(&self, server: usize, code: &str) -> Reply {
        let body = format!(r#"{{"email": "Ada@example.com", "code": "{code}"}}"#);
        self.call(server, "POST /lua/auth/otp/verify", None, &body).await
    }
}

/// Removes headers that the servers add themselves, such as the date.
fn plain(mut reply: Reply) -> Reply {
    let ours = ["content-type", "cache-control", "retry-after", "allow", "www-authenticate"];
    reply.fields.retain(|(name, _)| ours.contains(&name.as_str()));
    reply.fields.sort();
    reply
}

fn problem(reply: &Reply) -> (u16, Option<String>) {
    (reply.status, reply.code())
}

fn json(reply: &Reply) -> serde_json::Value {
    assert_eq!(reply.field("cache-control"), Some("no-store"));
    serde_json::from_str(&reply.body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_exchanged_for_a_key_that_can_read_and_revoke_itself() {
    for server in [0, 1] {
        let front = Front::open(EnrollmentHarness::new(stores::memory()));
        let asked =
            front.call(server, "POST /lua/auth/otp", None, r#"{"email": "ada@example.com"}"#).await;
        assert_eq!(asked.status, 202, "{asked:?}");
        let code = front.harness.message().await.code.expose().to_owned();
        let made = front.verify(server, &code).await;
        assert_eq!(made.status, 201, "{made:?}");
        let key = json(&made)["key"].as_str().unwrap().to_owned();

        let line = "GET /lua/auth/key";
        let shown = front.call(server, line, Some(&key), "").await;
        assert_eq!((shown.status, &json(&shown)["id"]), (200, &json(&made)["id"]));
        assert!(!shown.body.contains(&key), "the secret is shown once");
        let head = front.call(server, "HEAD /lua/auth/key", Some(&key), "").await;
        assert_eq!((head.status, &*head.body), (200, ""), "{head:?}");
        let ended = front.call(server, "DELETE /lua/auth/key", Some(&key), "").await;
        assert_eq!(ended.status, 200, "{ended:?}");
        let refused = front.call(server, line, Some(&key), "").await;
        assert_eq!(problem(&refused), (401, Some("invalid_key".into())));

        let log = front.harness.log().await;
        let of = |kind: &str| log.iter().find(|event| event.kind.as_str() == kind).unwrap();
        assert_eq!(of("key.created").ip, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(of("key.created").actor, "ada@example.com");
        let revoked = of("key.revoked");
        assert!(revoked.actor.starts_with("key:"), "{revoked}");
        assert_eq!(revoked.ip, Some("127.0.0.1".parse().unwrap()));
        assert_eq!(revoked.user_agent.as_deref(), Some("lua/1"));
    }
}

/// The clients' networks are those of the header, and what a client adds on the left changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_header_removes_the_limits_of_a_network() {
    let x_forwarded_for = ClientIp::x_forwarded_for(["127.0.0.0/8"]).unwrap();
    let forwarded = ClientIp::forwarded(["127.0.0.0/8"]).unwrap();
    // The address in the audit log, and how many codes and guesses are allowed.
    type Expected = (Option<&'static str>, usize, usize);
    const KNOWN: Expected = (Some("198.51.100.1"), 30, 60);
    const UNKNOWN: Expected = (None, 10, 20);
    let table: &[(&ClientIp, &[u8], Expected)] = &[
        (&x_forwarded_for, b"X-Forwarded-For: \xff, 198.51.100.1\r\n", KNOWN),
        (&x_forwarded_for, b"X-Forwarded-For: \xff\r\nX-Forwarded-For: 198.51.100.1\r\n", KNOWN),
        (&x_forwarded_for, b"X-Forwarded-For: 198.51.100.1, \xff\r\n", UNKNOWN),
        (&forwarded, b"Forwarded: x=\"\r\nForwarded: for=198.51.100.1\r\n", KNOWN),
        (&forwarded, b"Forwarded: x=\", for=198.51.100.1\r\n", KNOWN),
        (&forwarded, b"Forwarded: for=unknown\r\n", UNKNOWN),
    ];
    for (client_ip, lines, (address, codes, guesses)) in table {
        let shown = String::from_utf8_lossy(lines);
        let harness = EnrollmentHarness::new(stores::memory());
        let front = Front::behind((*client_ip).clone(), harness);
        let (mut sent, mut checked) = (0, 0);
        for n in 0..90 {
            let body = format!(r#"{{"email": "a{n}@example.com", "code": "000000"}}"#);
            let reply = front.post(n % 2, "otp/verify", lines, &body).await;
            match reply.status {
                400 => checked += 1,
                429 => assert!(reply.field("retry-after").is_some()),
                _ => panic!("{shown}: {reply:?}"),
            }
        }
        for n in 0..40 {
            let body = format!(r#"{{"email": "a{n}@example.com"}}"#);
            let reply = front.post(n % 2, "otp", lines, &body).await;
            match reply.status {
                202 => sent += 1,
                429 => assert!(reply.field("retry-after").is_some()),
                _ => panic!("{shown}: {reply:?}"),
            }
        }
        assert_eq!((sent, checked), (*codes, *guesses), "{shown}");
        let logged = front.harness.logged("code.refused", Some("too_many_codes")).await;
        assert_eq!(logged.ip, address.map(|address| address.parse().unwrap()), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_codes_from_elsewhere_do_not_lock_the_user_out() {
    for server in [0, 1] {
        let client_ip = ClientIp::x_forwarded_for(["127.0.0.0/8"]).unwrap();
        let front = Front::behind(client_ip, EnrollmentHarness::new(stores::memory()));
        let from = |address: &str| format!("X-Forwarded-For: {address}\r\n").into_bytes();
        let post = async |path: &str, lines: &[u8], code: &str| {
            let code = if path == "otp" { "" } else { &format!(r#", "code": "{code}""#) };
            let body = format!(r#"{{"email": "ada@example.com"{code}}}"#);
            front.post(server, path, lines, &body).await
        };
        assert_eq!(post("otp", &from("192.0.2.7"), "").await.status, 202);
        let code = front.harness.message().await.code.expose().to_owned();
        for n in 0..40 {
            let stranger = from(&format!("198.51.100.{n}"));
            let guess = post("otp/verify", &stranger, &wrong(&code)).await;
            assert_eq!(problem(&guess), (400, Some("invalid_code".into())));
        }
        assert_eq!(front.harness.refused("wrong_code").await, 5, "all strangers together");
        let late = post("otp/verify", &from("198.51.100.99"), &code).await;
        assert_eq!(problem(&late), (400, Some("invalid_code".into())));
        let made = post("otp/verify", &from("192.0.2.7"), &code).await;
        assert_eq!(made.status, 201, "{made:?}");
        let again = post("otp/verify", &from("192.0.2.7"), &code).await;
        assert_eq!(problem(&again), (400, Some("invalid_code".into())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_and_unknown_addresses_get_the_same_bytes() {
    let front = Front::open(EnrollmentHarness::new(stores::memory()));
    for (line, body) in [
        ("POST /lua/auth/otp", r#"{"email": "ADDRESS"}"#),
        ("POST /lua/auth/otp/verify", r#"{"email": "ADDRESS", "code": "12345"}"#),
        ("POST /lua/auth/otp/verify", r#"{"email": "ADDRESS", "code": ""}"#),
    ] {
        let known = front.both(line, &body.replace("ADDRESS", "ada@example.com")).await;
        let unknown = front.both(line, &body.replace("ADDRESS", "nobody@example.com")).await;
        assert_eq!(known, unknown, "{line}");
    }
    // Two codes were requested for each address before; five per hour are allowed.
    let ask = async |address: &str| {
        let body = format!(r#"{{"email": "{address}"}}"#);
        assert_eq!(front.both("POST /lua/auth/otp", &body).await.status, 202);
        assert_eq!(front.call(0, "POST /lua/auth/otp", None, &body).await.status, 202);
        front.both("POST /lua/auth/otp", &body).await
    };
    let (known, unknown) = (ask("ada@example.com").await, ask("nobody@example.com").await);
    assert_eq!(known, unknown);
    assert_eq!(problem(&known), (429, Some("rate_limited".into())));
    assert_eq!(known.field("retry-after"), Some("3600"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sign_in_error_has_its_own_code() {
    let front = Front::open(EnrollmentHarness::new(stores::memory()));
    let code = front.harness.code().await;
    let refused = front.verify(0, &wrong(&code)).await;
    assert_eq!(problem(&refused), (400, Some("invalid_code".into())));
    front.harness.service.clock.advance(std::time::Duration::from_secs(600));
    let late = front.verify(1, &code).await;
    assert_eq!(problem(&late), (400, Some("expired_code".into())));

    let none = keyward::model::Limits::default().max_active_keys(0);
    front.harness.service.host.limit(&front.harness.service.owner, none);
    let code = front.harness.code().await;
    assert_eq!(problem(&front.verify(0, &code).await), (409, Some("limit_reached".into())));
    let code = front.harness.code().await;
    front.harness.host.set_mode(HostMode::Failing);
    let failed = front.verify(1, &code).await;
    assert_eq!(problem(&failed), (503, Some("unavailable".into())));
    assert!(failed.field("retry-after").is_some());

    front.harness.host.set_mode(HostMode::Fine);
    front
        .harness
        .service
        .host
        .limit(&front.harness.service.owner, keyward::model::Limits::default());
    front.harness.service.policy.demand(Some(std::time::Duration::from_secs(900)));
    let code = front.harness.code().await;
    let unconfirmed = front.verify(1, &code).await;
    assert_eq!(problem(&unconfirmed), (403, Some("second_factor_required".into())));
    assert_eq!(json(&unconfirmed)["maxAge"], 900);

    for (line, body, status, code) in [
        ("POST /lua/auth/otp", r#"{"email": "ada"}"#, 422, "invalid"),
        ("POST /lua/auth/otp", r#"{"email": 1}"#, 422, "invalid"),
        ("POST /lua/auth/otp", r#"{"email": "a@b", "tenant": "acme"}"#, 422, "invalid"),
        ("POST /lua/auth/otp", "no JSON", 400, "malformed_body"),
        ("POST /lua/auth/otp/verify", r#"{"email": "a@b"}"#, 422, "invalid"),
        ("GET /lua/auth/otp", "", 405, "method_not_allowed"),
        ("PUT /lua/auth/otp/verify", "", 405, "method_not_allowed"),
        ("POST /lua/auth/key", "", 405, "method_not_allowed"),
        ("GET /lua/auth/key", "", 401, "missing_key"),
    ] {
        let answer = front.both(line, body).await;
        assert_eq!(problem(&answer), (status, Some(code.into())), "{line} {body}");
    }
    let huge = format!(r#"{{"email": "{}"}}"#, "a".repeat(70_000));
    let answer = front.both("POST /lua/auth/otp", &huge).await;
    assert_eq!(problem(&answer), (413, Some("too_large".into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unavailable_store_is_not_reported_as_a_wrong_code() {
    use crate::cache::faulty_store::{Fault, FaultyStore};
    let store = FaultyStore::new(stores::memory().remove(0));
    let front = Front::open(EnrollmentHarness::new(vec![std::sync::Arc::new(store.clone())]));
    let code = front.harness.code().await;
    store.set_change_fault(Fault::Unavailable);
    for server in [0, 1] {
        let refused = front.verify(server, &code).await;
        assert_eq!(problem(&refused), (503, Some("unavailable".into())));
    }
    let asked = front.both("POST /lua/auth/otp", r#"{"email": "ada@example.com"}"#).await;
    assert_eq!(problem(&asked), (503, Some("unavailable".into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_describes_exactly_the_sign_in_routes_that_are_served() {
    let front = Front::open(EnrollmentHarness::new(stores::memory()));
    let document = &front.servers.document;
    let paths = document.0["paths"].as_object().unwrap();
    let paths: Vec<_> = paths.keys().filter(|path| path.starts_with("/lua/")).collect();
    assert_eq!(paths, ["/lua/auth/key", "/lua/auth/otp", "/lua/auth/otp/verify"]);
    let mut described = Vec::new();
    for path in paths {
        for method in METHODS {
            let line = format!("{method} {path}");
            let reply = front.both(&line, "").await;
            let operation = document.operation(method, path);
            // `HEAD` is answered where `GET` is, and not described.
            let of = if method == "HEAD" { "GET" } else { method };
            let is_served = document.operation(of, path).is_some();
            assert_eq!(reply.status != 405, is_served, "{line}: {reply:?}");
            let ways =
                |operation: &serde_json::Value| operation["security"].as_array().unwrap().len();
            described.extend(operation.map(|operation| (line, ways(operation))));
        }
    }
    let by_key = |line: &str| line.ends_with("/auth/key");
    assert_eq!(described.len(), 4);
    assert!(described.iter().all(|(line, ways)| (*ways > 0) == by_key(line)), "{described:?}");
}

#[tokio::test]
async fn sign_in_works_without_an_adapter() {
    use http::{Method, Request};
    use keyward::http::{RequestHead, manage::ManageRequest};
    let harness = EnrollmentHarness::new(stores::memory());
    let sign_in = SignIn::new(harness.node().clone());
    let (head, _) = Request::post("/auth/otp").body(()).unwrap().into_parts();
    let incoming = RequestHead::from_parts(&head, "192.0.2.7".parse().ok());
    let call =
        ManageRequest::new(&Method::POST, "/auth/otp").json(br#"{"email": "ada@example.com"}"#);
    assert_eq!(sign_in.handle(&incoming, &call).await.status(), 202);
    let code = harness.message().await.code;
    assert!(harness.node().redeem_code(&ada(), code.expose(), &ada_actor()).await.is_ok());
}

/// 100,000 requests through trusted proxies, with random bytes in front of what the proxies add.
#[tokio::test]
async fn random_headers_give_no_more_codes_and_guesses_than_stated() {
    use http::{HeaderName, HeaderValue, Method, Request, header::FORWARDED};
    use keyward::http::{RequestHead, manage::ManageRequest};
    let (x_forwarded_for, forwarded) = (HeaderName::from_static("x-forwarded-for"), FORWARDED);
    let proxies = ["10.0.0.0/8"];
    // How the client's address is found, what the proxy adds, and how many codes and guesses are allowed.
    let table: [(_, &HeaderName, &[u8], u32, u32); 4] = [
        (ClientIp::x_forwarded_for(proxies), &x_forwarded_for, b"198.51.100.1", 30, 60),
        (ClientIp::x_forwarded_for(proxies), &x_forwarded_for, b"_hidden", 10, 20),
        (ClientIp::forwarded(proxies), &forwarded, b"for=198.51.100.1;proto=https", 30, 60),
        (ClientIp::forwarded(proxies), &forwarded, b"for=\"_hidden\"", 10, 20),
    ];
    let mut random = Random(0x6b65_7977_6172_6431);
    for (client_ip, name, added, codes, guesses) in table {
        let harness = EnrollmentHarness::new(stores::memory());
        let sign_in = SignIn::new(harness.node().clone()).client_ip(client_ip.unwrap());
        let (mut sent, mut checked) = (0, 0);
        for n in 0..25_000 {
            let (mut head, _) = Request::post("/").body(()).unwrap().into_parts();
            let mut lines: Vec<_> = (0..random.below(4)).map(|_| line(&mut random)).collect();
            // The proxy adds to the last line, or adds a line.
            match lines.last_mut().filter(|_| random.below(2) == 0) {
                Some(last) => last.extend([&b", "[..], added].concat()),
                None => lines.push(added.to_vec()),
            }
            for line in &lines {
                head.headers.append(name, HeaderValue::from_bytes(line).unwrap());
            }
            let head = RequestHead::from_parts(&head, "10.0.0.1".parse().ok());
            let (path, code) = match n % 2 {
                0 => ("/auth/otp", ""),
                _ => ("/auth/otp/verify", r#", "code": "000000""#),
            };
            let body = format!(r#"{{"email": "a{n}@example.com"{code}}}"#);
            let call = ManageRequest::new(&Method::POST, path).json(body.as_bytes());
            match sign_in.handle(&head, &call).await.status().as_u16() {
                202 => sent += 1,
                400 => checked += 1,
                429 => {}
                other => panic!("{other}: {lines:?}"),
            }
        }
        assert_eq!((sent, checked), (codes, guesses), "{}", String::from_utf8_lossy(added));
    }
}

/// Returns a header line of arbitrary bytes, or of bytes with a meaning in forwarding headers.
fn line(random: &mut Random) -> Vec<u8> {
    let is_arbitrary = random.below(2) == 0;
    let byte = |_| match is_arbitrary {
        true => (random.below(0xe0) + 0x20) as u8,
        false => MEANINGFUL[random.below(MEANINGFUL.len() as u64) as usize],
    };
    let length = 40;
    (0..length).map(byte).filter(|byte| *byte != 0x7f).collect()
}

const MEANINGFUL: &[u8] = b"\"\"\"\\\\,,;;==  \tfor:[].019a\xff";
