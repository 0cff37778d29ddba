//! A quota while the server is killed: every granted use is counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use keyward::{
    ErrorKind, VerifyError, VerifyRequest,
    model::{KeyLimits, Quota},
    verify::LimitedReason,
};
use tokio::task::JoinSet;

use super::{Stage, connect, patient, until};
use crate::support::{Service, servers::postgres::Options};

#[derive(Default)]
struct Answers {
    granted: AtomicU64,
    unknown: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_quota_is_exact_while_the_server_is_killed() {
    let server = Options::default().durable().setting("shared_buffers", "4MB").start();
    let Some(server) = server else { return };
    let Stage { mut server, database, .. } = Stage::new(server).await;
    let store = async || connect(patient(), database.url()).await;
    let service = Arc::new(Service::uncached(vec![store().await, store().await]));
    let limits = KeyLimits { quota: Some(Quota::total(QUOTA)), ..KeyLimits::default() };
    let new = service.new_key().limits(limits);
    let issued = Arc::new(service.keys().issue(new, &service.actor).await.unwrap());
    let answers = Arc::new(Answers::default());
    let mut tasks = JoinSet::new();
    for n in 0..8_usize {
        let (service, issued, answers) = (service.clone(), issued.clone(), answers.clone());
        tasks.spawn(async move {
            loop {
                let node = &service.nodes[n % 2];
                match node.verify(issued.secret.expose(), &VerifyRequest::new()).await {
                    Ok(_) => answers.granted.fetch_add(1, Ordering::SeqCst),
                    Err(VerifyError::Limited(limited)) => {
                        return assert_eq!(limited.reason, LimitedReason::Quota);
                    }
                    Err(VerifyError::Unavailable(error)) => match error.kind() {
                        ErrorKind::Unavailable => 0,
                        ErrorKind::OutcomeUnknown => answers.unknown.fetch_add(1, Ordering::SeqCst),
                        kind => panic!("{kind:?}"),
                    },
                    Err(other) => panic!("{other:?}"),
                };
            }
        });
    }
    for kill in 1..=KILLS {
        let enough = QUOTA * kill / (KILLS + 1);
        until("enough uses are granted", async || {
            (answers.granted.load(Ordering::SeqCst) >= enough).then_some(())
        })
        .await;
        server.kill();
        server.restart();
    }
    tasks.join_all().await;
    let (granted, unknown) =
        (answers.granted.load(Ordering::SeqCst), answers.unknown.load(Ordering::SeqCst));
    println!("{granted} granted, {unknown} unknown");
    assert!(granted <= QUOTA && granted + unknown >= QUOTA, "{granted} + {unknown}");
    let used = database.sql("SELECT max(used) FROM keyward_counters").unwrap();
    assert_eq!(used.parse(), Ok(QUOTA), "the whole quota is used, and no more");
}

const QUOTA: u64 = 400;
const KILLS: u64 = 8;
