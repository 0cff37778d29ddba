//! The settings that a server must have.

use keyward::store::{RedisOptions, StoreErrorKind};

use super::options;
use crate::support::servers::redis::{Options, Server};

/// Connects, or returns the text of the error.
async fn accepted(server: &Server, options: RedisOptions) -> Result<(), String> {
    match options.connect(&server.url()).await {
        Ok(_) => Ok(()),
        Err(error) => {
            assert_eq!(error.kind(), StoreErrorKind::Unavailable);
            Err(error.to_string())
        }
    }
}

#[tokio::test]
async fn a_server_that_evicts_is_rejected_unless_allowed() {
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let lru = Options::default().durable().setting("maxmemory-policy", policy);
        let Some(server) = lru.start() else { return };
        let rejection = accepted(&server, options()).await.unwrap_err();
        assert!(rejection.contains(policy), "{rejection}");
        assert!(rejection.contains("maxmemory-policy noeviction"), "how to fix it: {rejection}");
        assert_eq!(accepted(&server, options().danger_allow_eviction()).await, Ok(()));
        // The same if CONFIG is forbidden.
        server.call(&["ACL", "SETUSER", "default", "-config"]);
        let rejection = accepted(&server, options()).await.unwrap_err();
        assert!(rejection.contains(policy), "{rejection}");
    }
}

#[tokio::test]
async fn a_server_without_persistence_is_rejected_unless_allowed() {
    let Some(server) = Options::default().start() else { return };
    let rejection = accepted(&server, options()).await.unwrap_err();
    assert!(rejection.contains("appendonly yes"), "how to fix it: {rejection}");
    assert_eq!(accepted(&server, options().danger_allow_no_persistence()).await, Ok(()));

    server.call(&["CONFIG", "SET", "save", "900 1"]);
    assert_eq!(accepted(&server, options()).await, Ok(()), "save points are persistence");
}

#[tokio::test]
async fn a_server_that_forbids_config_is_checked_by_info() {
    let Some(server) = Options::default().start() else { return };
    server.call(&["ACL", "SETUSER", "default", "-config"]);
    let rejection = accepted(&server, options()).await.unwrap_err();
    assert!(rejection.contains("does not show"), "{rejection}");
    assert_eq!(accepted(&server, options().danger_allow_no_persistence()).await, Ok(()));

    let Some(server) = Options::default().durable().start() else { return };
    server.call(&["ACL", "SETUSER", "default", "-config"]);
    assert_eq!(accepted(&server, options()).await, Ok(()));
}

#[tokio::test]
async fn a_replica_is_rejected() {
    let Some(primary) = Options::default().durable().tcp().start() else { return };
    let Some(replica) = Options::default().durable().tcp().replica_of(&primary).start() else {
        return;
    };
    assert_eq!(accepted(&primary, options()).await, Ok(()));
    let rejection = accepted(&replica, options()).await.unwrap_err();
    assert!(rejection.contains("replica"), "{rejection}");
}

#[tokio::test]
async fn data_of_a_newer_layout_are_rejected() {
    let Some(server) = Options::default().durable().start() else { return };
    assert_eq!(accepted(&server, options()).await, Ok(()));
    assert_eq!(server.call(&["HGET", "{keyward}meta", "layout"]).text(), "1");
    server.call(&["HSET", "{keyward}meta", "layout", "2"]);
    let rejection = accepted(&server, options()).await.unwrap_err();
    assert!(rejection.contains("upgrade keyward"), "{rejection}");
    let other = options().prefix("other");
    assert_eq!(accepted(&server, other).await, Ok(()), "another store on the same server");
}
