//! Names of Redis keys: nothing that a user chooses is part of any, and nothing secret.

use std::collections::BTreeSet;

use keyward::{Access, NewKey, Owner};

use super::service_on;
use crate::support::servers::redis::{Options, Reply, Server};

#[tokio::test]
async fn nothing_that_a_user_chooses_is_part_of_the_name_of_a_redis_key() {
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
    let rooms = [
        "keys", "secrets", "index", "events", "log", "changes", "meta", "quotas", "tallies",
        "codes", "audit",
    ];
    let wanted = BTreeSet::from(rooms.map(|room| format!("{{keyward}}{room}")));
    let names = names(&server);
    assert!(names.len() >= 7 && names.is_subset(&wanted), "{names:?}");
}

#[tokio::test]
async fn a_prefix_that_could_leave_its_braces_is_refused() {
    for prefix in ["", "a}", "{a", "a b", "*", "é", "\0", &"a".repeat(41)] {
        assert!(keyward::store::RedisOptions::new().prefix(prefix).is_err(), "{prefix:?}");
    }
}

fn names(server: &Server) -> BTreeSet<String> {
    let Reply::Array(names) = server.call(&["KEYS", "*"]) else { panic!("KEYS lists names") };
    names.iter().map(|name| name.text().to_owned()).collect()
}
