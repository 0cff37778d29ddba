//! Tenants: all that have keys, in pages that cover each once.

use std::collections::BTreeMap;

use super::{
    sample::{at, digest, event, key, owner_of},
    storage::{Checked, Storage},
    suite::checks,
};
use crate::{audit::EventKind, model::Key, store::RevokeOutcome};

checks![
    each_tenant_that_has_keys_is_listed_once,
    pages_list_each_tenant_once_while_others_appear_and_disappear,
];

async fn each_tenant_that_has_keys_is_listed_once(storage: Storage) -> Checked {
    let tenants = TENANTS.map(str::to_owned).into_iter().chain([LONG.repeat(200)]);
    let mut expected: Vec<String> = tenants.collect();
    for (n, tenant) in (0..).zip(&expected) {
        for (m, account) in ["ada", "ada", "bob"].into_iter().enumerate() {
            let n = n * 10 + m as u64;
            storage.add(&key(&owner_of(tenant, account), n), &digest(n)).await?;
        }
    }
    let gone = key(&owner_of("gone", "ada"), 900);
    storage.add(&gone, &digest(900)).await?;
    remove(&storage, &gone).await?;
    let revoked = key(&owner_of("revoked", "ada"), 901);
    storage.add(&revoked, &digest(901)).await?;
    let by = event(EventKind::Revoked, &revoked, at(1));
    assert_eq!(
        storage.any().revoke((&revoked.owner).into(), revoked.id, &by).await?,
        RevokeOutcome::Revoked
    );
    expected.push("revoked".to_owned());
    expected.sort();
    for limit in [1, 4, 1_000] {
        let mut listed = Vec::new();
        loop {
            let page = storage.any().tenants(listed.last().map(String::as_str), limit).await?;
            assert!(page.len() <= limit as usize, "{} of {limit}", page.len());
            if page.is_empty() {
                break;
            }
            listed.extend(page);
            assert!(listed.len() <= expected.len(), "more than there are: {listed:?}");
        }
        listed.sort();
        assert_eq!(listed, expected, "{limit} at a time");
    }
    Ok(())
}

async fn pages_list_each_tenant_once_while_others_appear_and_disappear(
    storage: Storage,
) -> Checked {
    let mut keys = BTreeMap::new();
    for n in 0..30 {
        let tenant = format!("tenant-{n:02}");
        let key = key(&owner_of(&tenant, "ada"), n);
        storage.add(&key, &digest(n)).await?;
        keys.insert(tenant, key);
    }
    let (mut listed, mut after): (BTreeMap<String, u32>, Option<String>) = Default::default();
    for round in 100.. {
        let page = storage.any().tenants(after.as_deref(), 4).await?;
        for tenant in &page {
            *listed.entry(tenant.clone()).or_default() += 1;
        }
        after = page.into_iter().last();
        let Some(last) = &after else { break };
        assert!(round < 160, "the pages do not come to an end");
        // Where the next page is to go on from, there is nothing any more.
        if let Some(key) = keys.get(last) {
            remove(&storage, key).await?;
        }
        let fresh = key(&owner_of(&format!("tenant-{round}"), "ada"), round);
        storage.add(&fresh, &digest(round)).await?;
    }
    let missed = keys.keys().find(|tenant| listed.get(*tenant) != Some(&1));
    assert_eq!(missed, None, "it is to be on exactly one page of {listed:?}");
    let twice = listed.iter().find(|(_, times)| **times > 1);
    assert_eq!(twice, None, "a tenant was on two pages");
    Ok(())
}

async fn remove(storage: &Storage, key: &Key) -> Checked {
    let deleted = event(EventKind::Deleted, key, at(1));
    let there = storage.any().delete((&key.owner).into(), key.id, &deleted).await?;
    assert!(there, "the key is deleted");
    Ok(())
}

const TENANTS: [&str; 10] =
    ["", " ", "0", "ACME", "acme", "acme ", "acme-2", "\u{e9}", "\u{10ffff}", "'); --"];
/// As long as a tenant may be.
const LONG: &str = "\u{1f511}";
