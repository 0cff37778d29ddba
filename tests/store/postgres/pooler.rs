//! pgbouncer in transaction mode, where two transactions of one client may use two server processes.

use std::{collections::HashSet, fs, path::Path, sync::Arc};

use keyward::{
    Timestamp,
    audit::EventKind,
    store::{ChangeFeed, FeedMode},
};

use super::{Stage, connect_store, feed::Follower, patient};
use crate::support::{
    Service,
    servers::{Scratch, User, postgres::Options, process::Process, skip, text},
};

/// A pgbouncer in front of a server, on a socket in a folder of its own.
struct Pooler(Process);

impl Pooler {
    fn start(stage: &Stage) -> Option<Self> {
        let program = Path::new("/usr/sbin/pgbouncer");
        if !program.is_file() {
            skip("pgbouncer", "apt-get install -y --no-install-recommends pgbouncer");
            return None;
        }
        let scratch = Scratch::new(User::unprivileged());
        let folder = scratch.path().to_owned();
        let settings = format!(
            "[databases]\n* = host={}\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {folder}\n\
             listen_port = 5432\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 5\n\
             ignore_startup_parameters = extra_float_digits\npidfile = {folder}/pid\n",
            text(stage.server.folder()),
            folder = text(&folder)
        );
        // With `any`, all clients become one user of the server.
        let settings = settings.replace("* = ", "* = user=keyward ");
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, settings).unwrap();
        let socket = folder.join(".s.PGSQL.5432");
        let started = Process::start(scratch, program, vec![text(&file)], |_| socket.exists());
        Some(Self(started.unwrap_or_else(|log| panic!("pgbouncer does not start:\n{log}"))))
    }

    fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&port=5432&user=keyward", text(self.0.folder()))
    }
}

/// Makes every kind of call in concurrent tasks, so that the pooler must share its connections.
async fn live(service: Arc<Service>) {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let service = service.clone();
        tasks.spawn(async move {
            let (node, by) = (&service.nodes[task % 2], &service.actor);
            let owner = crate::support::owner("acme", &format!("task-{task}"));
            for _ in 0..5 {
                let new = keyward::manage::NewKey::new(&owner, "ci").unwrap();
                let issued = node.issue(new, by).await.unwrap();
                node.verify(issued.secret.expose(), &keyward::verify::VerifyRequest::new())
                    .await
                    .unwrap();
                let change = keyward::manage::KeyChange::default().name("other").unwrap();
                node.update(&owner, issued.key.id, &change, by).await.unwrap();
                let rotation = keyward::manage::Rotation::immediate();
                let issued = node.rotate(&owner, issued.key.id, rotation, by).await.unwrap();
                node.verify(issued.secret.expose(), &keyward::verify::VerifyRequest::new())
                    .await
                    .unwrap();
                node.revoke(&owner, issued.key.id, "lost", by).await.unwrap();
                assert!(service.verify(&issued).await.is_err());
                let keys = node.list(&owner, keyward::manage::Page::first()).await.unwrap().keys;
                assert!(!keys.is_empty());
                node.flush().await.unwrap();
            }
            let revoked = keyward::AuditQuery::new(&owner).kind(EventKind::Revoked);
            assert_eq!(node.events(revoked).await.unwrap().len(), 5);
        });
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_works_through_a_transaction_pooler_and_polls_its_feed() {
    let Some(server) = Options::default().start() else { return };
    let stage = Stage::new(server).await;
    let Some(pooler) = Pooler::start(&stage) else { return };
    let options = patient().through_transaction_pooler();
    let url = pooler.url(stage.database.name());
    let stores = [connect_store(options.clone(), &url).await, connect_store(options, &url).await];
    let follower = Follower::new(Arc::new(stores[0].clone())).await;
    let nodes = stores.iter().map(|store| Arc::new(store.clone()) as _).collect();
    for _ in 0..3 {
        for store in &stores {
            store.purge_changes(Timestamp::from_unix_micros(0)).await.unwrap();
        }
    }
    live(Arc::new(Service::uncached(nodes))).await;
    let mut issued = HashSet::new();
    for _ in 0..3 {
        follower.reports(FeedMode::Polled, &stage, &mut issued).await;
    }
    follower.received(&issued).await;
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    assert_eq!(stage.sql(listening), "0", "it would disturb the next client of the connection");
}
