use keyward::{
    Actor, AuditSink, KeyId, NewKey, Timestamp,
    audit::{AuditEvent, EventKind},
    email::EmailContent,
    enroll::EmailAddress,
    model::EventId,
};

use super::support::EmailHarness;
use crate::support::{hostile::for_emails as hostile, owner, servers::smtp};

#[tokio::test]
async fn messages_with_500_hostile_names_and_user_agents_are_harmless() {
    let Some(server) = smtp::start() else { return };
    let hostile_sender =
        |mailer: keyward::email::MailerBuilder| mailer.name("Lua\r\nBcc: eve@example.com");
    let harness = EmailHarness::with(&server, hostile_sender, |sink| {
        sink.product("Lua\nBcc: eve@example.com")
    });
    let service = &harness.service;
    let mut sent = 0;
    for n in 0..500 {
        let (name, agent) = (hostile(n), hostile(n + 7));
        let Ok(new) = NewKey::new(&owner("acme", "ada"), &name) else {
            assert!(name.trim().is_empty() || name.contains('\0') || name.chars().count() > 100);
            continue;
        };
        let by = Actor::account(&hostile(n + 3)).user_agent(&agent);
        let key = service.keys().issue(new, &by).await.unwrap().key;
        if n % 5 == 0 {
            service.keys().revoke(&key.owner, key.id, &hostile(n + 11), &by).await.unwrap();
            sent += 1;
        }
        sent += 1;
    }
    assert!(sent > 450, "{sent}");
    let stats = harness.stats().await;
    assert_eq!((stats.sent, stats.dropped), (sent, 0));
    let mails = server.mails();
    assert_eq!(mails.len() as u64, sent);
    mails.iter().for_each(is_harmless);
}

#[tokio::test]
async fn content_of_the_host_cannot_inject_headers() {
    let Some(server) = smtp::start() else { return };
    let harness = EmailHarness::with(
        &server,
        |mailer| mailer,
        |sink| {
            sink.content(|notice| {
                let name = notice.key.as_ref().unwrap().name.as_str();
                Some(EmailContent::new(name, name).html(name))
            })
        },
    );
    let mut sent = 0;
    for n in 0..100 {
        let Ok(new) = NewKey::new(&harness.service.owner, &hostile(n)) else { continue };
        drop(harness.service.keys().issue(new, &harness.service.actor).await.unwrap());
        sent += 1;
    }
    assert_eq!(harness.stats().await.sent, sent);
    for mail in server.mails() {
        has_own_headers_only(&mail);
    }
}

#[tokio::test]
async fn each_of_500_hostile_addresses_is_rejected_or_is_the_only_recipient() {
    let Some(server) = smtp::start() else { return };
    // The host fails to parse an address, which is retried like any failure of the host.
    let harness = EmailHarness::with(&server, |mailer| mailer.max_attempts(1), |sink| sink);
    let (mut rejected, mut expected) = (0, Vec::new());
    for n in 0..500_u32 {
        let end = if n % 3 == 0 { n.to_string() } else { hostile(n) };
        let account = format!("{}{end}", ["a.b+c", "ada", "O'Neil", "x!y%z"][n as usize % 4]);
        // The host derives addresses from account names.
        match format!("{account}@example.com").parse::<EmailAddress>() {
            Ok(address) => expected.push(address.to_string()),
            Err(_) => rejected += 1,
        }
        harness.sink.event(&created(n, &account));
    }
    let stats = harness.stats().await;
    assert!(rejected > 250 && expected.len() > 160, "{rejected} {}", expected.len());
    let mut reached: Vec<_> = server.mails().into_iter().flat_map(|mail| mail.to).collect();
    reached.sort();
    expected.sort();
    assert_eq!(reached, expected);
    assert_eq!(stats.sent as usize, expected.len());
    server.mails().iter().for_each(has_own_headers_only);
}

fn is_harmless(mail: &smtp::Mail) {
    has_own_headers_only(mail);
    assert_eq!(mail.to, ["ada@example.com"], "{mail:#?}");
    let text = mail.text.as_deref().unwrap();
    let lines = text.lines().filter(|line| !line.is_empty()).count();
    // Summary, five or six details, advice and link.
    assert!(lines == 8 || lines == 9, "{text}");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    let html = mail.html.as_deref().unwrap().to_lowercase();
    assert!(
        !html.contains("<script") && !html.contains("<img") && html.matches("href=").count() <= 1
    );
}

pub fn has_own_headers_only(mail: &smtp::Mail) {
    let mut names: Vec<_> = mail.headers.iter().map(|(name, _)| name.to_lowercase()).collect();
    names.sort();
    assert_eq!(names, HEADERS, "{mail:#?}");
    for (name, value) in &mail.headers {
        assert!(!value.contains(|c: char| c.is_control()), "{name}: {value:?}");
    }
}

fn created(n: u32, account: &str) -> AuditEvent {
    let id = (u128::from(n) + 1).to_be_bytes();
    let mut event = AuditEvent::new(EventId::from_bytes(id), Timestamp::MIN, EventKind::Created);
    event.tenant = "acme".into();
    event.account = Some(account.into());
    event.key_id = Some(KeyId::from_bytes(id));
    event.actor = "ada".into();
    event
}

const HEADERS: [&str; 8] = [
    "auto-submitted",
    "content-type",
    "date",
    "from",
    "message-id",
    "mime-version",
    "subject",
    "to",
];
