//! The PostgreSQL store on servers of its own: outages, kills, settings, schemas and damage.

mod crowd;
mod cuts;
mod damage;
mod feed;
mod kills;
mod numbering;
mod outages;
mod pooler;
mod quotas;
mod schema;
mod settings;

use std::{sync::Arc, time::Duration};

use keyward::{KeyStore, PostgresStore, store::PostgresOptions};
use tokio::time::{Instant, timeout};

use crate::support::{
    Service,
    servers::postgres::{Database, Server},
};

/// A server with one database, and a service with two nodes. The first node has a long timeout, for
/// the steps of a test that must succeed; the second has a short one.
struct Stage {
    server: Server,
    database: Database,
    service: Service,
}

impl Stage {
    async fn new(server: Server) -> Self {
        let database = server.cluster().database();
        let patient = connect(patient(), database.url()).await;
        let hasty = connect(hasty(), database.url()).await;
        let service = Service::uncached(vec![patient, hasty]);
        Self { server, database, service }
    }

    /// Runs one statement in the database.
    fn sql(&self, statement: &str) -> String {
        self.database.sql(statement).unwrap()
    }
}

fn patient() -> PostgresOptions {
    PostgresOptions::new().timeout(DEADLINE)
}

/// No test asserts how long a call takes, only that it fails long before `ended` panics.
fn hasty() -> PostgresOptions {
    PostgresOptions::new().timeout(Duration::from_millis(300))
}

/// Retries: on a busy machine, a hasty store may time out before the server answers.
async fn connect(options: PostgresOptions, url: &str) -> Arc<dyn KeyStore> {
    Arc::new(connect_store(options, url).await)
}

async fn connect_store(options: PostgresOptions, url: &str) -> PostgresStore {
    let begun = Instant::now();
    loop {
        match options.clone().connect(url).await {
            Ok(store) => return store,
            Err(error) if begun.elapsed() > DEADLINE => panic!("{error:?}"),
            Err(_) => {}
        }
    }
}

/// Awaits a call that must end by itself.
async fn ended<T>(call: impl Future<Output = T>) -> T {
    timeout(DEADLINE, call).await.expect("the call does not end")
}

/// Repeats a call until it returns `Some`.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ended(ask()).await {
            return answer;
        }
        assert!(begun.elapsed() < DEADLINE, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const DEADLINE: Duration = Duration::from_secs(60);
