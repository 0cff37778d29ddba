//! Names of Redis keys contain no user input and no secret.

use std::collections::BTreeSet;

use keyward::{Access, NewKey, Owner, store::StoreErrorKind};

use super::service_on;
use crate::support::servers::redis::{Options, Reply, Server};

#[tokio::test]
async fn names_of_redis_keys_contain_no_user_input() {
    let Some(server) = Options::default().durable().start() else { return };
    let service = service_on(server.address()).await;
    for words in ["}{other}", "*", "{keyward}keys", "a\r\nFLUSHALL\r\n", "%00", "\u{1}\u{202e}"] {
        let owner = Owner::new(words, words).unwrap();
        let new = NewKey::new(&owner, words).unwrap().access(Access::only(["a:b"]).unwrap());
        let issued = service.keys().issue(new, &service.actor).await.unwrap();
        service.verify(&issued).await.unwrap();
        service.keys().flush().await.unwrap();
        service.keys().revoke(&owner, issued.key.id, words, &service.actor).await.unwrap();
    }
    let suffixes = [
        "keys",
        "secrets",
        "index",
        "audit_entries",
        "audit_index",
        "changes",
        "meta",
        "counters",
        "usage",
        "codes",
        "audit",
    ];
    let allowed = BTreeSet::from(suffixes.map(|suffix| format!("{{keyward}}{suffix}")));
    let names = names(&server);
    assert!(names.len() >= 7 && names.is_subset(&allowed), "{names:?}");
}

#[tokio::test]
async fn a_prefix_that_could_leave_its_braces_is_rejected() {
    for prefix in ["", "a}", "{a", "a b", "*", "é", "\0", &"a".repeat(41)] {
        let options = keyward::store::RedisOptions::new().prefix(prefix);
        let rejected = options.connect("redis://127.0.0.1:1/").await.unwrap_err();
        assert_eq!(rejected.kind(), StoreErrorKind::Configuration, "{prefix:?}");
    }
}

fn names(server: &Server) -> BTreeSet<String> {
    let Reply::Array(names) = server.call(&["KEYS", "*"]) else { panic!("KEYS lists names") };
    names.iter().map(|name| name.text().to_owned()).collect()
}
