//! During an outage calls are *unavailable*, never *denied*, and the store recovers without a restart.

use std::{fs, path::Path, process::Command, sync::Arc};

use keyward::{
    ApiKeys, ErrorKind, VerifyError, VerifyRequest,
    manage::{Issued, Page},
    verify::FeedState,
};
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;

use super::{DEADLINE, Stage, connect, ended, hasty, patient, until};
use crate::support::{
    Service, format,
    servers::{User, postgres::Options},
};

impl Stage {
    /// Checks that the hasty node reports *unavailable*. There are more calls than connections, so some
    /// calls get none.
    async fn is_unavailable(&self, issued: &Issued) {
        let mut tasks = JoinSet::new();
        for _ in 0..30 {
            let (node, secret) = (self.service.nodes[1].clone(), issued.secret.expose().to_owned());
            tasks.spawn(async move { node.verify(&secret, &VerifyRequest::new()).await });
        }
        for answer in ended(tasks.join_all()).await {
            assert!(matches!(answer, Err(VerifyError::Unavailable(_))), "{answer:?}");
        }
        let list = ended(self.service.nodes[1].list(&self.service.owner, Page::first())).await;
        assert!(list.unwrap_err().is_unavailable());
        self.changes_are_unavailable(issued).await;
    }

    async fn changes_are_unavailable(&self, issued: &Issued) {
        let Service { owner, actor, nodes, .. } = &self.service;
        let made = ended(nodes[1].issue(self.service.new_key(), actor)).await;
        assert!(made.unwrap_err().is_unavailable());
        let revoked = ended(nodes[1].revoke(owner, issued.key.id, "lost", actor)).await;
        assert!(revoked.unwrap_err().is_unavailable());
    }

    /// Checks that the node recovers, and that no unavailable change was made after all.
    async fn recovers(&self, issued: &Issued) {
        let Service { owner, actor, nodes, .. } = &self.service;
        until("a key verifies again", async || {
            match nodes[1].verify(issued.secret.expose(), &VerifyRequest::new()).await {
                Ok(_) => Some(()),
                Err(VerifyError::Unavailable(_)) => None,
                Err(other) => panic!("{other:?}"),
            }
        })
        .await;
        until("a key is revoked", async || {
            match nodes[1].revoke(owner, issued.key.id, "lost", actor).await {
                Ok(()) => Some(()),
                Err(error) if error.kind() == ErrorKind::Unavailable => None,
                // On a busy machine, a commit may take longer than this node's timeout.
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => None,
                Err(other) => panic!("{other:?}"),
            }
        })
        .await;
        let keys = nodes[0].list(owner, Page::first()).await.unwrap().keys;
        assert_eq!(keys.len(), 1, "no key was issued during the outage");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_is_killed_is_unavailable_and_comes_back() {
    let Some(server) = Options::default().start() else { return };
    let mut stage = Stage::new(server).await;
    let issued = stage.service.issue().await;
    stage.server.kill();
    stage.is_unavailable(&issued).await;
    stage.server.restart();
    stage.recovers(&issued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_is_stopped_is_unavailable_and_comes_back() {
    let Some(server) = Options::default().start() else { return };
    let mut stage = Stage::new(server).await;
    let issued = stage.service.issue().await;
    stage.server.stop();
    stage.is_unavailable(&issued).await;
    stage.server.restart();
    stage.recovers(&issued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_is_frozen_is_unavailable_and_comes_back() {
    let Some(server) = Options::default().start() else { return };
    let stage = Stage::new(server).await;
    let issued = stage.service.issue().await;
    stage.server.freeze();
    stage.is_unavailable(&issued).await;
    stage.server.thaw();
    stage.recovers(&issued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_with_a_frozen_database_ends_and_reports_what_is_not_written() {
    let Some(server) = Options::default().start() else { return };
    let stage = Stage::new(server).await;
    let issued = stage.service.issue().await;
    let node = &stage.service.nodes[1];
    until("a key verifies", async || {
        node.verify(issued.secret.expose(), &VerifyRequest::new()).await.ok()
    })
    .await;
    stage.server.freeze();
    let error = ended(node.shutdown()).await.unwrap_err();
    assert!(error.is_unavailable() || error.kind() == ErrorKind::OutcomeUnknown, "{error:?}");
    // The first use may have been written before.
    for text in ["Not written: the last uses of ", " keys, 1 hourly counts and 0 events"] {
        assert!(error.to_string().contains(text), "{error}");
    }
    stage.server.thaw();
    until("it is repeated", async || node.shutdown().await.ok()).await;
    let key = stage.service.nodes[0].get(&stage.service.owner, issued.key.id).await.unwrap();
    assert!(key.last_used_at.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_hang_forever_do_not_exhaust_the_pool() {
    let Some(server) = Options::default().start() else { return };
    let mut stage = Stage::new(server).await;
    let url = stage.database.url();
    let handles = vec![connect(patient(), url).await, connect(hasty().connections(2), url).await];
    stage.service = Service::uncached(handles);
    let issued = stage.service.issue().await;
    // All of the store's connections; the server itself still accepts new ones.
    let pids = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' \
        AND pid <> pg_backend_pid()";
    let mut hung = Vec::new();
    let verify = async || {
        let node = &stage.service.nodes[1];
        node.verify(issued.secret.expose(), &VerifyRequest::new()).await.ok()
    };
    for _ in 0..4 {
        until("it verifies on another connection", verify).await;
        for pid in stage.sql(pids).lines().map(str::to_owned) {
            signal("STOP", &pid);
            hung.push(pid);
        }
    }
    until("it verifies although all of them hang", verify).await;
    assert!(hung.len() > 2, "more than the pool may have");
    hung.iter().for_each(|pid| signal("CONT", pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_pool_without_a_free_connection_keys_verify_and_changes_are_unavailable() {
    let Some(server) = Options::default().start() else { return };
    let mut stage = Stage::new(server).await;
    let issued = stage.service.issue().await;
    // The service's own pool, which would wait much longer.
    let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(10 * DEADLINE);
    let pool = pool.connect(stage.database.url()).await.unwrap();
    let store = hasty().with_pool(pool.clone()).await.unwrap();
    let patient = connect(patient(), stage.database.url()).await;
    stage.service = Service::uncached(vec![patient, Arc::new(store)]);
    let held = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    stage.changes_are_unavailable(&issued).await;
    let verify = async || {
        let node = &stage.service.nodes[1];
        node.verify(issued.secret.expose(), &VerifyRequest::new()).await.ok()
    };
    until("a key verifies", verify).await;
    drop(held);
    stage.recovers(&issued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_locked_are_unavailable_and_come_back() {
    let Some(server) = Options::default().start() else { return };
    let stage = Stage::new(server).await;
    let issued = stage.service.issue().await;
    let pool = PgPoolOptions::new().connect(stage.database.url()).await.unwrap();
    let mut other = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE keyward_keys").execute(&mut *other).await.unwrap();
    stage.is_unavailable(&issued).await;
    other.rollback().await.unwrap();
    stage.recovers(&issued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_read_only_server_keys_verify_and_changes_are_unavailable() {
    let Some(server) = Options::default().start() else { return };
    let stage = Stage::new(server).await;
    let issued = stage.service.issue().await;
    stage.sql("ALTER SYSTEM SET default_transaction_read_only = on");
    stage.sql("SELECT pg_reload_conf()");
    until("the server is read-only", async || {
        (stage.sql("SHOW default_transaction_read_only") == "on").then_some(())
    })
    .await;
    stage.changes_are_unavailable(&issued).await;
    until("a key verifies", async || {
        match stage.service.nodes[1].verify(issued.secret.expose(), &VerifyRequest::new()).await {
            Ok(_) => Some(()),
            Err(VerifyError::Unavailable(_)) => None,
            Err(other) => panic!("{other:?}"),
        }
    })
    .await;
    stage.sql("ALTER SYSTEM RESET ALL");
    stage.sql("SELECT pg_reload_conf()");
    stage.recovers(&issued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_unavailable_until_it_is_promoted() {
    let Some(server) = Options::default().start() else { return };
    let mut stage = Stage::new(server).await;
    let issued = stage.service.issue().await;
    let store = connect(patient(), stage.database.url()).await;
    let caching = ApiKeys::builder_on(store, format()).build();
    let verify = async || caching.verify(issued.secret.expose(), &VerifyRequest::new()).await;
    verify().await.unwrap();
    until("changes are pushed", async || {
        (caching.health().feed == FeedState::Pushed).then_some(())
    })
    .await;
    // Read after the feed was, and its first use is written.
    verify().await.unwrap();
    caching.flush().await.unwrap();
    stage.server.stop();
    fs::write(stage.server.folder().join("data/standby.signal"), "").unwrap();
    stage.server.restart();
    let standby = "SELECT pg_is_in_recovery()";
    assert_eq!(stage.sql(standby), "t");
    let mut tasks = JoinSet::new();
    for _ in 0..30 {
        let (node, secret) = (stage.service.nodes[0].clone(), issued.secret.expose().to_owned());
        tasks.spawn(async move { node.verify(&secret, &VerifyRequest::new()).await });
    }
    for answer in ended(tasks.join_all()).await {
        assert!(matches!(answer, Err(VerifyError::Unavailable(_))), "{answer:?}");
    }
    stage.changes_are_unavailable(&issued).await;
    // A standby may lag, so what it does not report may have changed.
    until("a cached key is not trusted any more", async || match verify().await {
        Ok(_) => None,
        Err(VerifyError::Unavailable(_)) => Some(()),
        Err(other) => panic!("{other:?}"),
    })
    .await;
    stage.sql("SELECT pg_promote()");
    stage.recovers(&issued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_is_unavailable_for_changes_and_comes_back() {
    let Some(server) = Options::default().start() else { return };
    let mut stage = Stage::new(server).await;
    let issued = stage.service.issue().await;
    // No file may grow beyond this size. The table of the audit log reaches it; the files of the
    // write-ahead log, which always have 16 MiB, do not.
    stage.sql(
        "INSERT INTO keyward_audit SELECT gen_random_uuid(), 0, 'updated', true, repeat('x', 100), \
         NULL, NULL, repeat('x', 100), NULL, NULL, NULL, 1 FROM generate_series(1, 60000)",
    );
    // Every new row needs a new page.
    stage.sql("ALTER TABLE keyward_audit SET (fillfactor = 10)");
    let size: u64 = stage.sql("SELECT pg_relation_size('keyward_audit')").parse().unwrap();
    assert!(size > FULL, "{size}");
    let limit = |bytes: &str| {
        let mut prlimit = User::unprivileged().command(Path::new("prlimit"));
        prlimit.arg(format!("--pid={}", stage.server.pid())).arg(format!("--fsize={bytes}:"));
        assert!(prlimit.status().unwrap().success());
    };
    limit(&FULL.to_string());
    // New connections inherit the limit.
    let handles = vec![
        connect(patient(), stage.database.url()).await,
        connect(hasty().timeout(DEADLINE / 2), stage.database.url()).await,
    ];
    stage.service = Service::uncached(handles);
    stage.changes_are_unavailable(&issued).await;
    assert!(stage.service.verify(&issued).await.is_ok(), "existing keys can be read");
    limit("unlimited");
    stage.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    );
    stage.recovers(&issued).await;
}

pub fn signal(name: &str, pid: &str) {
    // A process that has just ended needs no signal.
    let _ = Command::new("kill").args(["-s", name, pid]).output().unwrap();
}

const FULL: u64 = (16 << 20) + 4096;
