//! What a guard reads from the head of a request, without a web framework.

use http::{HeaderValue, Request, request::Parts};
use keyward::{
    Owner,
    http::{ClientIp, Credentials, ErrorCode, Guard},
    manage::NewKey,
    model::Networks,
};

use super::world::{World, text};

type Line<'a> = (&'static str, &'a [u8]);

fn head(path: &str, lines: &[Line<'_>]) -> Parts {
    let mut head = Request::new(()).into_parts().0;
    head.uri = path.parse().unwrap();
    for (name, value) in lines {
        head.headers.append(*name, HeaderValue::from_bytes(value).unwrap());
    }
    head
}

/// Returns whether the request contained a valid key or none, or the code of the rejection.
async fn check(guard: &Guard, mut head: Parts, peer: &str) -> Result<bool, ErrorCode> {
    let result = guard.check(&mut head, peer.parse().ok()).await;
    result.map(|verified| verified.is_some()).map_err(|rejection| rejection.code())
}

#[tokio::test]
async fn ambiguous_credentials_are_rejected() {
    let world = World::new();
    let good = world.reader().await;
    let guard = world.guard_builder().optional().build().unwrap();
    const NO_KEY: Result<bool, ErrorCode> = Ok(false);
    const VALID: Result<bool, ErrorCode> = Ok(true);
    const REPEATED: Result<bool, ErrorCode> = Err(ErrorCode::RepeatedCredentials);
    const INVALID: Result<bool, ErrorCode> = Err(ErrorCode::InvalidKey);
    // `$` is a valid key.
    let table: &[(&[Line<'_>], Result<bool, ErrorCode>)] = &[
        (&[], NO_KEY),
        (&[("authorization", b"Bearer $")], VALID),
        (&[("authorization", b"bEARER $")], VALID),
        (&[("x-api-key", b"$")], VALID),
        (&[("authorization", b"Basic YTpi")], NO_KEY),
        (&[("authorization", b"Bearers $")], NO_KEY),
        (&[("authorization", b"Basic YTpi"), ("x-api-key", b"$")], VALID),
        (&[("authorization", b"Bearer $"), ("x-api-key", b"$")], REPEATED),
        (&[("authorization", b"Bearer $"), ("authorization", b"Bearer $")], REPEATED),
        (&[("authorization", b"Basic YTpi"), ("authorization", b"Bearer $")], REPEATED),
        (&[("authorization", b"Basic YTpi"), ("authorization", b"Basic x")], REPEATED),
        (&[("x-api-key", b"$"), ("x-api-key", b"$")], REPEATED),
        (&[("x-api-key", b""), ("x-api-key", b"$")], REPEATED),
        (&[("authorization", b"")], INVALID),
        (&[("authorization", b"Bearer")], INVALID),
        (&[("authorization", b"Bearer ")], INVALID),
        (&[("authorization", b"Bearer  $")], INVALID),
        (&[("authorization", b"Bearer\t$")], INVALID),
        (&[("authorization", b"Bearer:$")], INVALID),
        (&[("authorization", b" Bearer $")], INVALID),
        (&[("authorization", b"Bearer $ ")], INVALID),
        (&[("authorization", b"Bearer $, Bearer $")], INVALID),
        (&[("x-api-key", b"")], INVALID),
        (&[("x-api-key", b"$ $")], INVALID),
        (&[("x-api-key", b"$\xff$")], INVALID),
        (&[("x-api-key", "$\u{e9}$".as_bytes())], INVALID),
    ];
    for (lines, expected) in table {
        let filled = lines.iter().map(|(name, value)| (*name, fill(value, &good)));
        let filled: Vec<_> = filled.collect();
        let lines: Vec<_> = filled.iter().map(|(name, value)| (*name, &value[..])).collect();
        let before = world.work();
        let found = check(&guard, head(&format!("/?x-api-key={good}"), &lines), "").await;
        assert_eq!(found, *expected, "{lines:?}");
        assert!(found == VALID || world.work() == before, "hashed: {lines:?}");
    }
    for name in ["authorization", "no such name"] {
        for credentials in [Credentials::header(name), Credentials::bearer().or_header(name)] {
            let guard = world.guard_builder().credentials(credentials.or_header("x-key")).build();
            assert_eq!(guard.unwrap_err().what(), "header name", "{name}");
        }
    }
}

fn fill(template: &[u8], secret: &str) -> Vec<u8> {
    template.split(|byte| *byte == b'$').collect::<Vec<_>>().join(secret.as_bytes())
}

/// Checks which address a guard determines, with keys that are bound to networks.
async fn expect(client: &ClientIp, peer: &str, lines: &[Line<'_>], expected: Option<&str>) {
    let world = World::new();
    let networks = match expected {
        Some(address) => Networks::only([address]),
        None => Networks::only(["0.0.0.0/0", "::/0"]),
    };
    let new = world.service.new_key().networks(networks.unwrap());
    let secret = text(&world.keys().issue(new, &world.service.actor).await.unwrap());
    let guard = world.guard_builder().client_ip(client.clone()).build().unwrap();
    let lines = [lines, &[("x-api-key", secret.as_bytes())]].concat();
    let found = check(&guard, head("/", &lines), peer).await;
    let result = expected.map(|_| true).ok_or(ErrorCode::InvalidKey);
    assert_eq!(found, result, "{peer} {lines:?}, expected {expected:?}");
}

#[tokio::test]
async fn only_addresses_appended_by_trusted_proxies_are_used() {
    let proxies = ClientIp::x_forwarded_for(["10.0.0.0/8", "fd00::/8"]).unwrap();
    let table: &[(&str, &[u8], Option<&str>)] = &[
        ("192.0.2.9", b"198.51.100.1", Some("192.0.2.9")), // the peer is not a proxy
        ("10.0.0.1", b"198.51.100.1", Some("198.51.100.1")),
        ("10.0.0.1", b"1.1.1.1, 198.51.100.1", Some("198.51.100.1")),
        ("10.0.0.1", b"1.1.1.1, 198.51.100.1 ,10.0.0.2", Some("198.51.100.1")),
        ("::ffff:10.0.0.1", b"[2001:db8::1]:443", Some("2001:db8::1")),
        ("10.0.0.1", b"198.51.100.1:8080", Some("198.51.100.1")),
        ("10.0.0.1", b"10.0.0.9", Some("10.0.0.9")), // the client is inside the proxy network
        // An unreadable entry hides no address on its right.
        ("10.0.0.1", b"\xff, 198.51.100.1", Some("198.51.100.1")),
        ("10.0.0.1", b"unknown, 198.51.100.1, 10.0.0.2", Some("198.51.100.1")),
        ("10.0.0.1", b"\xff, 1.1.1.1, \"\", 198.51.100.1", Some("198.51.100.1")),
        ("10.0.0.1", b",, ,198.51.100.1,", Some("198.51.100.1")),
        // An unreadable entry directly left of the trusted proxies is the client's.
        ("10.0.0.1", b"198.51.100.1, unknown", None),
        ("10.0.0.1", b"198.51.100.1, \xff", None),
        ("10.0.0.1", b"198.51.100.1, \xff, 10.0.0.2", None),
        ("10.0.0.1", b"198.51.100.1 \xff", None),
        ("10.0.0.1", b"198.51.100.1 1.1.1.1", None),
        ("", b"198.51.100.1", None), // the peer is unknown
    ];
    for (peer, line, expected) in table {
        expect(&proxies, peer, &[("x-forwarded-for", line)], *expected).await;
    }
    expect(&proxies, "10.0.0.1", &[], Some("10.0.0.1")).await;
    let two: [Line<'_>; 2] =
        [("x-forwarded-for", b"1.1.1.1"), ("x-forwarded-for", b"198.51.100.1")];
    expect(&proxies, "10.0.0.1", &two, Some("198.51.100.1")).await;
    let last = ("x-forwarded-for", &b"10.0.0.2"[..]);
    for (first, expected) in [
        (&b"\xff, 198.51.100.1"[..], Some("198.51.100.1")),
        (b"198.51.100.1, \xff", None),
        (b"\xff", None),
    ] {
        expect(&proxies, "10.0.0.1", &[("x-forwarded-for", first), last], expected).await;
    }
    let unreadable: [Line<'_>; 2] = [("x-forwarded-for", b"\xff"), two[1]];
    expect(&proxies, "10.0.0.1", &unreadable, Some("198.51.100.1")).await;
    expect(&ClientIp::peer(), "10.0.0.1", &two, Some("10.0.0.1")).await;
}

#[tokio::test]
async fn quoted_values_in_forwarded_are_parsed() {
    let forwarded = ClientIp::forwarded(["10.0.0.0/8"]).unwrap();
    let table: &[(&[u8], Option<&str>)] = &[
        (b"for=192.0.2.60;proto=http;by=203.0.113.43", Some("192.0.2.60")),
        (b"for=1.1.1.1, FOR=\"[2001:db8:cafe::17]:4711\"", Some("2001:db8:cafe::17")),
        (b"for=198.51.100.1;x=\"a,for=1.1.1.1\", for=10.1.1.1", Some("198.51.100.1")),
        (b"for=_hidden, for=10.1.1.1", None),
        // The port is obfuscated.
        (b"for=\"198.51.100.1:_a\"", Some("198.51.100.1")),
        (b"for=\"[2001:db8:cafe::17]:_a.b-_\", for=\"10.1.1.1:_p\"", Some("2001:db8:cafe::17")),
        (b"for=\"198.51.100.1:_a b\"", None),
        (b"for=\"unknown:_a\"", None),
        (b"proto=https", None),
        (b"for=198.51.100.1;x=\"a,for=1.1.1.1\"", Some("198.51.100.1")),
        (b"for=198.51.100.1;x=\"a,for=1.1.1.1;y=\\\"b\"", Some("198.51.100.1")),
        (b"for=198.51.100.1;x=\"a\\\\\", for=10.1.1.1", Some("198.51.100.1")),
        (b"for=198.51.100.1;x=\"a, \"", Some("198.51.100.1")),
        (b"for=198.51.100.1;x=\"\xff\"", Some("198.51.100.1")),
        (b", for=198.51.100.1 ; proto=https , ,", Some("198.51.100.1")),
        // What a client sends hides no element of a proxy.
        (b"for=1.1.1.1;x=\", for=198.51.100.1", Some("198.51.100.1")), // a quote is left open
        (b"x=\", for=198.51.100.1;proto=\"https\"", Some("198.51.100.1")),
        (b"for=1.1.1.1;x=\"\\\", for=198.51.100.1", Some("198.51.100.1")), // it is escaped
        (b"\xff, for=198.51.100.1", Some("198.51.100.1")),
        (b"x=\", for=198.51.100.1, for=10.1.1.1", Some("198.51.100.1")),
        // An element directly left of the trusted proxies is not readable.
        (b"for=198.51.100.1, x=\"", None),
        (b"for=198.51.100.1, x=\", for=10.1.1.1", None),
        (b"for=198.51.100.1, for=\xff", None),
        (b"for=198.51.100.1, for=\"unknown\"", None),
        (b"for=198.51.100.1, for=\"1.1.1.1\"x", None),
    ];
    for (line, expected) in table {
        expect(&forwarded, "10.0.0.1", &[("forwarded", line)], *expected).await;
    }
    for (client, expected) in [(&b"for=198.51.100.1"[..], "198.51.100.1"), (b"x=\"", "1.1.1.1")] {
        let proxy = if expected == "1.1.1.1" { &b"for=1.1.1.1"[..] } else { b"for=10.0.0.2" };
        let lines: [Line<'_>; 2] = [("forwarded", client), ("forwarded", proxy)];
        expect(&forwarded, "10.0.0.1", &lines, Some(expected)).await;
    }
}

/// A proxy may copy text of the client, such as `Host`, into a quoted value. The client may also send the text itself.
#[tokio::test]
async fn no_text_in_a_quoted_value_is_read_as_an_element() {
    let world = World::new();
    let new = world.service.new_key().networks(Networks::only(["198.51.100.1"]).unwrap());
    let secret = text(&world.keys().issue(new, &world.service.actor).await.unwrap());
    let forwarded = ClientIp::forwarded(["10.0.0.0/8"]).unwrap();
    let guard = world.guard_builder().client_ip(forwarded).build().unwrap();
    let pieces: [&[u8]; 9] =
        [b",for=1.1.1.1", b";x=", b"=", b";", b",", b"\"", b"\\", b" ", b"\xff"];
    for n in 0..pieces.len().pow(4) {
        let piece = |digit| pieces[n / pieces.len().pow(digit) % pieces.len()];
        let client = [piece(0), piece(1), piece(2), piece(3)].concat();
        let escape = |byte: &u8| match byte {
            b'"' | b'\\' => vec![b'\\', *byte],
            other => vec![*other],
        };
        let quoted: Vec<u8> = client.iter().flat_map(escape).collect();
        let line =
            [&client[..], b", for=198.51.100.1;host=\"", &quoted, b"\", for=10.0.0.2"].concat();
        let lines: [Line<'_>; 2] = [("forwarded", &line), ("x-api-key", secret.as_bytes())];
        let found = check(&guard, head("/", &lines), "10.0.0.1").await;
        assert_eq!(found, Ok(true), "{}", String::from_utf8_lossy(&line));
    }
}

#[tokio::test]
async fn the_tenant_is_read_from_the_path_as_a_router_reads_it() {
    let world = World::new();
    let mut keys = Vec::new();
    for tenant in ["acme", "%61cme", "acme/other", "grün", "..", "users", "t"] {
        let new = NewKey::new(&Owner::new(tenant, "ada").unwrap(), "key of a tenant").unwrap();
        keys.push((tenant, text(&world.keys().issue(new, &world.service.actor).await.unwrap())));
    }
    let new = NewKey::new(&Owner::account_only("ada").unwrap(), "key without a tenant").unwrap();
    keys.push(("", text(&world.keys().issue(new, &world.service.actor).await.unwrap())));
    for (template, path, expected) in [
        ("/t/{tenant}", "/t/acme", Some("acme")),
        ("/t/{tenant}", "/t/acme/users", Some("acme")),
        ("/t/{tenant}", "/t/%61cme/", Some("acme")),
        ("/t/{tenant}", "/t/%2561cme", Some("%61cme")),
        ("/t/{tenant}", "/t/acme%2Fother", Some("acme/other")),
        ("/t/{tenant}", "/t/gr%C3%BCn", Some("grün")),
        ("/t/{tenant}", "/t/../t/acme", Some("..")),
        ("/t/{tenant}", "/t/%00", None),
        ("/t/{tenant}", "/t//acme", None),
        ("/t/{tenant}", "/t/", None),
        ("/t/{tenant}", "/t", None),
        ("/t/{tenant}", "/T/acme", None),
        ("/t/{tenant}", "//t/acme", None),
        ("/t/{tenant}", "/x/t/acme", None),
        ("/t/{tenant}", "/t/%ff", None),
        ("/t/{tenant}", "/t/a%zz", None),
        ("/t/{tenant}", "/t/a%", None),
        ("/t/{tenant}", "/t/a%4", None),
        ("/t/{tenant}", "/t/%%36%31cme", None),
        ("/t/{tenant}", "*", None),
        ("/t/{tenant}", "acme.example:443", None), // `CONNECT`: the path is empty
        ("/{tenant}", "/acme/x", Some("acme")),
    ] {
        let guard = world.guard_builder().tenant_in_path(template).build().unwrap();
        for (tenant, secret) in &keys {
            let found = check(&guard, head(path, &[("x-api-key", secret.as_bytes())]), "").await;
            let is_named = expected == Some(tenant);
            assert_eq!(found, is_named.then_some(true).ok_or(ErrorCode::InvalidKey), "{path}");
        }
    }
}

#[tokio::test]
async fn a_template_without_a_tenant_segment_is_rejected() {
    let world = World::new();
    for template in [
        "", "/", "/t", "{t}", "/t/{}", "/t/{t}/", "//{t}", "t/{t}", "/t/x{t}", "/{a}/{b}",
        "/t/{*t}",
    ] {
        assert!(world.guard_builder().tenant_in_path(template).build().is_err(), "{template}");
    }
}
