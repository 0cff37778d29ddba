use keyward::{
    AuditSink, Pepper,
    audit::EventKind,
    email::{EmailContent, EmailSink, Mailer, Notice},
    enroll::{AccountLookup, EmailAddress, Enrollment, HostError},
    manage::{Reminders, Rotation},
};

use super::support::{Accounts, EmailHarness, address, find_by_subject};
use crate::support::{Service, owner, servers::smtp, stores};

#[tokio::test]
async fn the_owner_is_notified_of_key_events_in_plain_text_and_html() {
    let Some(server) = smtp::start() else { return };
    let harness = EmailHarness::new(&server);
    let EmailHarness { service, sink, .. } = &harness;
    let issued = service.issue().await;
    let (keys, by) = (service.keys(), &service.actor);
    drop(keys.rotate(&service.owner, issued.key.id, Rotation::immediate(), by).await.unwrap());
    keys.revoke(&service.owner, issued.key.id, "laptop <lost>", by).await.unwrap();
    keys.disable(&service.owner, issued.key.id, by).await.unwrap_err();
    let revoked = service.events.all().pop().unwrap();
    for kind in [EventKind::Expiring, EventKind::RotationDue, EventKind::Unused] {
        let mut event = revoked.clone();
        (event.kind, event.reason) = (kind, None);
        sink.event(&event);
    }
    let mut refused = revoked.clone();
    refused.outcome = keyward::audit::Outcome::Failure;
    sink.event(&refused);

    harness.stats().await;
    let mails = server.mails();
    let subjects = [
        "[Lua] New API key: ci-pipeline",
        "[Lua] API key rotated: ci-pipeline",
        "[Lua] API key revoked: ci-pipeline",
        "[Lua] API key expires soon: ci-pipeline",
        "[Lua] API key should be rotated: ci-pipeline",
        "[Lua] API key unused for a long time: ci-pipeline",
    ];
    assert_eq!(mails.len(), subjects.len());
    for (n, subject) in subjects.into_iter().enumerate() {
        let mail = find_by_subject(&mails, subject);
        assert_eq!(
            (mail.from.as_str(), &mail.to),
            ("keys@example.com", &vec!["ada@example.com".to_owned()])
        );
        assert_eq!(mail.header("from"), "Lua <keys@example.com>");
        assert_eq!(mail.header("to"), "ada@example.com");
        assert_eq!(mail.header("auto-submitted"), "auto-generated");
        assert!(mail.header("message-id").ends_with(".keyward@example.com>"));
        assert_eq!(mail.header("date"), "Thu, 01 Jan 2026 00:00:00 +0000");
        let (text, html) = (mail.text.as_deref().unwrap(), mail.html.as_deref().unwrap());
        for part in [text, html] {
            assert!(part.contains("ci-pipeline (lc_live_"), "{part}");
            assert!(part.contains("2026-01-01T00:00:00.000Z"), "{part}");
            let actor_details = ["ada@example.com", "192.0.2.7", "Firefox on Linux"];
            assert!(actor_details.iter().all(|fact| part.contains(fact) == (n < 3)), "{part}");
        }
        assert!(text.contains("https://example.com/keys?a=1&b=2\n"));
        assert!(html.contains("href=\"https://example.com/keys?a=1&amp;b=2\""));
    }
    let revoked = find_by_subject(&mails, "revoked");
    assert!(revoked.text.as_ref().unwrap().contains("laptop <lost>"));
    assert!(revoked.html.as_ref().unwrap().contains("laptop &lt;lost&gt;"));
}

#[tokio::test]
async fn the_host_chooses_events_recipients_and_content() {
    let Some(server) = smtp::start() else { return };
    let harness = EmailHarness::with(
        &server,
        |mailer| mailer,
        |sink| {
            sink.kinds([EventKind::Created, EventKind::Updated]).content(|notice| {
                let own = EmailContent::new(
                    &format!("Neuer Schlüssel {}", notice.key_name()),
                    "Guten Tag!\n",
                );
                (notice.owner.account() != "bob").then_some(own)
            })
        },
    );
    let service = &harness.service;
    for account in ["ada", "bob", "silent"] {
        let new = keyward::manage::NewKey::new(&owner("acme", account), "ci").unwrap();
        let key = service.keys().issue(new, &service.actor).await.unwrap().key;
        service.keys().revoke(&key.owner, key.id, "", &service.actor).await.unwrap();
    }
    assert_eq!(harness.stats().await.sent, 1);
    let mails = server.mails();
    let mail = find_by_subject(&mails, "Neuer Schlüssel ci");
    assert_eq!((mails.len(), mail.text.as_deref(), &mail.html), (1, Some("Guten Tag!\n"), &None));
}

#[tokio::test]
async fn a_reminder_is_sent_once() {
    let Some(server) = smtp::start() else { return };
    let harness = EmailHarness::new(&server);
    let service = &harness.service;
    let new = service.new_key().expiry(keyward::model::Expiry::WEEK);
    drop(service.keys().issue(new, &service.actor).await.unwrap());
    service.clock.advance(4 * crate::support::DAY);
    for _ in 0..2 {
        service.keys().remind(&service.owner, &Reminders::default()).await.unwrap();
    }
    assert_eq!(harness.stats().await.sent, 2);
    let mails = server.mails();
    let text =
        find_by_subject(&mails, "API key expires soon: ci-pipeline").text.as_deref().unwrap();
    assert!(text.contains("it expires at 2026-01-08T00:00:00.000Z"), "{text}");
}

#[tokio::test]
async fn one_time_codes_are_sent_by_the_same_mailer() {
    struct Ada;
    #[async_trait::async_trait]
    impl AccountLookup for Ada {
        async fn owner_of(&self, _: &EmailAddress) -> Result<Option<keyward::Owner>, HostError> {
            Ok(Some(owner("acme", "ada")))
        }
    }
    let Some(server) = smtp::start() else { return };
    let EmailHarness { service, mailer, .. } = &EmailHarness::new(&server);
    let pepper = Pepper::new(1, [1; 32]).unwrap();
    let enrollment =
        Enrollment::builder(service.keys().clone(), Ada, mailer.clone(), pepper).build().unwrap();
    let ada = address("ada@example.com");
    enrollment.request_code(&ada, &service.actor).await.unwrap();
    crate::support::servers::eventually("the code is sent", async || mailer.stats().sent == 1)
        .await;

    let mails = server.mails();
    let mail = find_by_subject(&mails, "Your sign-in code");
    let code = mail.text.as_deref().unwrap().lines().next().unwrap();
    assert_eq!(mail.to, ["ada@example.com"]);
    assert!(enrollment.redeem_code(&ada, code, &service.actor).await.is_ok());
}

/// Returns how a message about a request with this user agent describes the device.
async fn device(user_agent: &str) -> String {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let from = address("keys@example.com");
    let mailer = Mailer::builder("smtp://localhost:1", from).unwrap().build();
    let describe = move |notice: &Notice| {
        sender.send(notice.device().unwrap()).unwrap();
        None
    };
    let sink = EmailSink::builder(mailer, Accounts).content(describe).build();
    let service = Service::with(stores::memory(), |builder| builder);
    drop(service.issue().await);
    let mut event = service.events.all().pop().unwrap();
    event.user_agent = Some(user_agent.into());
    sink.event(&event);
    receiver.recv().await.unwrap()
}

#[tokio::test]
async fn user_agents_of_browsers_and_programs_are_described() {
    for (system, browser, expected) in [
        ("X11; Linux x86_64; rv:140.0", "Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        ("Windows NT 10.0; Win64; x64", "Chrome/140.0.0.0 Safari/537.36", "Chrome on Windows"),
        (
            "Windows NT 10.0; Win64; x64",
            "Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
            "Edge on Windows",
        ),
        ("Macintosh; Intel Mac OS X 10_15_7", "Version/18.5 Safari/605.1.15", "Safari on a Mac"),
        (
            "iPhone; CPU iPhone OS 18_5 like Mac OS X",
            "CriOS/140.0 Mobile/15E148 Safari/604.1",
            "Chrome on an iPhone",
        ),
        ("Linux; Android 15", "Chrome/140.0.0.0 Mobile Safari/537.36", "Chrome on Android"),
    ] {
        let engine = "AppleWebKit/537.36 (KHTML, like Gecko)";
        let user_agent = format!("Mozilla/5.0 ({system}) {engine} {browser}");
        assert_eq!(device(&user_agent).await, expected);
    }
    assert_eq!(device("curl/8.5.0").await, "curl");
    assert_eq!(device("python-requests/2.32 Linux/6.1").await, "python-requests on Linux");
}

#[tokio::test]
async fn hostile_user_agents_are_not_repeated() {
    for hostile in
        ["", "Mozilla/5.0", "\r\nBcc: eve@example.com", "<b>/1", "é/1", "\u{202e}x", "a.b"]
    {
        assert_eq!(device(hostile).await, "an unknown device", "{hostile:?}");
    }
    assert_eq!(device("<script> Windows").await, "an unknown program on Windows");
}
