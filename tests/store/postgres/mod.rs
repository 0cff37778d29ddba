//! What PostgreSQL, its connections and its settings can do to a store, on servers of their own.

mod cuts;
mod damage;
mod feed;
mod kills;
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

/// A server of its own with one database, and a service with two nodes: the first one is patient,
/// for what a test needs to be done, and the second one gives up soon.
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

    /// Of one statement in its database.
    fn sql(&self, statement: &str) -> String {
        self.database.sql(statement).unwrap()
    }
}

fn patient() -> PostgresOptions {
    PostgresOptions::new().timeout(DEADLINE)
}

/// No test asserts how long a call takes: only that it gives up long before `ended` does.
fn hasty() -> PostgresOptions {
    PostgresOptions::new().timeout(Duration::from_millis(300))
}

/// Also on a machine so busy that a hasty store gives up before the server has answered.
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

/// The answer of a call that has to end by itself.
async fn ended<T>(call: impl Future<Output = T>) -> T {
    timeout(DEADLINE, call).await.expect("the call does not end")
}

/// Asks again and again, until the answer is the one that is waited for.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ended(ask()).await {
            return answer;
        }
        assert!(begun.elapsed() < DEADLINE, "this never was so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const DEADLINE: Duration = Duration::from_secs(60);
