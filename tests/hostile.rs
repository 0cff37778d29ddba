//! Text from people who mean no good, from one end to the other: a key is made over HTTP, its owner gets a
//! letter, and it is seen in the log, in both exports and on the pages of keys.

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
        hostile::{for_letters, for_tables},
        on_each_store,
        servers::smtp::{self, Mail},
        stores::{Handles, PATIENCE},
    },
};

/// What somebody with a browser can choose.
struct Person {
    /// His account, and perhaps his address.
    account: String,
    agent: String,
    name: String,
    label: (String, String),
}

impl Person {
    fn number(n: usize, tables: &[String]) -> Self {
        let table = |n: usize| tables[n % tables.len()].clone();
        let letter = |n: usize| for_letters(n as u32);
        let odd = n % 2 == 1;
        let local = ["ada", "a.b+c", "O'Neil", "x!y%z"][n / 2 % 4];
        let end = if n.is_multiple_of(3) { n.to_string() } else { letter(n) };
        Self {
            // Nobody has the name of somebody else.
            account: if odd { format!("{}{n}", table(n)) } else { format!("{local}{end}") },
            agent: if odd { letter(n + 7) } else { table(n + 101) },
            name: if odd { letter(n + 11) } else { table(n) },
            label: if odd { (table(n + 3), letter(n)) } else { (letter(n), table(n + 3)) },
        }
    }

    /// Whether there can be such an account, and such a key.
    fn is_accepted(&self) -> bool {
        let Self { account, name, label: (key, value), .. } = self;
        let fits = |text: &str, most| (1..=most).contains(&text.chars().count());
        ![account, name, key, value].iter().any(|text| text.contains('\0'))
            && fits(name.trim(), 100)
            && fits(account, 200)
            && fits(key, 64)
    }

    fn address(&self) -> EmailAddress {
        address(&self.account)
    }
}

/// An account is an address, or somebody else reads its letters.
fn address(account: &str) -> EmailAddress {
    let own = format!("{account}@example.com").parse();
    own.unwrap_or_else(|_| "office@example.com".parse().unwrap())
}

struct Office;

#[async_trait]
impl Recipients for Office {
    async fn address_of(&self, owner: &Owner) -> Result<Option<EmailAddress>, HostError> {
        Ok(Some(address(owner.account())))
    }
}

/// The words come in hexadecimal digits: a host has them from its own database, where all is possible.
struct Session(Caller);

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let word = |name: &str| {
            let digits = parts.headers.get(name).ok_or(StatusCode::UNAUTHORIZED)?;
            let bytes = hex::decode(digits).map_err(|_| StatusCode::UNAUTHORIZED)?;
            String::from_utf8(bytes).map_err(|_| StatusCode::UNAUTHORIZED)
        };
        let (account, agent) = (word("x-account")?, word("x-agent")?);
        let owner = Owner::new("acme", &account).map_err(|_| StatusCode::UNAUTHORIZED)?;
        let caller = Caller::new(owner, Actor::account(&account).user_agent(&agent));
        let all = parts.headers.contains_key("x-administrator");
        Ok(Self(if all { caller.administrator() } else { caller }))
    }
}

impl From<Session> for Caller {
    fn from(Session(caller): Session) -> Self {
        caller
    }
}

struct Api(Router);

impl Api {
    async fn create(&self, by: &Person) -> (u16, String) {
        let (key, value) = &by.label;
        let body = json!({ "name": by.name, "metadata": { key: value } }).to_string();
        let request = Request::post("/api-keys")
            .header("x-account", hex::encode(&by.account))
            .header("x-agent", hex::encode(&by.agent))
            .header("content-type", "application/json");
        self.call(request.body(body.into()).unwrap()).await
    }

    /// What an administrator sees.
    async fn get(&self, path: &str) -> String {
        let request = Request::get(path)
            .header("x-account", hex::encode("grace"))
            .header("x-agent", "")
            .header("x-administrator", "");
        let (status, text) = self.call(request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, 200, "{text}");
        text
    }

    /// All pages of a list.
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

    /// An answer is UTF-8 throughout.
    async fn call(&self, request: Request<Body>) -> (u16, String) {
        let (parts, body) = self.0.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, 10_000_000).await.unwrap();
        (parts.status.as_u16(), String::from_utf8(bytes.into()).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_people_who_mean_no_good_make_one_record_each_everywhere() {
    on_each_store(everywhere).await;
}

async fn everywhere(handles: Handles) {
    let Some(server) = smtp::start() else { return };
    let from = "keys@example.com".parse().unwrap();
    let mailer =
        Mailer::builder(&server.url(), from).unwrap().name("Lua").timeout(PATIENCE).build();
    let sink = EmailSink::builder(mailer.clone(), Office)
        .product("Lua")
        .names_from_shared(handles[0].clone())
        .build();
    let service = Service::with(handles, |builder| builder.audit(sink.clone()));
    let api =
        Api(Router::new()
            .merge(keyward::axum::manage::router::<Session, _>(service.keys().clone())));

    // By the id of the key that each has made.
    let mut made: BTreeMap<String, (Person, String)> = BTreeMap::new();
    let tables = for_tables();
    for n in 0..500 {
        // No letter waits so long for its turn that it is tried twice.
        if n % 25 == 0 {
            mailer.idle().await;
        }
        let person = Person::number(n, &tables);
        let (status, answer) = api.create(&person).await;
        if !person.is_accepted() {
            assert!([401, 422].contains(&status), "{n}: {answer}");
            continue;
        }
        assert_eq!(status, 201, "{n}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        made.insert(text("id"), (person, text("prefix")));
    }
    assert!(made.len() > 450, "{}", made.len());

    mailer.idle().await;
    let letters = mailer.letters();
    assert_eq!((letters.sent, letters.lost), (made.len() as u64, 0));
    letters_are_harmless(&server.mails(), &made);

    let query = AuditQuery::new(OwnerScope::Tenant("acme")).limit(1_000);
    let stored = service.keys().events(query).await.unwrap();
    assert_eq!(stored.len(), made.len());
    for event in &stored {
        let AuditEvent { key_id, actor, user_agent, account, .. } = event;
        let (person, _) = &made[&key_id.unwrap().to_string()];
        assert_eq!((actor, account.as_ref()), (&person.account, Some(&person.account)));
        assert_eq!(user_agent.as_ref(), Some(&person.agent));
        let line = event.to_string();
        assert!(line.chars().all(is_plain), "{line}");
    }

    let listed = api.list("/audit", "events").await;
    let lines = api.get("/audit.jsonl").await;
    assert!(lines.chars().all(|c| c == '\n' || is_plain(c)));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, listed);
    assert_eq!(listed.len(), made.len());
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
    assert_eq!(rows.len(), made.len());
    for (row, event) in rows.iter().zip(&listed) {
        for (name, cell) in row {
            let told = event[name].as_str().map_or_else(|| event[name].to_string(), str::to_owned);
            assert_eq!(*cell, told.replace("null", ""), "{name}");
        }
    }

    let keys = api.list("/api-keys", "keys").await;
    assert_eq!(keys.len(), made.len());
    for key in keys {
        let (person, hint) = &made[key["id"].as_str().unwrap()];
        let (label, value) = &person.label;
        assert_eq!(key["name"], person.name.trim());
        assert_eq!(key["metadata"], json!({ label: value }));
        assert_eq!((&key["account"], &key["prefix"]), (&json!(person.account), &json!(hint)));
    }
}

/// To each owner the one about the key, to nobody else, and no line more than there are facts.
fn letters_are_harmless(mails: &[Mail], made: &BTreeMap<String, (Person, String)>) {
    let told: BTreeMap<&str, &Mail> = mails.iter().map(|mail| (hint(mail), mail)).collect();
    assert_eq!((mails.len(), told.len()), (made.len(), made.len()));
    let mut own = 0;
    for (person, hint) in made.values() {
        let mail = told[hint.as_str()];
        let address = person.address();
        own += usize::from(address.as_str() != "office@example.com");
        assert_eq!(mail.to, [address.as_str()], "{mail:#?}");
        has_own_headers_only(mail);
        let text = mail.text.as_deref().unwrap();
        // Headline, five facts, advice.
        assert_eq!(text.lines().filter(|line| !line.is_empty()).count(), 7, "{text}");
        assert!(text.chars().all(|c| c == '\n' || is_plain(c)), "{text:?}");
        let html = mail.html.as_deref().unwrap();
        assert!(html.chars().all(|c| c == '\n' || is_plain(c)), "{html:?}");
        assert_eq!(html.matches("<tr>").count(), 5, "{html}");
        let html = html.to_lowercase();
        // With the sign behind it: now and then a hint itself has these four letters in a row.
        assert!(!["<script", "<img", "href="].iter().any(|bad| html.contains(bad)), "{html}");
    }
    assert!(own > 50, "{own} letters went to an address of somebody's own");
}

/// Of the key that a letter is about.
fn hint(mail: &Mail) -> &str {
    let text = mail.text.as_deref().unwrap();
    let (_, rest) = text.split_once("(lc_live_").expect(text);
    let end = text.len() - rest.len() + rest.find("…)\n").expect(text);
    &text[text.len() - rest.len() - "lc_live_".len()..end]
}

fn is_plain(c: char) -> bool {
    !c.is_control() && !"\u{2028}\u{2029}\u{202e}\u{2066}\u{200b}\u{feff}".contains(c)
}
