//! The conformance of every store, and sabotaged stores that prove that the suite detects violations.

mod causes;
mod conformance;
mod documents;
// The page of the manual shows it.
#[path = "../../src/manual/json_store.rs"]
mod json_store;
mod kv;
mod owned;
mod partial;
mod postgres;
mod redis;
pub mod sabotage;
mod sqlite;
mod worked_example;

use keyward::{Actor, ApiKeys, ErrorKind, KeyId, Owner, manage::Page};

/// Checks that a damaged key is listed as such, and that it spoils no other key: neither of its page, whatever the limit
/// is, nor of a revocation of all.
async fn spoils_no_other_key(
    keys: &ApiKeys,
    of: &Owner,
    damaged: KeyId,
    others: &[KeyId],
    damage: &str,
) {
    for limit in 1..=4 {
        let (mut readable, mut unreadable, mut page) = (vec![], vec![], Page::first().limit(limit));
        loop {
            let listed = keys.list(of, page).await.expect(damage);
            assert!(listed.keys.len() + listed.damaged.len() <= limit as usize);
            readable.extend(listed.keys.iter().map(|key| key.id));
            unreadable.extend(listed.damaged);
            let Some(next) = listed.next else { break };
            page = page.after(next);
        }
        readable.sort();
        assert_eq!(
            (readable.as_slice(), unreadable.as_slice()),
            (others, &[damaged][..]),
            "{damage}"
        );
    }
    assert_eq!(
        keys.get(of, damaged).await.expect_err(damage).kind(),
        ErrorKind::Corrupt,
        "{damage}"
    );

    let revoked = keys.revoke_all(of, "incident", &Actor::system("test")).await.expect(damage);
    for other in others {
        assert!(revoked.contains(other), "{damage}");
        assert!(keys.get(of, *other).await.unwrap().revoked.is_some(), "{damage}");
    }
    // It is revoked as well, or as unreadable as before.
    match keys.get(of, damaged).await {
        Ok(key) => assert!(revoked.contains(&damaged) && key.revoked.is_some(), "{damage}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage}"),
    }
}
