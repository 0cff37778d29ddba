//! Scripts that the server has dropped from its cache are sent again.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use keyward::manage::Rotation;

use super::{revoke, service_on};
use crate::support::servers::{
    redis::{Connection, Options},
    until,
};

#[tokio::test]
async fn a_script_that_the_server_does_not_have_is_sent_again() {
    let Some(server) = Options::default().durable().start() else { return };
    let service = service_on(server.address()).await;
    let flush = || assert_eq!(server.call(&["SCRIPT", "FLUSH"]).text(), "OK");
    flush();
    let issued = service.issue().await;
    flush();
    service.verify(&issued).await.unwrap();
    flush();
    service.keys().flush().await.unwrap();
    flush();
    let (id, rotation) = (issued.key.id, Rotation::immediate());
    let rotated =
        service.keys().rotate(&service.owner, id, rotation, &service.actor).await.unwrap();
    flush();
    service.verify(&rotated).await.unwrap();
    flush();
    revoke(&service, &rotated, "over").await.unwrap();
    flush();
    assert_eq!(service.stored(id).await.revoked.unwrap().reason, "over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_are_flushed_while_they_are_in_use() {
    let Some(server) = Options::default().durable().start() else { return };
    let service = service_on(server.address()).await;
    let done = Arc::new(AtomicBool::new(false));
    let flushing = std::thread::spawn({
        let (mut redis, done) = (Connection::open(server.address()).unwrap(), done.clone());
        move || {
            let mut flushed = 0;
            while !done.load(Ordering::Acquire) {
                redis.call(&["SCRIPT", "FLUSH"]).unwrap();
                flushed += 1;
            }
            flushed
        }
    });
    for _ in 0..50 {
        let issued = service.issue().await;
        service.verify(&issued).await.unwrap();
        revoke(&service, &issued, "over").await.unwrap();
    }
    done.store(true, Ordering::Release);
    until("the flushing ends", || flushing.is_finished());
    assert!(flushing.join().unwrap() > 0);
}
