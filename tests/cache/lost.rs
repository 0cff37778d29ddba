//! Changes that are made although their answer is lost, and look-ups while they are under way.

use std::sync::Arc;

use keyward::{
    Access, ErrorKind, Hasher as _, Sha256Hasher, VerifyError, VerifyRequest,
    manage::{Issued, KeyChange, Rotation},
};

use super::faulty_store::{Fault, FaultyStore};
use crate::support::{Service, format, stores};

/// One node whose feed fails: what it does not invalidate itself stays in its cache.
fn one_node() -> (Arc<Service>, FaultyStore) {
    let store = FaultyStore::new(stores::memory().remove(0));
    store.set_feed_fault(Fault::Unavailable);
    (Arc::new(Service::new(vec![Arc::new(store.clone())])), store)
}

async fn says(service: &Service, secret: &str) -> &'static str {
    match service.keys().verify(secret, &VerifyRequest::new().require(&["a"])).await {
        Ok(_) => "ok",
        Err(VerifyError::Denied(denied)) => denied.reason().as_str(),
        Err(other) => panic!("{other}"),
    }
}

const CHANGES: [(&str, &str); 6] = [
    ("revoke", "revoked"),
    ("revoke_all", "revoked"),
    ("rotate", "secret_retired"),
    ("disable", "disabled"),
    ("narrow", "access_missing"),
    ("delete", "unknown"),
];

async fn make(service: &Service, change: &str, issued: &Issued) -> ErrorKind {
    let (keys, ada, by, id) = (service.keys(), &service.owner, &service.actor, issued.key.id);
    let made = match change {
        "revoke" => keys.revoke(ada, id, "", by).await,
        "revoke_all" => keys.revoke_all(ada, "", by).await.map(drop),
        "rotate" => keys.rotate(ada, id, Rotation::immediate(), by).await.map(drop),
        "disable" => keys.disable(ada, id, by).await.map(drop),
        "narrow" => {
            let change = KeyChange::default().access(Access::only(["b"]).unwrap());
            keys.update(ada, id, &change, by).await.map(drop)
        }
        "delete" => keys.delete(ada, id, by).await,
        other => panic!("no change is called {other}"),
    };
    made.expect_err("its answer is lost").kind()
}

#[tokio::test]
async fn a_key_read_during_a_change_whose_answer_is_lost_is_read_again_afterwards() {
    for (change, expected) in CHANGES {
        let (service, store) = one_node();
        let issued = Arc::new(service.issue_with(Access::only(["a", "b"]).unwrap()).await);
        let secret = issued.secret.expose();
        assert_eq!(says(&service, secret).await, "ok");
        service.keys().flush().await.unwrap();
        let asked = store.finds();
        assert_eq!(says(&service, secret).await, "ok");
        assert_eq!(store.finds(), asked, "it is cached");

        store.set_change_fault(Fault::AnswerLost);
        store.hold_changes();
        let changing = tokio::spawn({
            let (service, issued) = (service.clone(), issued.clone());
            async move { make(&service, change, &issued).await }
        });
        // The key is invalidated before the write, and is read and cached again before it is written.
        while store.finds() == asked {
            assert_eq!(says(&service, secret).await, "ok");
            tokio::task::yield_now().await;
        }
        store.release_changes(1);
        assert_eq!(changing.await.unwrap(), ErrorKind::OutcomeUnknown, "{change}");
        assert_eq!(says(&service, secret).await, expected, "{change}");
    }
}

#[tokio::test]
async fn an_import_whose_answer_is_lost_is_found_although_its_secret_was_unknown() {
    for looked_up_meanwhile in [false, true] {
        let (service, store) = one_node();
        let secret = format().generate().unwrap();
        let text = secret.expose().to_owned();
        for _ in 0..2 {
            assert_eq!(says(&service, &text).await, "unknown");
        }
        let asked = store.finds();
        assert_eq!(says(&service, &text).await, "unknown");
        assert_eq!(store.finds(), asked, "that there is none is cached");

        store.set_change_fault(Fault::AnswerLost);
        store.hold_changes();
        let importing = tokio::spawn({
            let service = service.clone();
            let digest = Sha256Hasher.digest(text.as_bytes());
            async move {
                let keys = service.keys();
                keys.import(service.new_key(), digest, "lc_live_", &service.actor).await
            }
        });
        if looked_up_meanwhile {
            while store.finds() == asked {
                assert_eq!(says(&service, &text).await, "unknown");
                tokio::task::yield_now().await;
            }
        }
        store.release_changes(1);
        let lost = importing.await.unwrap().unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::OutcomeUnknown);
        assert_eq!(says(&service, &text).await, "ok", "meanwhile: {looked_up_meanwhile}");
    }
}
