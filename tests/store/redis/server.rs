//! Which servers are fit to hold keys.

use keyward::store::{RedisOptions, StoreErrorKind};

use super::{options, whole};
use crate::support::servers::redis::{Options, Server};

/// Whether a server is taken, and what is said if it is not.
async fn taken(server: &Server, options: RedisOptions) -> Result<(), String> {
    match options.connect(&server.url()).await {
        Ok(_) => Ok(()),
        Err(error) => {
            assert_eq!(error.kind(), StoreErrorKind::Unavailable);
            Err(whole(&error))
        }
    }
}

#[tokio::test]
async fn a_server_that_evicts_is_refused_unless_that_is_allowed() {
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let lru = Options::default().durable().setting("maxmemory-policy", policy);
        let Some(server) = lru.start() else { return };
        let refusal = taken(&server, options()).await.unwrap_err();
        assert!(refusal.contains(policy), "{refusal}");
        assert!(refusal.contains("maxmemory-policy noeviction"), "how to fix it: {refusal}");
        assert_eq!(taken(&server, options().danger_allow_eviction()).await, Ok(()));
        // Also where the settings are hidden.
        server.call(&["ACL", "SETUSER", "default", "-config"]);
        let refusal = taken(&server, options()).await.unwrap_err();
        assert!(refusal.contains(policy), "{refusal}");
    }
}

#[tokio::test]
async fn a_server_that_keeps_nothing_is_refused_unless_that_is_allowed() {
    let Some(server) = Options::default().start() else { return };
    let refusal = taken(&server, options()).await.unwrap_err();
    assert!(refusal.contains("appendonly yes"), "how to fix it: {refusal}");
    assert_eq!(taken(&server, options().danger_allow_no_persistence()).await, Ok(()));

    server.call(&["CONFIG", "SET", "save", "900 1"]);
    assert_eq!(taken(&server, options()).await, Ok(()), "save points are persistence");
}

#[tokio::test]
async fn a_server_that_hides_its_settings_is_judged_by_what_it_shows() {
    let Some(server) = Options::default().start() else { return };
    server.call(&["ACL", "SETUSER", "default", "-config"]);
    let refusal = taken(&server, options()).await.unwrap_err();
    assert!(refusal.contains("does not show"), "{refusal}");
    assert_eq!(taken(&server, options().danger_allow_no_persistence()).await, Ok(()));

    let Some(server) = Options::default().durable().start() else { return };
    server.call(&["ACL", "SETUSER", "default", "-config"]);
    assert_eq!(taken(&server, options()).await, Ok(()));
}

#[tokio::test]
async fn a_replica_is_refused() {
    let Some(primary) = Options::default().durable().tcp().start() else { return };
    let Some(replica) = Options::default().durable().tcp().replica_of(&primary).start() else {
        return;
    };
    assert_eq!(taken(&primary, options()).await, Ok(()));
    let refusal = taken(&replica, options()).await.unwrap_err();
    assert!(refusal.contains("replica"), "{refusal}");
}

#[tokio::test]
async fn data_of_a_newer_layout_are_refused() {
    let Some(server) = Options::default().durable().start() else { return };
    assert_eq!(taken(&server, options()).await, Ok(()));
    assert_eq!(server.call(&["HGET", "{keyward}meta", "layout"]).text(), "1");
    server.call(&["HSET", "{keyward}meta", "layout", "2"]);
    let refusal = taken(&server, options()).await.unwrap_err();
    assert!(refusal.contains("upgrade keyward"), "{refusal}");
    let other = options().prefix("other").unwrap();
    assert_eq!(taken(&server, other).await, Ok(()), "another store on the same server");
}
