//! Hostile text, end to end: a key is created over HTTP, its owner is notified by e-mail, and the key appears in
//! the audit log, in both exports and in the list of keys.

use std::collections::BTreeMap;

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::FromRequestParts,
    http::{Request, StatusCode, request::Parts},
};
use keyward::{
    Actor, AuditEvent, AuditQuery, Owner, OwnerScope,
    email::{EmailSink, Mailer, Recipients},
    enroll::{EmailAddress, HostError},
    http::manage::Caller,
};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    email::hostile::has_own_headers_only,
    keys::export::unescaped,
    support::{
        Service,
        hostile::{for_emails, for_tables},
        on_each_store,
        servers::smtp::{self, Mail},
        stores::{Handles, PATIENCE},
    },
};

/// The text that a user controls.
struct Attacker {
    /// The account, and the local part of the e-mail address if it is valid as one.
    account: String,
    agent: String,
    name: String,
    label: (String, String),
}

impl Attacker {
    fn number(n: usize, tables: &[String]) -> Self {
        let table = |n: usize| tables[n % tables.len()].clone();
        let email = |n: usize| for_emails(n as u32);
        let odd = n % 2 == 1;
        let local = ["ada", "a.b+c", "O'Neil", "x!y%z"][n / 2 % 4];
        let end = if n.is_multiple_of(3) { n.to_string() } else { email(n) };
        Self {
            // All account names are different.
            account: if odd { format!("{}{n}", table(n)) } else { format!("{local}{end}") },
            agent: if odd { email(n + 7) } else { table(n + 101) },
            name: if odd { email(n + 11) } else { table(n) },
            label: if odd { (table(n + 3), email(n)) } else { (email(n), table(n + 3)) },
        }
    }

    /// Returns whether the account and the key are valid.
    fn is_accepted(&self) -> bool {
        let Self { account, name, label: (key, value), .. } = self;
        let fits = |text: &str, max| (1..=max).contains(&text.chars().count());
        ![account, name, key, value].iter().any(|text| text.contains('\0'))
            && fits(name.trim(), 100)
            && fits(account, 200)
            && fits(key, 64)
    }

    fn address(&self) -> EmailAddress {
        address(&self.account)
    }
}

/// Returns the account's own address if it is valid as one, and a shared address otherwise.
fn address(account: &str) -> EmailAddress {
    let own = format!("{account}@example.com").parse();
    own.unwrap_or_else(|_| "office@example.com".parse().unwrap())
}

struct Addresses;

#[async_trait]
impl Recipients for Addresses {
    async fn address_of(&self, owner: &Owner) -> Result<Option<EmailAddress>, HostError> {
        Ok(Some(address(owner.account())))
    }
}

/// A session in headers. Account and user agent are hex-encoded: a real host reads them from its database, where
/// any text is possible.
struct Session(Caller);

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let text = |name: &str| {
            let digits = parts.headers.get(name).ok_or(StatusCode::UNAUTHORIZED)?;
            let bytes = hex::decode(digits).map_err(|_| StatusCode::UNAUTHORIZED)?;
            String::from_utf8(bytes).map_err(|_| StatusCode::UNAUTHORIZED)
        };
        let (account, agent) = (text("x-account")?, text("x-agent")?);
        let owner = Owner::new("acme", &account).map_err(|_| StatusCode::UNAUTHORIZED)?;
        let caller = Caller::new(owner, Actor::account(&account).user_agent(&agent));
        let is_administrator = parts.headers.contains_key("x-administrator");
        Ok(Self(if is_administrator { caller.administrator() } else { caller }))
    }
}

impl From<Session> for Caller {
    fn from(Session(caller): Session) -> Self {
        caller
    }
}

struct Api(Router);

impl Api {
    async fn create(&self, by: &Attacker) -> (u16, String) {
        let (key, value) = &by.label;
        let body = json!({ "name": by.name, "metadata": { key: value } }).to_string();
        let request = Request::post("/api-keys")
            .header("x-account", hex::encode(&by.account))
            .header("x-agent", hex::encode(&by.agent))
            .header("content-type", "application/json");
        self.call(request.body(body.into()).unwrap()).await
    }

    /// Gets a page as an administrator.
    async fn get(&self, path: &str) -> String {
        let request = Request::get(path)
            .header("x-account", hex::encode("grace"))
            .header("x-agent", "")
            .header("x-administrator", "");
        let (status, text) = self.call(request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, 200, "{text}");
        text
    }

    /// Returns the items of all pages of a list.
    async fn list(&self, path: &str, items: &str) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page: Value =
                serde_json::from_str(&self.get(&format!("{path}?limit=200{cursor}")).await)
                    .unwrap();
            all.extend(page[items].as_array().unwrap().iter().cloned());
            let Some(next) = page.get("next") else { return all };
            cursor = format!("&cursor={}", next.as_str().unwrap());
        }
    }

    /// Asserts that the response is valid UTF-8.
    async fn call(&self, request: Request<Body>) -> (u16, String) {
        let (parts, body) = self.0.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, 10_000_000).await.unwrap();
        (parts.status.as_u16(), String::from_utf8(bytes.into()).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_500_attackers_creates_exactly_one_record_in_every_output() {
    on_each_store(check_every_output).await;
}

async fn check_every_output(handles: Handles) {
    let Some(server) = smtp::start() else { return };
    let from = "keys@example.com".parse().unwrap();
    let mailer =
        Mailer::builder(&server.url(), from).unwrap().name("Lua").timeout(PATIENCE).build();
    let sink = EmailSink::builder(mailer.clone(), Addresses)
        .product("Lua")
        .names_from_shared(handles[0].clone())
        .build();
    let service = Service::with(handles, |builder| builder.audit(sink.clone()));
    let api =
        Api(Router::new()
            .merge(keyward::axum::manage::router::<Session, _>(service.keys().clone())));

    // The attacker and the hint of each key, by key id.
    let mut created: BTreeMap<String, (Attacker, String)> = BTreeMap::new();
    let tables = for_tables();
    for n in 0..500 {
        // Keeps few messages pending, so that no attempt times out and is retried.
        if n % 25 == 0 {
            mailer.flush().await;
        }
        let attacker = Attacker::number(n, &tables);
        let (status, answer) = api.create(&attacker).await;
        if !attacker.is_accepted() {
            assert!([401, 422].contains(&status), "{n}: {answer}");
            continue;
        }
        assert_eq!(status, 201, "{n}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        created.insert(text("id"), (attacker, text("prefix")));
    }
    assert!(created.len() > 450, "{}", created.len());

    mailer.flush().await;
    let stats = mailer.stats();
    assert_eq!((stats.sent, stats.dropped), (created.len() as u64, 0));
    assert_messages_are_harmless(&server.mails(), &created);

    let query = AuditQuery::new(OwnerScope::Tenant("acme")).limit(1_000);
    let stored = service.keys().events(query).await.unwrap();
    assert_eq!(stored.len(), created.len());
    for event in &stored {
        let AuditEvent { key_id, actor, user_agent, account, .. } = event;
        let (attacker, _) = &created[&key_id.unwrap().to_string()];
        assert_eq!((actor, account.as_ref()), (&attacker.account, Some(&attacker.account)));
        assert_eq!(user_agent.as_ref(), Some(&attacker.agent));
        let line = event.to_string();
        assert!(line.chars().all(is_plain), "{line}");
    }

    let listed = api.list("/audit", "events").await;
    let lines = api.get("/audit.jsonl").await;
    assert!(lines.chars().all(|c| c == '\n' || is_plain(c)));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, listed);
    assert_eq!(listed.len(), created.len());
    for (event, stored) in listed.iter().zip(&stored) {
        assert_eq!(event["id"], stored.id.to_string());
        assert_eq!(event["actor"], stored.actor);
        assert_eq!(event["userAgent"].as_str(), stored.user_agent.as_deref());
    }

    let table = api.get("/audit.csv").await;
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let names = reader.headers().unwrap().clone();
    let rows: Vec<BTreeMap<_, _>> = reader
        .records()
        .map(|row| {
            names.iter().map(str::to_owned).zip(row.unwrap().iter().map(unescaped)).collect()
        })
        .collect();
    assert_eq!(rows.len(), created.len());
    for (row, event) in rows.iter().zip(&listed) {
        for (name, cell) in row {
            let expected =
                event[name].as_str().map_or_else(|| event[name].to_string(), str::to_owned);
            assert_eq!(*cell, expected.replace("null", ""), "{name}");
        }
    }

    let keys = api.list("/api-keys", "keys").await;
    assert_eq!(keys.len(), created.len());
    for key in keys {
        let (attacker, hint) = &created[key["id"].as_str().unwrap()];
        let (label, value) = &attacker.label;
        assert_eq!(key["name"], attacker.name.trim());
        assert_eq!(key["metadata"], json!({ label: value }));
        assert_eq!((&key["account"], &key["prefix"]), (&json!(attacker.account), &json!(hint)));
    }
}

/// Asserts that each owner, and no other address, received the message about the key, without injected lines.
fn assert_messages_are_harmless(mails: &[Mail], created: &BTreeMap<String, (Attacker, String)>) {
    let by_hint: BTreeMap<&str, &Mail> = mails.iter().map(|mail| (hint(mail), mail)).collect();
    assert_eq!((mails.len(), by_hint.len()), (created.len(), created.len()));
    let mut own_addresses = 0;
    for (attacker, hint) in created.values() {
        let mail = by_hint[hint.as_str()];
        let address = attacker.address();
        own_addresses += usize::from(address.as_str() != "office@example.com");
        assert_eq!(mail.to, [address.as_str()], "{mail:#?}");
        has_own_headers_only(mail);
        let text = mail.text.as_deref().unwrap();
        // Summary, five details, advice.
        assert_eq!(text.lines().filter(|line| !line.is_empty()).count(), 7, "{text}");
        assert!(text.chars().all(|c| c == '\n' || is_plain(c)), "{text:?}");
        let html = mail.html.as_deref().unwrap();
        assert!(html.chars().all(|c| c == '\n' || is_plain(c)), "{html:?}");
        assert_eq!(html.matches("<tr>").count(), 5, "{html}");
        let html = html.to_lowercase();
        // With the `=`: a random hint may contain the letters `href`.
        assert!(!["<script", "<img", "href="].iter().any(|bad| html.contains(bad)), "{html}");
    }
    assert!(own_addresses > 50, "{own_addresses} messages went to the attacker's own address");
}

/// Returns the hint of the key that a message is about.
fn hint(mail: &Mail) -> &str {
    let text = mail.text.as_deref().unwrap();
    let (_, rest) = text.split_once("(lc_live_").expect(text);
    let end = text.len() - rest.len() + rest.find("…)\n").expect(text);
    &text[text.len() - rest.len() - "lc_live_".len()..end]
}

fn is_plain(c: char) -> bool {
    !c.is_control() && !"\u{2028}\u{2029}\u{202e}\u{2066}\u{200b}\u{feff}".contains(c)
}
