use keyward::{
    http::{ClientIp, Credentials, leaks::LeakReceiver},
    model::{Networks, Quota, Rate},
};

use super::{
    declared::Seen,
    leaks::{GitHub, found, sign},
    raw::{Reply, get, send},
    servers::{Rules, Servers},
    world::World,
};
use crate::{cache::faulty_store::Fault, support::mistyped};

pub fn start(world: &World) -> Servers {
    let query = Credentials::bearer().danger_or_query_parameter("key");
    // The tests connect from a trusted proxy.
    let x_forwarded_for = ClientIp::x_forwarded_for(["127.0.0.0/8"]).unwrap();
    let forwarded = ClientIp::forwarded(["127.0.0.0/8"]).unwrap();
    let builds = world.guard_builder().require("builds:read").client_ip(forwarded);
    let header = Credentials::header("x-acme-key").or_header("x-old-key");
    Servers::start(&Rules {
        keys: world.keys().clone(),
        any: world.guard_builder().client_ip(x_forwarded_for).build().unwrap(),
        builds: builds.build().unwrap(),
        optional: world.guard_builder().optional().build().unwrap(),
        query: world.guard_builder().credentials(query).build().unwrap(),
        header: world.guard_builder().require("builds:read").credentials(header).build().unwrap(),
        sign_in: None,
        leaks: LeakReceiver::github(world.keys().clone(), GitHub::new()),
    })
}

/// Sends a request to both servers, and checks that their responses are equal, except for headers that
/// the servers add themselves.
pub async fn ask(servers: &Servers, request: &[u8]) -> Reply {
    let [mut first, second] =
        [send(servers.both[0].1, request).await, send(servers.both[1].1, request).await];
    let shown = String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
    assert_eq!(first.status, second.status, "{shown}\n{first:?}\n{second:?}");
    assert_eq!(first.code(), second.code(), "{shown}\n{first:?}\n{second:?}");
    if first.code().is_some() || first.status == 200 {
        assert_eq!(first.body, second.body, "{shown}");
        for name in ["www-authenticate", "cache-control", "retry-after", "ratelimit-policy"] {
            assert_eq!(first.field(name), second.field(name), "{name} of {shown}");
        }
    }
    let line = shown.lines().next().unwrap_or_default();
    let mut words = line.split(' ').map(String::from);
    if let (Some(method), Some(path)) = (words.next(), words.next())
        && (first.code().is_some() || first.status == 200)
        && servers.document.operation(&method, &path).is_some()
    {
        let seen = Seen { status: first.status, fields: &first.map(), body: &first.body };
        servers.document.expect(&method, &path, &seen);
    }
    first.fields.sort();
    first
}

const HELLO: (u16, &str) = (200, "");
const MISSING: (u16, &str) = (401, "missing_key");
const INVALID: (u16, &str) = (401, "invalid_key");
const REPEATED: (u16, &str) = (400, "repeated_credentials");
const SCOPE: (u16, &str) = (403, "insufficient_scope");
const LIMITED: (u16, &str) = (429, "rate_limited");
const MISCONFIGURED: (u16, &str) = (500, "misconfigured");
/// Rejected by the server's HTTP parser, before the guard.
const UNREADABLE: (u16, &str) = (400, "");
const NO_SUCH_PAGE: (u16, &str) = (404, "");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axum_and_actix_web_return_the_same_responses() {
    let world = World::new();
    let expired = world.expired().await;
    let (good, revoked, disabled) =
        (world.reader().await, world.revoked().await, world.disabled().await);
    let limited = world.limited(Rate::per_hour(1)).await;
    let plain = world.limited(Rate::per_hour(1_000)).await;
    world.keys().verify(&limited, &keyward::verify::VerifyRequest::new()).await.unwrap();
    let unknown = world.unknown();
    let other = world.service.issue_with(keyward::model::Access::only(["deploy"]).unwrap()).await;
    let new = world.service.new_key().networks(Networks::only(["198.51.100.1"]).unwrap());
    let bound = world.keys().issue(new, &world.service.actor).await.unwrap();
    let servers = start(&world);
    let typo = mistyped(&good);
    let (upper, spaced) = (good.to_uppercase(), format!("{} {}", &good[..9], &good[9..]));

    let fill = |template: &[u8]| -> Vec<u8> {
        let mut bytes = template.to_vec();
        for (name, value) in [
            ("$good", &*good),
            ("$revoked", &*revoked),
            ("$disabled", &*disabled),
            ("$expired", &*expired),
            ("$limited", &*limited),
            ("$plain", &*plain),
            ("$unknown", &*unknown),
            ("$other", other.secret.expose()),
            ("$bound", bound.secret.expose()),
            ("$typo", &*typo),
            ("$upper", &*upper),
            ("$spaced", &*spaced),
            ("$512", &*"k".repeat(512)),
            ("$513", &*"k".repeat(513)),
            ("$60k", &*"k".repeat(60_000)),
        ] {
            bytes = replace(&bytes, name.as_bytes(), value.as_bytes());
        }
        bytes
    };

    #[rustfmt::skip]
    let table: &[(&str, &[u8], (u16, &str))] = &[
        // Requests without a credential.
        ("/any", b"", MISSING),
        ("/builds", b"", MISSING),
        ("/any", b"Accept: */*\r\nUser-Agent: curl/8.5\r\n", MISSING),
        ("/any", b"Cookie: session=$good\r\n", MISSING),
        ("/any", b"X-Api-Token: $good\r\n", MISSING),
        ("/any", b"Proxy-Authorization: Bearer $good\r\n", MISSING),
        ("/any?key=$good", b"", MISSING),
        ("/any?x-api-key=$good&api_key=$good", b"", MISSING),
        ("/any", b"Authorization: Basic YTpi\r\n", MISSING),
        ("/any", b"Authorization: Basic $good\r\n", MISSING),
        ("/any", b"Authorization: Bearers $good\r\n", MISSING),
        ("/any", b"Authorization: $good\r\n", MISSING),
        // A valid key, in every accepted notation.
        ("/any", b"Authorization: Bearer $good\r\n", HELLO),
        ("/any", b"authorization: bearer $good\r\n", HELLO),
        ("/any", b"AUTHORIZATION: BEARER $good\r\n", HELLO),
        ("/any", b"AuThOrIzAtIoN: bEaReR $good\r\n", HELLO),
        ("/any", b"Authorization:Bearer $good\r\n", HELLO),
        ("/any", b"Authorization:   Bearer $good\r\n", HELLO),
        ("/any", b"Authorization: Bearer $good   \r\n", HELLO), // the server trims whitespace
        ("/any", b"X-API-Key: $good\r\n", HELLO),
        ("/any", b"x-api-key: $good\r\n", HELLO),
        ("/any", b"X-Api-Key:\t$good\t\r\n", HELLO),
        ("/any", b"Authorization: Basic YTpi\r\nX-API-Key: $good\r\n", HELLO),
        ("/any", b"X-API-Key: $plain\r\n", HELLO),
        ("/builds", b"X-API-Key: $good\r\n", HELLO),
        ("/any?a=b", b"X-API-Key: $good\r\n", HELLO),
        // Credentials that are not a valid key.
        ("/any", b"Authorization: Bearer $unknown\r\n", INVALID),
        ("/any", b"Authorization: Bearer $revoked\r\n", INVALID),
        ("/any", b"Authorization: Bearer $disabled\r\n", INVALID),
        ("/any", b"Authorization: Bearer $expired\r\n", INVALID),
        ("/any", b"Authorization: Bearer $typo\r\n", INVALID),
        ("/any", b"Authorization: Bearer $upper\r\n", INVALID),
        ("/any", b"Authorization: Bearer $spaced\r\n", INVALID),
        ("/builds", b"X-API-Key: $revoked\r\n", INVALID),
        ("/builds", b"X-API-Key: $unknown\r\n", INVALID),
        ("/any", b"X-API-Key: Bearer $good\r\n", INVALID),
        ("/any", b"X-API-Key: guess\r\n", INVALID),
        ("/any", b"X-API-Key: \"$good\"\r\n", INVALID),
        ("/any", b"X-API-Key: {$good}\r\n", INVALID),
        ("/any", b"X-API-Key: ' OR 1=1 --\r\n", INVALID),
        // Ambiguous or malformed credentials.
        ("/any", b"Authorization:\r\n", INVALID),
        ("/any", b"Authorization: \t \r\n", INVALID),
        ("/any", b"Authorization: Bearer\r\n", INVALID),
        ("/any", b"Authorization: Bearer \r\n", INVALID),
        ("/any", b"Authorization: Bearer  $good\r\n", INVALID),
        ("/any", b"Authorization: Bearer\t$good\r\n", INVALID),
        ("/any", b"Authorization: Bearer:$good\r\n", INVALID),
        ("/any", b"Authorization: Bearer=$good\r\n", INVALID),
        ("/any", b"Authorization: Bearer,Bearer $good\r\n", INVALID),
        ("/any", b"Authorization: Bearer $good, Bearer $good\r\n", INVALID),
        ("/any", b"Authorization: Bearer $good,\r\n", INVALID),
        ("/any", b"Authorization: Bearer $good x\r\n", INVALID),
        ("/any", b"Authorization: \"Bearer\" $good\r\n", INVALID),
        ("/any", b"X-API-Key:\r\n", INVALID),
        ("/any", b"X-API-Key: $good\xff\r\n", INVALID),
        ("/any", b"X-API-Key: \xff\r\n", INVALID),
        ("/any", b"X-API-Key: \xc2\xa0$good\r\n", INVALID),
        ("/any", b"X-API-Key: $good\xe2\x80\x8b\r\n", INVALID),
        ("/any", b"Authorization: Bearer \xff\xfe\r\n", INVALID),
        ("/any", b"Authorization: \xff\r\n", INVALID),
        ("/any", b"X-API-Key: $512\r\n", INVALID),
        ("/any", b"X-API-Key: $513\r\n", INVALID),
        ("/any", b"Authorization: Bearer $60k\r\n", INVALID),
        ("/optional", b"X-API-Key: $60k\r\n", INVALID),
        // More than one credential.
        ("/any", b"Authorization: Bearer $good\r\nX-API-Key: $good\r\n", REPEATED),
        ("/any", b"Authorization: Bearer $good\r\nAuthorization: Bearer $good\r\n", REPEATED),
        ("/any", b"Authorization: Basic YTpi\r\nAuthorization: Bearer $good\r\n", REPEATED),
        ("/any", b"Authorization: Bearer $good\r\nauthorization: Basic YTpi\r\n", REPEATED),
        ("/any", b"X-API-Key: $good\r\nX-API-Key: $good\r\n", REPEATED),
        ("/any", b"X-API-Key: $good\r\nx-api-key: $unknown\r\n", REPEATED),
        ("/any", b"X-API-Key:\r\nX-API-Key: $good\r\n", REPEATED),
        ("/any", b"X-API-Key: \xff\r\nAuthorization: Bearer $good\r\n", REPEATED),
        ("/optional", b"X-API-Key: $good\r\nX-API-Key: $good\r\n", REPEATED),
        // Scopes and rates.
        ("/builds", b"X-API-Key: $other\r\n", SCOPE),
        ("/any", b"X-API-Key: $other\r\n", HELLO),
        ("/any", b"X-API-Key: $limited\r\n", LIMITED),
        ("/builds", b"Authorization: Bearer $limited\r\n", LIMITED),
        // An optional guard accepts no key, but rejects an invalid one.
        ("/optional", b"", HELLO),
        ("/optional", b"Authorization: Basic YTpi\r\n", HELLO),
        ("/optional", b"X-API-Key: $good\r\n", HELLO),
        ("/optional", b"X-API-Key: $revoked\r\n", INVALID),
        ("/optional", b"X-API-Key: guess\r\n", INVALID),
        ("/optional", b"X-API-Key:\r\n", INVALID),
        ("/optional", b"Authorization: Bearer\r\n", INVALID),
        // A key that is bound to a network, behind a proxy.
        ("/any", b"X-API-Key: $bound\r\n", INVALID),
        ("/any", b"X-API-Key: $bound\r\nX-Forwarded-For: 198.51.100.1\r\n", HELLO),
        ("/any", b"X-API-Key: $bound\r\nX-Forwarded-For: 198.51.100.1, 127.0.0.2\r\n", HELLO),
        ("/any", b"X-API-Key: $bound\r\nX-Forwarded-For: 198.51.100.1, 1.1.1.1\r\n", INVALID),
        ("/any", b"X-API-Key: $bound\r\nX-Forwarded-For: \xff, 198.51.100.1\r\n", HELLO),
        ("/any", b"X-API-Key: $bound\r\nX-Forwarded-For: \xff\r\nX-Forwarded-For: 198.51.100.1\r\n", HELLO),
        ("/any", b"X-API-Key: $bound\r\nX-Forwarded-For: x, \xe2\x80\xae,, 198.51.100.1\r\n", HELLO),
        ("/any", b"X-API-Key: $bound\r\nX-Forwarded-For: 198.51.100.1, \xff\r\n", INVALID),
        ("/any", b"X-API-Key: $bound\r\nX-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: \xff\r\n", INVALID),
        ("/any", b"X-API-Key: $bound\r\nForwarded: for=198.51.100.1\r\n", INVALID),
        ("/builds", b"X-API-Key: $bound\r\nForwarded: for=198.51.100.1\r\n", HELLO),
        ("/builds", b"X-API-Key: $bound\r\nForwarded: x=\"\r\nForwarded: for=198.51.100.1\r\n", HELLO),
        ("/builds", b"X-API-Key: $bound\r\nForwarded: x=\", for=198.51.100.1\r\n", HELLO),
        ("/builds", b"X-API-Key: $bound\r\nForwarded: for=\xff, for=198.51.100.1\r\n", HELLO),
        ("/builds", b"X-API-Key: $bound\r\nForwarded: for=198.51.100.1, x=\"\r\n", INVALID),
        ("/builds", b"X-API-Key: $bound\r\nForwarded: for=198.51.100.1\r\nForwarded: x=\"\r\n", INVALID),
        ("/builds", b"X-API-Key: $bound\r\nForwarded: for=198.51.100.1;x=\", for=1.1.1.1\"\r\n", HELLO),
        ("/builds", b"X-API-Key: $bound\r\nForwarded: for=\"198.51.100.1:_p1\"\r\n", HELLO),
        // The query string, where the host enables it.
        ("/query?key=$good", b"", HELLO),
        ("/query?a=b&key=$good", b"", HELLO),
        ("/query?key=$revoked", b"", INVALID),
        ("/query?key=", b"", INVALID),
        ("/query?key=%6c$good", b"", INVALID),
        ("/query?key=$good&key=$good", b"", REPEATED),
        ("/query?key=$good", b"Authorization: Bearer $good\r\n", REPEATED),
        ("/query?KEY=$good", b"", MISSING),
        // A handler that takes a key, without a layer that requires one.
        ("/optional-plain", b"X-API-Key: $good\r\n", HELLO),
        ("/optional-plain", b"", MISCONFIGURED),
        ("/forgotten", b"X-API-Key: $good\r\n", MISCONFIGURED),
        ("/forgotten-optional", b"", MISCONFIGURED),
        // Requests that the HTTP parser rejects.
        ("/any", b"X-API-Key: $good\0\r\n", UNREADABLE),
        ("/any", b"X-API-Key: $good\x01\r\n", UNREADABLE),
        ("/any", b"X-API-Key: a\x7fb\r\n", UNREADABLE),
        ("/any", b"Authorization: Bearer\r\n $good\r\n", UNREADABLE),
        ("/any", b"X-API-Key\r\n", UNREADABLE),
        ("/any", b"X-API-Key : $good\r\n", UNREADABLE),
        ("/any", b"X API Key: $good\r\n", UNREADABLE),
        ("/nowhere", b"X-API-Key: $good\r\n", NO_SUCH_PAGE),
    ];
    assert!(table.len() >= 60);
    for (path, lines, (status, code)) in table {
        let path = String::from_utf8(fill(path.as_bytes())).unwrap();
        let reply = ask(&servers, &get(&path, &fill(lines))).await;
        let shown = format!("{path} {}: {reply:?}", String::from_utf8_lossy(lines));
        assert_eq!(reply.status, *status, "{shown}");
        assert_eq!(reply.code().unwrap_or_default(), *code, "{shown}");
        assert_eq!(reply.body.starts_with("hello"), *status == 200, "{shown}");
        if *status == 401 {
            let challenge = reply.field("www-authenticate").unwrap();
            assert_eq!(challenge.contains("error=\"invalid_token\""), *code == "invalid_key");
        }
        if reply.code().is_some() {
            assert_eq!(reply.field("cache-control"), Some("no-store"), "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_limit_headers_and_required_scopes_are_returned() {
    let world = World::new();
    let limited = world.limited(Rate::per_minute(2)).await;
    let servers = start(&world);
    let ask_one = async |n: usize| {
        send(servers.both[n].1, &get("/any", format!("X-API-Key: {limited}\r\n").as_bytes())).await
    };
    for (server, left) in [(0, 1), (1, 0)] {
        let reply = ask_one(server).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.field("ratelimit-policy"), Some("\"key\";q=2;w=60"));
        let expected = format!("\"key\";r={left};t={}", 60 - left * 30);
        assert_eq!(reply.field("ratelimit"), Some(&*expected));
        assert_eq!(reply.field("cache-control"), Some("no-store"));
    }
    for server in [0, 1] {
        let reply = ask_one(server).await;
        assert_eq!((reply.status, reply.field("retry-after")), (429, Some("30")));
        assert_eq!(reply.field("ratelimit"), Some("\"key\";r=0;t=30"), "as Retry-After says");
        assert_eq!(reply.field("www-authenticate"), None, "the key is valid");
    }
    let reader = world.service.issue_with(keyward::model::Access::only(["deploy"]).unwrap()).await;
    let line = format!("X-API-Key: {}\r\n", reader.secret.expose());
    let reply = ask(&servers, &get("/builds", line.as_bytes())).await;
    let expected = "Bearer realm=\"api\", error=\"insufficient_scope\", scope=\"builds:read\"";
    assert_eq!(reply.field("www-authenticate"), Some(expected));
}

/// No window ends after `Retry-After`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_agrees_with_the_window_of_every_rate() {
    let world = World::new();
    let servers = start(&world);
    for rate in [Rate::per_second(1), Rate::per_minute(7), Rate::per_hour(1), Rate::per_hour(3)] {
        for shared in [rate, Rate::per_hour(2), Rate::per_hour(100)] {
            let plan = keyward::Limits::default().max_active_keys(100).rate(shared);
            world.service.host.limit(&world.service.owner, plan);
            world.keys().account_changed(&world.service.owner).await.unwrap();
            let line = format!("X-API-Key: {}\r\n", world.limited(rate).await);
            let mut limited = 0;
            for _ in 0..12 {
                let reply = send(servers.both[limited % 2].1, &get("/any", line.as_bytes())).await;
                let Some(wait) = reply.field("retry-after") else { continue };
                limited += 1;
                let wait: u64 = wait.parse().unwrap();
                let states = reply.field("ratelimit").unwrap();
                let windows = states.split(";t=").skip(1);
                for window in windows.map(|rest| rest.split(',').next().unwrap()) {
                    assert!(window.parse::<u64>().unwrap() <= wait, "{wait}: {states}");
                }
                assert!(states.contains(&format!(";r=0;t={wait}")), "{wait}: {states}");
            }
            assert!(limited > 0, "{rate:?} {shared:?}");
            world.service.clock.advance(crate::support::DAY);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_names_the_header_that_the_guard_accepts() {
    let world = World::new();
    let servers = start(&world);
    let other = world.service.issue_with(keyward::model::Access::only(["deploy"]).unwrap()).await;
    let other = format!("X-Acme-Key: {}\r\n", other.secret.expose());
    let twice = "X-Acme-Key: a\r\nX-Old-Key: b\r\n";
    for (lines, code, more) in [
        ("", "missing_key", ""),
        ("Authorization: Bearer guess\r\n", "missing_key", ""),
        ("X-Acme-Key: guess\r\n", "invalid_key", ", error=\"invalid_token\""),
        (twice, "repeated_credentials", ", error=\"invalid_request\""),
        (&other, "insufficient_scope", ", error=\"insufficient_scope\", scope=\"builds:read\""),
    ] {
        let reply = ask(&servers, &get("/header", lines.as_bytes())).await;
        assert_eq!(reply.code().as_deref(), Some(code), "{lines}");
        let expected = ["x-acme-key", "x-old-key"]
            .map(|name| format!("ApiKey header=\"{name}\", realm=\"api\"{more}"))
            .join(", ");
        assert_eq!(reply.field("www-authenticate"), Some(&*expected), "{lines}");
        assert_eq!(reply.body.contains("in the header x-acme-key"), code == "missing_key");
    }
    let reply = ask(&servers, &get("/any", b"")).await;
    assert_eq!(reply.field("www-authenticate"), Some("Bearer realm=\"api\""));
    assert!(reply.body.contains("Authorization: Bearer"), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quota_headers_report_remaining_uses_and_retry_after_only_if_it_resets() {
    let world = World::new();
    let daily = world.metered(Quota::per_day(2)).await;
    let trial = world.metered(Quota::total(2)).await;
    let servers = start(&world);
    let ask_one = async |n: usize, key: &str| {
        send(servers.both[n].1, &get("/any", format!("X-API-Key: {key}\r\n").as_bytes())).await
    };
    for (server, left) in [(0, 1), (1, 0)] {
        let reply = ask_one(server, &daily).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.field("ratelimit-policy"), Some("\"key-quota\";q=2;w=86400"));
        let expected = format!("\"key-quota\";r={left};t=86400");
        assert_eq!(reply.field("ratelimit"), Some(&*expected));
        let reply = ask_one(server, &trial).await;
        assert_eq!(reply.field("ratelimit-policy"), Some("\"key-quota\";q=2"));
        assert_eq!(reply.field("ratelimit"), Some(&*format!("\"key-quota\";r={left}")));
    }
    // An integer of a structured field has at most 15 digits; this quota has 16.
    let huge = world.metered(Quota::total(u64::MAX)).await;
    for server in [0, 1] {
        let reply = ask_one(server, &huge).await;
        let policy = Some("\"key-quota\";q=999999999999999");
        assert_eq!(reply.field("ratelimit-policy"), policy);
        assert_eq!(reply.field("ratelimit"), Some("\"key-quota\";r=999999999999999"));
    }
    for (key, retry_after) in [(&daily, Some("86400")), (&trial, None)] {
        let line = format!("X-API-Key: {key}\r\n");
        let reply = ask(&servers, &get("/any", line.as_bytes())).await;
        assert_eq!((reply.status, reply.code().as_deref()), (429, Some("quota_exhausted")));
        assert_eq!(reply.field("retry-after"), retry_after);
        assert!(reply.field("ratelimit").unwrap().starts_with("\"key-quota\";r=0"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unavailable_store_is_never_a_401() {
    let world = World::new();
    let known = world.reader().await;
    world.store.set_find_fault(Fault::Unavailable);
    let servers = start(&world);
    for secret in [known, world.unknown()] {
        for path in ["/any", "/builds", "/optional"] {
            let line = format!("Authorization: Bearer {secret}\r\n");
            let reply = ask(&servers, &get(path, line.as_bytes())).await;
            assert_eq!((reply.status, reply.code().as_deref()), (503, Some("unavailable")));
            assert_eq!(reply.field("retry-after"), Some("5"));
            assert_eq!(reply.field("www-authenticate"), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_credentials_are_rejected_without_hashing_and_lookup() {
    let world = World::new();
    world.reader().await;
    let servers = start(&world);
    let before = world.work();
    for lines in ["Authorization: Bearer k", "X-API-Key: k", "X-API-Key: 1\r\nX-API-Key: k"] {
        for length in [600, 60_000, 500_000] {
            let line = format!("{lines}{}\r\n", "k".repeat(length));
            for (name, server) in servers.both {
                let reply = send(server, &get("/any", line.as_bytes())).await;
                assert_ne!(reply.status, 200, "{name}");
            }
        }
    }
    assert_eq!(world.work(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_servers_receive_leak_reports() {
    let world = World::new();
    let servers = start(&world);
    let secret = world.reader().await;
    let post = |body: &[u8], signature: &str| {
        let head = format!(
            "POST /leaks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\
             Github-Public-Key-Identifier: one\r\nGithub-Public-Key-Signature: {signature}\r\n\r\n",
            body.len(),
        );
        [head.as_bytes(), body].concat()
    };
    let body = found(&[&secret]);
    let good = sign("one", body.as_bytes());
    let answer = async |body: &[u8], signature: &str| {
        let reply = ask(&servers, &post(body, signature)).await;
        (reply.status, reply.code().unwrap_or_default())
    };
    assert_eq!(answer(&body.as_bytes()[1..], &good).await, (403, "bad_signature".into()));
    assert!(world.keys().verify(&secret, &keyward::verify::VerifyRequest::new()).await.is_ok());
    assert_eq!(answer(body.as_bytes(), &good).await, (200, String::new()));
    assert!(world.keys().verify(&secret, &keyward::verify::VerifyRequest::new()).await.is_err());
    let huge = vec![b' '; 4 * 1024 * 1024 + 1];
    assert_eq!(answer(&huge, &sign("one", &huge)).await, (413, "too_large".into()));
    let largest = &huge[1..];
    assert_eq!(answer(largest, &sign("one", largest)).await, (400, "malformed_body".into()));
    assert_eq!(ask(&servers, &get("/leaks", b"")).await.status, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_servers_serve_the_same_management_api() {
    let world = World::new();
    let servers = start(&world);
    let id = world.service.issue().await.key.id;
    let long = format!(r#"{{"name": "{}"}}"#, "x".repeat(70_000));
    let (key, session) = (format!("/v1/api-keys/{id}"), "X-Session: ada\r\n");
    let twice = format!("{session}Idempotency-Key: a b\r\n");
    let text = format!("{session}Content-Type: text/plain\r\n");
    let form = format!("{session}Content-Type: application/x-www-form-urlencoded\r\n");
    #[rustfmt::skip]
    let table: &[(&str, &str, &str, &str, u16)] = &[
        ("GET", "/v1/api-keys", "", "", 401),
        ("DELETE", &key, "", "", 401),
        ("GET", "/v1/api-keys", session, "", 200),
        ("GET", "/v1/api-keys?limit=1&status=active", session, "", 200),
        ("GET", "/v1/api-keys?owner=bob", session, "", 422),
        ("GET", &key, session, "", 200),
        ("GET", &key, "X-Session: bob\r\n", "", 404),
        ("GET", "/v1/api-keys/x", session, "", 404),
        ("GET", "/v1/api-keys/a/b/c/d", session, "", 404),
        ("PUT", "/v1/api-keys", session, "{}", 405),
        ("POST", "/v1/api-keys", session, "{", 400),
        ("POST", "/v1/api-keys", session, r#"{"name": "x", "owner": "y"}"#, 422),
        ("POST", "/v1/api-keys", session, &long, 413),
        ("POST", "/v1/api-keys", &twice, r#"{"name": "x"}"#, 422),
        ("PATCH", &key, session, r#"{"name": "new"}"#, 200),
        ("DELETE", &key, session, "", 200),
        ("GET", &format!("{key}/events?limit=1"), session, "", 200),
        ("GET", "/v1/audit?event=key.revoked", session, "", 200),
        ("POST", "/v1/introspect", session, "{}", 415),
        ("POST", "/v1/introspect", &form, "token=guess", 200),
        ("POST", "/v1/api-keys", &text, r#"{"name": "x"}"#, 415),
    ];
    for (method, path, lines, body, status) in table {
        let kind = if lines.contains("Content-Type") { "" } else { JSON };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}{kind}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = ask(&servers, request.as_bytes()).await;
        assert_eq!(reply.status, *status, "{method} {path}: {reply:?}");
        assert!(*status < 400 || *status == 401 || reply.code().is_some(), "{reply:?}");
    }
}

/// Two credentials that disagree about who is calling are not combined, and none of them is ignored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_management_api_rejects_a_session_beside_the_key_of_a_guard() {
    let world = World::new();
    let servers = start(&world);
    let eve = keyward::Owner::new("acme", "eve").unwrap();
    let new = keyward::NewKey::new(&eve, "ci").unwrap();
    let of_eve = world.keys().issue(new, &world.service.actor).await.unwrap();
    let (of_eve, of_ada) = (of_eve.secret.expose().to_owned(), world.reader().await);
    for (key, session, status, code) in [
        ("", "ada", 201, None),
        ("", "", 401, None),
        (&*of_eve, "", 401, None),
        (&*of_eve, "ada", 400, Some("repeated_credentials")),
        // Neither with the rights of the session nor with those of the key.
        (&*of_ada, "ada", 400, Some("repeated_credentials")),
        ("guess", "ada", 401, Some("invalid_key")),
    ] {
        let line = |name: &str, value: &str| match value {
            "" => String::new(),
            value => format!("{name}: {value}\r\n"),
        };
        let (key, session) = (line("X-API-Key", key), line("X-Session", session));
        let body = r#"{"name": "mixed"}"#;
        let request = format!(
            "POST /behind/api-keys HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{key}{session}\
             {JSON}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = ask(&servers, request.as_bytes()).await;
        assert_eq!((reply.status, reply.code().as_deref()), (status, code), "{key}{session}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_servers_require_the_second_factor_of_the_policy() {
    let world = World::new();
    let servers = start(&world);
    let (service, id) = (&world.service, world.service.issue().await.key.id);
    world.keys().disable(&service.owner, id, &service.actor).await.unwrap();
    service.policy.demand(Some(crate::support::SECOND * 900));
    for (session, status, code) in [
        ("ada", 403, Some("second_factor_required")),
        ("ada 2025-12-31T23:44:59Z", 403, Some("second_factor_required")),
        ("ada 2025-12-31T23:45:00Z", 200, None),
    ] {
        let request = format!(
            "POST /v1/api-keys/{id}/enable HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             X-Session: {session}\r\nContent-Length: 0\r\n\r\n"
        );
        let reply = ask(&servers, request.as_bytes()).await;
        assert_eq!((reply.status, reply.code().as_deref()), (status, code), "{reply:?}");
        assert_eq!(reply.body.contains(r#""maxAge":900"#), status == 403, "{reply:?}");
    }
}

const JSON: &str = "Content-Type: application/json\r\n";

fn replace(bytes: &[u8], name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut filled = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(name.len()).position(|window| window == name) {
        filled.extend_from_slice(&rest[..at]);
        filled.extend_from_slice(value);
        rest = &rest[at + name.len()..];
    }
    filled.extend_from_slice(rest);
    filled
}
