use std::time::Duration;

use keyward::AuditSink;

use super::support::EmailHarness;
use crate::support::{owner, servers::smtp};

#[tokio::test]
async fn a_mail_server_that_is_down_delays_nothing_and_the_message_is_sent_when_it_is_back() {
    let Some(mut server) = smtp::start() else { return };
    let harness = EmailHarness::with(
        &server,
        |mailer| mailer.max_attempts(1_000).retry_delay(MOMENT),
        |sink| sink,
    );
    server.kill();
    drop(harness.service.issue().await);
    assert_eq!(
        harness.mailer.stats().sent,
        0,
        "the key was issued although no message can be sent"
    );
    harness.eventually("the message is retried", |stats| stats.retried > 1).await;
    server.restart();
    let stats = harness.stats().await;
    assert_eq!((stats.sent, stats.dropped, stats.pending), (1, 0, 0));
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn a_dropped_message_is_counted_and_a_later_one_is_sent() {
    let Some(mut server) = smtp::start() else { return };
    let harness = EmailHarness::with(
        &server,
        |mailer| mailer.max_attempts(3).retry_delay(MOMENT),
        |sink| sink,
    );
    server.kill();
    drop(harness.service.issue().await);
    let stats = harness.stats().await;
    assert_eq!((stats.sent, stats.dropped, stats.retried), (0, 1, 2));
    server.restart();
    drop(harness.service.issue().await);
    assert_eq!(harness.stats().await.sent, 1);
}

#[tokio::test]
async fn a_frozen_mail_server_delays_nothing_and_pending_messages_are_bounded() {
    let Some(server) = smtp::start() else { return };
    let bounded = |mailer: keyward::email::MailerBuilder| {
        mailer.max_attempts(2).retry_delay(MOMENT).max_pending(3)
    };
    let harness = EmailHarness::with(&server, bounded, |sink| sink);
    server.freeze();
    for _ in 0..10 {
        drop(harness.service.issue().await);
    }
    // All keys are issued while the first messages are still pending.
    let stats = harness.mailer.stats();
    assert_eq!((stats.sent, stats.pending, stats.dropped), (0, 3, 7));
    server.thaw();
    let stats = harness.stats().await;
    assert_eq!((stats.sent, stats.dropped), (3, 7));
}

#[tokio::test]
async fn a_message_is_dropped_when_every_attempt_times_out() {
    let Some(server) = smtp::start() else { return };
    let short_timeout = |mailer: keyward::email::MailerBuilder| {
        mailer.max_attempts(2).retry_delay(MOMENT).timeout(MOMENT * 20)
    };
    let harness = EmailHarness::with(&server, short_timeout, |sink| sink);
    server.freeze();
    drop(harness.service.issue().await);
    let stats = harness.stats().await;
    assert_eq!((stats.sent, stats.dropped, stats.retried), (0, 1, 1));
    server.thaw();
    // The server may still be busy with the connections that timed out.
    crate::support::servers::eventually("messages are sent again", async || {
        drop(harness.service.issue().await);
        harness.mailer.flush().await;
        harness.mailer.stats().sent > 0
    })
    .await;
}

#[tokio::test]
async fn a_temporary_rejection_is_retried_and_a_permanent_one_is_not() {
    let Some(server) = smtp::start() else { return };
    let harness = EmailHarness::with(&server, |mailer| mailer.retry_delay(MOMENT), |sink| sink);
    for (account, expected) in [("busy", (1, 0, 1)), ("nobody", (1, 1, 1))] {
        let new = keyward::manage::NewKey::new(&owner("acme", account), "ci").unwrap();
        drop(harness.service.keys().issue(new, &harness.service.actor).await.unwrap());
        let stats = harness.stats().await;
        assert_eq!((stats.sent, stats.dropped, stats.retried), expected, "{account}");
    }
}

#[test]
fn messages_lost_with_their_runtime_are_counted_as_dropped() {
    let Some(server) = smtp::start() else { return };
    let harness = EmailHarness::new(&server);
    server.freeze();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    drop(runtime.block_on(harness.service.issue()));
    runtime.shutdown_background();
    let dropped = || harness.mailer.stats().dropped == 1 && harness.mailer.stats().pending == 0;
    crate::support::servers::until("the message is counted as dropped", dropped);
    // Without a runtime, no message is started.
    harness.sink.event(&harness.service.events.all()[0]);
    assert_eq!((harness.mailer.stats().dropped, harness.mailer.stats().pending), (2, 0));
}

const MOMENT: Duration = Duration::from_millis(10);
