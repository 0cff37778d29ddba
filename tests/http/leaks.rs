//! Reports of leaked keys, with signatures like GitHub's.

use std::{
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::{
    AuditQuery, KeyFormat, VerifyRequest,
    audit::EventKind,
    http::leaks::{LeakPolicy, LeakReceiver, LeakReport, PublicKeys},
    manage::{Issued, Rotation},
};
use p256::{
    ecdsa::{Signature, SigningKey, signature::Signer},
    pkcs8::{EncodePublicKey, LineEnding},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::world::World;
use crate::{
    cache::faulty_store::Fault,
    support::{DAY, log::holds_a_secret},
};

/// A fake GitHub: the public keys it publishes, and the number of fetches.
#[derive(Clone, Default)]
pub struct GitHub {
    published: Arc<Mutex<Option<Vec<Value>>>>,
    asked: Arc<AtomicUsize>,
}

#[async_trait::async_trait]
impl PublicKeys for GitHub {
    async fn fetch(&self) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let published = self.published.lock().unwrap().clone().ok_or("GitHub is down")?;
        Ok(json!({ "public_keys": published }).to_string().into_bytes())
    }
}

impl GitHub {
    /// Publishes one key, `one`.
    pub fn new() -> Self {
        let github = Self::default();
        github.publish(&["one"]);
        github
    }

    fn publish(&self, names: &[&str]) {
        let other = json!({ "key_identifier": "other", "key": "-----BEGIN SOMETHING-----" });
        let keys = names.iter().map(|name| {
            let key = p256::PublicKey::from(signer(name).verifying_key());
            let key = key.to_public_key_pem(LineEnding::LF).unwrap();
            json!({ "key_identifier": name, "key": key, "is_current": true })
        });
        *self.published.lock().unwrap() = Some(keys.chain([other]).collect());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn signer(name: &str) -> SigningKey {
    SigningKey::from_slice(&Sha256::digest(name)).unwrap()
}

pub fn sign(name: &str, body: &[u8]) -> String {
    let signature: Signature = signer(name).sign(body);
    STANDARD.encode(signature.to_der())
}

pub fn found(secrets: &[&str]) -> String {
    let url = "https://github.com/acme/site/blob/main/.env";
    let found = |secret| json!({ "token": secret, "type": "acme", "url": url, "source": "commit" });
    Value::from_iter(secrets.iter().map(found)).to_string()
}

async fn send(leaks: &LeakReceiver, name: &str, body: &str) -> (u16, Value) {
    let signature = sign(name, body.as_bytes());
    send_signed(leaks, name, body, &signature).await
}

async fn send_signed(
    leaks: &LeakReceiver,
    name: &str,
    body: &str,
    signature: &str,
) -> (u16, Value) {
    let report = LeakReport::new(body.as_bytes()).identifier(name.as_bytes());
    let report = report.signature(signature.as_bytes());
    let response = leaks.receive(&report).await;
    assert!(!holds_a_secret(response.body()) && !holds_a_secret(&format!("{report:?} {leaks:?}")));
    let later = response.headers().contains_key("retry-after");
    assert_eq!(later, response.status() == 503);
    (response.status().as_u16(), serde_json::from_str(response.body()).unwrap())
}

async fn works(world: &World, issued: &Issued) -> bool {
    world.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok()
}

/// Returns the kinds of the key's audit events, except its uses.
async fn kinds(world: &World, issued: &Issued) -> Vec<EventKind> {
    let query = AuditQuery::new(&world.service.owner).key(issued.key.id);
    let events = world.keys().events(query).await.unwrap();
    let uses = [EventKind::FirstUsed, EventKind::Denied];
    events.iter().map(|event| event.kind).filter(|kind| !uses.contains(kind)).collect()
}

#[tokio::test]
async fn a_leaked_key_is_revoked_and_the_response_labels_every_match() {
    let world = World::new();
    let leaks = LeakReceiver::github(world.keys().clone(), GitHub::new());
    let (leaked, safe) = (world.service.issue().await, world.service.issue().await);
    let unknown = world.unknown();
    let secret = leaked.secret.expose();
    let mut body: Vec<Value> =
        serde_json::from_str(&found(&["lc_garbage", secret, &unknown])).unwrap();
    body.insert(1, json!({ "token": 42 }));
    body.insert(1, json!("no match at all"));
    let body = Value::from(body).to_string();
    let label =
        |secret, label| json!({ "token_hash": hash(secret), "token_type": "acme", "label": label });
    let expected = json!([
        label("lc_garbage", "false_positive"),
        label(secret, "true_positive"),
        label(&unknown, "false_positive"),
    ]);
    assert_eq!(send(&leaks, "one", &body).await, (200, expected));
    assert!(!works(&world, &leaked).await && works(&world, &safe).await);

    let revoked = AuditQuery::new(&world.service.owner).kind(EventKind::Revoked);
    let revoked = &world.keys().events(revoked).await.unwrap()[0];
    let reason = "leaked: commit https://github.com/acme/site/blob/main/.env";
    assert_eq!(revoked.reason.as_deref(), Some(reason));
    assert_eq!(revoked.actor, "system:github-secret-scanning");
    world.keys().flush().await.unwrap();
    assert_eq!(
        world.service.stored(leaked.key.id).await.first_used_at,
        None,
        "a leak does not count as a use"
    );
    let sent = world.service.events.all();
    assert!(
        sent.iter().any(|event| event.kind == EventKind::Leaked),
        "the sinks received the event"
    );
}

fn hash(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_report_without_a_valid_signature_is_rejected_without_a_lookup() {
    let world = World::new();
    let leaks = LeakReceiver::github(world.keys().clone(), GitHub::new());
    let issued = world.service.issue().await;
    let body = found(&[issued.secret.expose()]);
    let good = sign("one", body.as_bytes());
    let before = world.work();
    let tampered = body.replace("commit", "Commit");
    for (name, body, signature) in [
        ("one", &*tampered, &*good),
        ("one", &body, &sign("two", body.as_bytes())),
        ("one", &body, ""),
        ("one", &body, "no base64"),
        ("one", &body, &STANDARD.encode("no signature")),
        ("other", &body, &good),
        ("", &body, &good),
    ] {
        let (status, _) = send_signed(&leaks, name, body, signature).await;
        assert!(status == 403 || (status == 503 && name != "one"), "{name} {signature}: {status}");
    }
    assert_eq!(world.work(), before);
    assert!(works(&world, &issued).await);
    assert_eq!(send(&leaks, "one", "{}").await.0, 400);
    assert_eq!(send(&leaks, "one", &body).await.0, 200);
}

/// The example of GitHub's documentation, signed with a key that GitHub published.
#[tokio::test]
async fn a_signature_of_github_is_accepted() {
    let world = World::new();
    let key = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYAGMWO8XgCamYKMJS6jc/qgvSlAd\n\
        AjPuDPRcXU22YxgBrz+zoN19MzuRyW87qEt9/AmtoNP5GrobzUvQSyJFVw==\n\
        -----END PUBLIC KEY-----\n";
    let published = json!({ "key_identifier": "example", "key": key });
    let github =
        GitHub { published: Arc::new(Mutex::new(Some(vec![published]))), ..GitHub::default() };
    let leaks = LeakReceiver::github(world.keys().clone(), github);
    let body = r#"[{"source":"commit","token":"some_token","type":"some_type","url":"https://example.com/base-repo-url/"}]"#;
    let signature = "MEQCIQDaMKqrGnE27S0kgMrEK0eYBmyG0LeZismAEz/BgZyt7AIfXt9fErtRS4XaeSt/AO1RtBY66YcAdjxji410VQV4xg==";
    for (body, signature, status) in [
        (body, signature, 200),
        (&body[1..], signature, 403),
        (body, &signature[4..], 403),
        (body, "", 403),
    ] {
        assert_eq!(
            send_signed(&leaks, "example", body, signature).await.0,
            status,
            "{body} {signature}"
        );
    }
}

#[tokio::test]
async fn a_repeated_report_is_processed_once() {
    let world = World::new();
    let leaks = LeakReceiver::github(world.keys().clone(), GitHub::new());
    let issued = world.service.issue().await;
    let body = found(&[issued.secret.expose()]);
    let first = send(&leaks, "one", &body).await;
    assert_eq!(send(&leaks, "one", &body).await, first);
    let expected = [EventKind::Revoked, EventKind::Leaked, EventKind::Created];
    assert_eq!(kinds(&world, &issued).await, expected);
}

/// The key is reported at more and more places, and each report is sent again.
#[tokio::test]
async fn at_most_a_thousand_places_of_a_key_are_logged_and_then_no_more() {
    let world = World::new();
    let leaks = LeakReceiver::github(world.keys().clone(), GitHub::new());
    let issued = world.service.issue().await;
    let logged = async || {
        let query = AuditQuery::new(&world.service.owner).key(issued.key.id);
        let leaks = query.kind(EventKind::Leaked).limit(1_000);
        world.keys().events(leaks).await.unwrap().len()
    };
    for n in 0..12 {
        let place =
            |at| json!({ "token": issued.secret.expose(), "url": format!("https://{n}/{at}") });
        let body = Value::from_iter((0..100).map(place)).to_string();
        for _ in 0..2 {
            assert_eq!(send(&leaks, "one", &body).await.0, 200);
            assert_eq!(logged().await, (100 * (n + 1)).min(1_000));
        }
    }
    let after_all = world.service.events.all().into_iter();
    assert_eq!(after_all.filter(|event| event.kind == EventKind::Leaked).count(), 1_000);
}

#[tokio::test]
async fn the_policy_of_the_format_is_applied_to_leaked_keys() {
    use EventKind::{Created, Disabled, Leaked, Revoked};
    let world = World::new();
    let ours = world.keys().formats().current().clone();
    let other = KeyFormat::builder("old").build().unwrap();
    let leaks = || LeakReceiver::github(world.keys().clone(), GitHub::new());
    let table = [
        (leaks().policy(LeakPolicy::Disable), vec![Disabled, Leaked, Created]),
        (leaks().policy(LeakPolicy::Notify), vec![Leaked, Created]),
        (leaks().policy_for_format(&other, LeakPolicy::Notify), vec![Revoked, Leaked, Created]),
        (leaks().policy_for_format(&ours, LeakPolicy::Notify), vec![Leaked, Created]),
        (
            leaks()
                .policy_for_format(&ours, LeakPolicy::Notify)
                .policy_for_format(&ours, LeakPolicy::Disable),
            vec![Disabled, Leaked, Created],
        ),
    ];
    for (leaks, expected) in table {
        let issued = world.service.issue().await;
        assert_eq!(send(&leaks, "one", &found(&[issued.secret.expose()])).await.0, 200);
        assert_eq!(kinds(&world, &issued).await, expected);
        assert_eq!(works(&world, &issued).await, expected[0] == Leaked);
        world
            .keys()
            .delete(&world.service.owner, issued.key.id, &world.service.actor)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_leaked_secret_that_is_no_longer_valid_does_not_revoke_its_key() {
    let world = World::new();
    let leaks = LeakReceiver::github(world.keys().clone(), GitHub::new());
    let (owner, actor) = (&world.service.owner, &world.service.actor);
    for (overlap, still_works) in [(Duration::ZERO, true), (DAY, false)] {
        let old = world.service.issue().await;
        let rotation = Rotation::overlap(overlap);
        let new = world.keys().rotate(owner, old.key.id, rotation, actor).await.unwrap();
        let (_, labels) = send(&leaks, "one", &found(&[old.secret.expose()])).await;
        assert_eq!(labels[0]["label"], "true_positive");
        assert_eq!(works(&world, &new).await, still_works, "overlap of {overlap:?}");
        assert!(kinds(&world, &old).await.contains(&EventKind::Leaked));
    }
}

#[tokio::test]
async fn a_report_is_answered_503_while_the_store_is_down() {
    let world = World::new();
    let leaks = LeakReceiver::github(world.keys().clone(), GitHub::new());
    let (one, two) = (world.service.issue().await, world.service.issue().await);
    let body = found(&[one.secret.expose(), two.secret.expose()]);
    world.store.set_find_fault(Fault::Unavailable);
    assert_eq!(send(&leaks, "one", &body).await.0, 503);
    world.store.set_find_fault(Fault::None);
    assert!(works(&world, &one).await && works(&world, &two).await);

    // Both revocations succeed, but their outcome is unknown. The second key is revoked although the
    // first one failed.
    world.store.set_change_fault(Fault::AnswerLost);
    assert_eq!(send(&leaks, "one", &body).await.0, 503);
    assert!(!works(&world, &one).await && !works(&world, &two).await);
    world.store.set_change_fault(Fault::None);
    let (status, labels) = send(&leaks, "one", &body).await;
    assert_eq!((status, &labels[1]["label"]), (200, &json!("true_positive")));
    assert_eq!(kinds(&world, &two).await.len(), 3, "each event is written once");
}

#[tokio::test]
async fn public_keys_are_fetched_at_most_once_a_minute_and_refreshed_hourly() {
    let world = World::new();
    let github = GitHub::new();
    let leaks = LeakReceiver::github(world.keys().clone(), github.clone());
    let clock = &world.service.clock;
    assert_eq!((send(&leaks, "one", "[]").await.0, github.asked()), (200, 1));
    for n in 0..100 {
        assert_eq!(
            send(&leaks, &format!("made up {n}"), "[]").await.0,
            503,
            "the fetch is rate limited"
        );
    }
    assert_eq!((send(&leaks, "one", "[]").await.0, github.asked()), (200, 1));

    github.publish(&["one", "two"]);
    clock.advance(Duration::from_secs(59));
    assert_eq!((send(&leaks, "two", "[]").await.0, github.asked()), (503, 1));
    clock.advance(Duration::from_secs(1));
    assert_eq!((send(&leaks, "two", "[]").await.0, github.asked()), (200, 2));
    clock.advance(Duration::from_secs(60));
    assert_eq!((send(&leaks, "made up", "[]").await.0, github.asked()), (403, 3));

    github.publish(&["two"]);
    clock.advance(Duration::from_secs(3_599));
    assert_eq!((send(&leaks, "one", "[]").await.0, github.asked()), (200, 3));
    clock.advance(Duration::from_secs(1));
    assert_eq!(
        (send(&leaks, "one", "[]").await.0, github.asked()),
        (403, 4),
        "GitHub withdrew the key"
    );
}

#[tokio::test]
async fn cached_public_keys_stay_valid_while_fetching_fails() {
    let world = World::new();
    let github = GitHub::default();
    let leaks = LeakReceiver::github(world.keys().clone(), github.clone());
    let clock = &world.service.clock;
    assert_eq!((send(&leaks, "one", "[]").await.0, github.asked()), (503, 1));
    github.publish(&["one"]);
    assert_eq!((send(&leaks, "one", "[]").await.0, github.asked()), (503, 1));
    clock.advance(Duration::from_secs(60));
    assert_eq!((send(&leaks, "one", "[]").await.0, github.asked()), (200, 2));
    *github.published.lock().unwrap() = None;
    clock.advance(DAY);
    assert_eq!((send(&leaks, "one", "[]").await.0, github.asked()), (200, 3));
    assert_eq!((send(&leaks, "two", "[]").await.0, github.asked()), (503, 3));
}
