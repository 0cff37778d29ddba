use std::time::Duration;

use keyward::AuditSink;

use super::support::World;
use crate::support::{owner, servers::smtp};

#[tokio::test]
async fn a_mail_server_that_is_gone_delays_nothing_and_the_letter_comes_when_it_is_back() {
    let Some(mut server) = smtp::start() else { return };
    let world =
        World::with(&server, |mailer| mailer.max_attempts(1_000).retry_delay(MOMENT), |sink| sink);
    server.kill();
    drop(world.service.issue().await);
    assert_eq!(world.mailer.stats().sent, 0, "issued, and nothing sent");
    world.eventually("it is tried again", |letters| letters.retried > 1).await;
    server.restart();
    let letters = world.stats().await;
    assert_eq!((letters.sent, letters.dropped, letters.pending), (1, 0, 0));
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn what_is_given_up_is_counted_and_what_comes_later_is_sent() {
    let Some(mut server) = smtp::start() else { return };
    let world =
        World::with(&server, |mailer| mailer.max_attempts(3).retry_delay(MOMENT), |sink| sink);
    server.kill();
    drop(world.service.issue().await);
    let letters = world.stats().await;
    assert_eq!((letters.sent, letters.dropped, letters.retried), (0, 1, 2));
    server.restart();
    drop(world.service.issue().await);
    assert_eq!(world.stats().await.sent, 1);
}

#[tokio::test]
async fn a_frozen_mail_server_delays_nothing_and_only_so_many_letters_wait() {
    let Some(server) = smtp::start() else { return };
    let patient = |mailer: keyward::email::MailerBuilder| {
        mailer.max_attempts(2).retry_delay(MOMENT).max_pending(3)
    };
    let world = World::with(&server, patient, |sink| sink);
    server.freeze();
    for _ in 0..10 {
        drop(world.service.issue().await);
    }
    // All are issued while the first letters are still on their way.
    let letters = world.mailer.stats();
    assert_eq!((letters.sent, letters.pending, letters.dropped), (0, 3, 7));
    server.thaw();
    let letters = world.stats().await;
    assert_eq!((letters.sent, letters.dropped), (3, 7));
}

#[tokio::test]
async fn who_never_answers_is_given_up() {
    let Some(server) = smtp::start() else { return };
    let hasty = |mailer: keyward::email::MailerBuilder| {
        mailer.max_attempts(2).retry_delay(MOMENT).timeout(MOMENT * 20)
    };
    let world = World::with(&server, hasty, |sink| sink);
    server.freeze();
    drop(world.service.issue().await);
    let letters = world.stats().await;
    assert_eq!((letters.sent, letters.dropped, letters.retried), (0, 1, 1));
    server.thaw();
    let sent = |letters: keyward::email::MailerStats| letters.sent > 0;
    // It may be busy with those that it was too slow for.
    crate::support::servers::eventually("letters go out again", async || {
        drop(world.service.issue().await);
        world.mailer.flush().await;
        sent(world.mailer.stats())
    })
    .await;
}

#[tokio::test]
async fn a_letter_refused_for_now_is_tried_again_and_one_refused_for_good_is_not() {
    let Some(server) = smtp::start() else { return };
    let world = World::with(&server, |mailer| mailer.retry_delay(MOMENT), |sink| sink);
    for (account, told) in [("busy", (1, 0, 1)), ("nobody", (1, 1, 1))] {
        let new = keyward::manage::NewKey::new(&owner("acme", account), "ci").unwrap();
        drop(world.service.keys().issue(new, &world.service.actor).await.unwrap());
        let letters = world.stats().await;
        assert_eq!((letters.sent, letters.dropped, letters.retried), told, "{account}");
    }
}

#[test]
fn letters_that_a_runtime_takes_with_it_are_counted_as_lost() {
    let Some(server) = smtp::start() else { return };
    let world = World::new(&server);
    server.freeze();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    drop(runtime.block_on(world.service.issue()));
    runtime.shutdown_background();
    let lost = || world.mailer.stats().dropped == 1 && world.mailer.stats().pending == 0;
    crate::support::servers::until("it is counted", lost);
    // Outside of any, none is even begun.
    world.sink.event(&world.service.events.all()[0]);
    assert_eq!((world.mailer.stats().dropped, world.mailer.stats().pending), (2, 0));
}

const MOMENT: Duration = Duration::from_millis(10);
