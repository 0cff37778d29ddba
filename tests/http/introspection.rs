//! Introspection looks at a key and does not use it: axum and actix-web return the same responses.

use keyward::{
    AuditQuery, Expiry, NewKey, Owner, VerifyRequest,
    audit::EventKind,
    manage::{Issued, Rotation},
    model::{KeyLimits, Networks, Quota, Rate},
};
use serde_json::{Value, json};

use super::{
    raw::send,
    servers::Servers,
    table::{ask, start},
    world::{World, text},
};
use crate::support::{DAY, HOUR, SECOND, mistyped};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

fn request(session: &str, form: &str) -> Vec<u8> {
    let head = format!(
        "POST /v1/introspect HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         X-Session: {session}\r\n{FORM}Content-Length: {}\r\n\r\n{form}",
        form.len()
    );
    head.into_bytes()
}

/// Asks both servers, as this account.
async fn introspect(servers: &Servers, session: &str, form: &str) -> Value {
    let reply = ask(servers, &request(session, form)).await;
    assert_eq!(reply.status, 200, "{form}: {reply:?}");
    serde_json::from_str(&reply.body).unwrap()
}

async fn is_active(servers: &Servers, form: &str) -> bool {
    introspect(servers, "ada", form).await["active"].as_bool().unwrap()
}

/// Returns every event and every hourly count of a denial or a use.
async fn traces(world: &World, issued: &Issued) -> (Vec<EventKind>, u64) {
    let keys = world.keys();
    keys.flush().await.unwrap();
    let events = keys.events(AuditQuery::new(&world.service.owner)).await.unwrap();
    let kinds = events
        .iter()
        .map(|event| event.kind)
        .filter(|kind| matches!(kind, EventKind::Denied | EventKind::FirstUsed));
    let hours = keys.usage_history(&world.service.owner, issued.key.id, 24).await.unwrap();
    let counted = hours.iter().map(|hour| hour.accepted + hour.denied + hour.limited);
    (kinds.collect(), counted.sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn introspection_charges_nothing_and_records_no_use() {
    let world = World::new();
    let servers = start(&world);
    let limits = KeyLimits { rate: Some(Rate::per_hour(1)), quota: Some(Quota::total(1)) };
    let new = world.service.new_key().limits(limits);
    let issued = world.keys().issue(new, &world.service.actor).await.unwrap();
    let form = format!("token={}", text(&issued));
    for _ in 0..3 {
        assert!(is_active(&servers, &form).await);
    }
    assert_eq!(traces(&world, &issued).await, (vec![], 0));
    let key = world.keys().get(&world.service.owner, issued.key.id).await.unwrap();
    assert_eq!((key.first_used_at, key.last_used_at), (None, None));

    let verify = async || world.keys().verify(&text(&issued), &VerifyRequest::new()).await;
    assert!(verify().await.is_ok(), "its only use is left");
    assert!(verify().await.is_err());
    assert!(is_active(&servers, &form).await, "also when rate and quota are used up");
    let (kinds, uses) = traces(&world, &issued).await;
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::FirstUsed).count(), 1);
    assert_eq!(uses, 2, "one accepted and one limited, by verification");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn introspection_counts_no_denial() {
    let world = World::new();
    let servers = start(&world);
    let expired = world.expired().await;
    let new = world.service.new_key().networks(Networks::only(["198.51.100.0/24"]).unwrap());
    let bound = world.keys().issue(new, &world.service.actor).await.unwrap();
    let elsewhere = format!("{}&client_ip=192.0.2.1", text(&bound));
    let (revoked, disabled) = (world.revoked().await, world.disabled().await);
    for token in
        [&elsewhere, &expired, &revoked, &disabled, &world.unknown(), &mistyped(&expired), "guess"]
    {
        let seen = introspect(&servers, "ada", &format!("token={token}")).await;
        assert_eq!(seen, json!({"active": false}), "{token}");
    }
    assert_eq!(traces(&world, &bound).await, (vec![], 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_bound_to_networks_is_judged_by_the_address_in_the_request_if_there_is_one() {
    let world = World::new();
    let servers = start(&world);
    let new = world.service.new_key().networks(Networks::only(["198.51.100.0/24"]).unwrap());
    let bound = text(&world.keys().issue(new, &world.service.actor).await.unwrap());
    let free = text(&world.service.issue().await);
    for (more, bound_active) in [
        ("", true),
        ("&client_ip=198.51.100.7", true),
        ("&client_ip=%3A%3Affff%3A198.51.100.7", true),
        ("&client_ip=127.0.0.1", false),
        ("&client_ip=2001%3Adb8%3A%3A1", false),
    ] {
        assert_eq!(
            is_active(&servers, &format!("token={bound}{more}")).await,
            bound_active,
            "{more}"
        );
        assert!(is_active(&servers, &format!("token={free}{more}")).await, "{more}");
    }
    for address in ["", "198.51.100.0/24", "here", "198.51.100.7:80"] {
        let form = format!("token={bound}&client_ip={address}");
        let reply = ask(&servers, &request("ada", &form)).await;
        assert_eq!((reply.status, reply.code().as_deref()), (422, Some("invalid")), "{address}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exp_is_the_earlier_of_the_expiry_and_the_end_of_a_retiring_secret() {
    let world = World::new();
    let servers = start(&world);
    let (keys, service) = (world.keys(), &world.service);
    let at = |after: std::time::Duration| service.now().after(after).as_unix_micros() / 1_000_000;
    let rotate = async |issued: &Issued, overlap| {
        let rotation = Rotation::overlap(overlap);
        text(&keys.rotate(&service.owner, issued.key.id, rotation, &service.actor).await.unwrap())
    };
    let day = keys.issue(service.new_key().expiry(Expiry::days(1)), &service.actor).await.unwrap();
    let forever = service.issue().await;
    let new_of_day = rotate(&day, HOUR).await;
    let new_of_forever = rotate(&forever, HOUR).await;
    let late = keys.issue(service.new_key().expiry(Expiry::days(1)), &service.actor).await.unwrap();
    rotate(&late, DAY * 2).await;
    for (token, exp) in [
        (text(&day), Some(at(HOUR))),
        (text(&forever), Some(at(HOUR))),
        (text(&late), Some(at(DAY))),
        (new_of_day, Some(at(DAY))),
        (new_of_forever, None),
    ] {
        // From the store, and from the cache.
        for _ in 0..2 {
            let seen = introspect(&servers, "ada", &format!("token={token}")).await;
            assert_eq!(seen["active"], true);
            assert_eq!(seen.get("exp").and_then(Value::as_i64), exp);
            keys.verify(&token, &VerifyRequest::new()).await.unwrap();
        }
    }
    let retired = format!("token={}", text(&forever));
    world.service.clock.advance(HOUR);
    assert!(!is_active(&servers, &retired).await);
}

/// The response does not reveal whether a stranger's key exists, and in which state it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_a_stranger_is_inactive_in_every_state() {
    let world = World::new();
    let servers = start(&world);
    let expired = world.expired().await;
    let limited = world.limited(Rate::per_hour(1)).await;
    let metered = world.metered(Quota::total(0)).await;
    world.keys().verify(&limited, &VerifyRequest::new()).await.unwrap();
    assert!(world.keys().verify(&limited, &VerifyRequest::new()).await.is_err());
    let new = world.service.new_key().networks(Networks::only(["198.51.100.0/24"]).unwrap());
    let bound = text(&world.keys().issue(new, &world.service.actor).await.unwrap());
    let (live, revoked, disabled) =
        (world.reader().await, world.revoked().await, world.disabled().await);
    let cached = world.reader().await;
    world.keys().verify(&cached, &VerifyRequest::new()).await.unwrap();
    let unknown = world.unknown();
    let all = [&limited, &metered, &bound, &live, &revoked, &disabled, &expired, &cached, &unknown];
    let ask_all = async || {
        for token in all {
            for more in ["", "&client_ip=198.51.100.7", "&client_ip=127.0.0.1"] {
                let form = format!("token={token}{more}");
                let reply = ask(&servers, &request("bob", &form)).await;
                let seen = (reply.status, reply.body.as_str());
                assert_eq!(seen, (200, r#"{"active":false}"#), "{form}");
            }
        }
    };
    ask_all().await;
    world.service.host.set(&world.service.owner, |account| account.suspended = true);
    ask_all().await;
    world.service.host.fail(true);
    ask_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_session_is_limited_and_starves_no_other() {
    let world = World::new();
    let servers = start(&world);
    let (first, second, third) = (world.reader().await, world.reader().await, world.reader().await);
    let of_bob = NewKey::new(&Owner::new("acme", "bob").unwrap(), "ci").unwrap();
    let of_bob = text(&world.keys().issue(of_bob, &world.service.actor).await.unwrap());
    // The first verification starts the change feed, which invalidates what was cached before it was read.
    for _ in 0..2 {
        world.keys().verify(&of_bob, &VerifyRequest::new()).await.unwrap();
        world.keys().catch_up().await.unwrap();
    }
    // Of unknown keys and of a stranger's key alike, so that the limit reveals nothing.
    for server in [0, 1] {
        let mut limited = None;
        for n in 0..1_200 {
            let token = if n % 2 == 0 { world.unknown() } else { third.clone() };
            let form = format!("token={token}");
            let reply = send(servers.both[server].1, &request("bob", &form)).await;
            if reply.status != 200 {
                limited = Some(reply);
                break;
            }
        }
        let limited = limited.expect("the flood is limited");
        assert_eq!((limited.status, limited.code().as_deref()), (429, Some("rate_limited")));
        assert!(limited.field("retry-after").is_some(), "{limited:?}");
    }
    // Keys that no node has cached yet.
    assert!(is_active(&servers, &format!("token={first}")).await);
    assert!(world.keys().verify(&second, &VerifyRequest::new()).await.is_ok());
    let form = format!("token={of_bob}");
    let seen = introspect(&servers, "bob", &form).await;
    assert_eq!(seen["active"], true, "a cached key of the session's own");
    world.service.clock.advance(SECOND * 60);
    let seen = introspect(&servers, "bob", &format!("token={third}")).await;
    assert_eq!(seen, json!({"active": false}), "the limit has ended");
}
