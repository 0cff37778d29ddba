//! Lists: newest first, filtered as the key itself says, in pages that cover everything once.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    sample::{Dice, at, digest, every, just_before, key, owner, owner_of, revocation},
    storage::{Checked, Storage},
    suite::checks,
};
use crate::{
    model::{Key, KeyId, Owner, OwnerScope, Status},
    store::{KeyQuery, StoreError},
};

checks![
    keys_are_listed_newest_first_up_to_the_limit,
    a_status_filter_agrees_with_key_status,
    pages_list_each_key_once_while_keys_are_added,
];

async fn keys_are_listed_newest_first_up_to_the_limit(storage: Storage) -> Checked {
    let ada = owner(1);
    let mut numbers: Vec<u64> = (1..=30).collect();
    Dice(1).shuffle(&mut numbers);
    for n in numbers {
        // When a key was issued does not tell where it stands: its id does.
        let key = Key { created_at: at(30 - n), ..key(&ada, n) };
        storage.add(&key, &digest(n)).await?;
    }
    for within in [OwnerScope::Owner(&ada), OwnerScope::Tenant(ada.tenant())] {
        let newest: Vec<KeyId> = (1..=30).rev().map(|n| key(&ada, n).id).collect();
        for limit in [1_000, 30, 29, 1] {
            let page = storage.any().list(&KeyQuery { limit, ..every(within) }).await?;
            assert_eq!(ids(&page), newest[..newest.len().min(limit as usize)], "limit {limit}");
        }
        let after = Some(newest[9]);
        let page = storage.any().list(&KeyQuery { after, limit: 5, ..every(within) }).await?;
        assert_eq!(ids(&page), newest[10..15], "five keys behind the tenth");
    }
    Ok(())
}

async fn a_status_filter_agrees_with_key_status(storage: Storage) -> Checked {
    let ada = owner(1);
    let mut stored = Vec::new();
    let expiries = [None, Some(at(10)), Some(at(20))];
    for (i, expires_at) in (0..).zip(expiries.repeat(4)) {
        let disabled_at = (i / 3 % 2 == 1).then(|| at(5));
        let key = Key { expires_at, disabled_at, ..key(&ada, i) };
        storage.add(&key, &digest(i)).await?;
        if i >= 6 {
            let by = revocation(&key, at(6), "");
            let _now = storage.any().revoke((&ada).into(), key.id, &by).await?;
        }
        stored.push(storage.key(&key).await?);
    }
    let instants = [at(0), just_before(at(10)), at(10), at(15), at(20), at(99)];
    let statuses = [Status::Active, Status::Disabled, Status::Expired, Status::Revoked];
    for now in instants {
        for status in statuses {
            for within in [OwnerScope::Owner(&ada), OwnerScope::Tenant(ada.tenant())] {
                let wanted = stored.iter().rev().filter(|key| key.status(now) == status);
                let wanted: Vec<KeyId> = wanted.map(|key| key.id).collect();
                let query = KeyQuery { status: Some(status), now, ..every(within) };
                let listed = storage.any().list(&query).await?;
                assert_eq!(ids(&listed), wanted, "{status:?} at {now}");
                let listed = storage.any().list(&KeyQuery { limit: 2, ..query }).await?;
                assert_eq!(ids(&listed), wanted[..wanted.len().min(2)], "two {status:?} at {now}");
            }
        }
    }
    Ok(())
}

async fn pages_list_each_key_once_while_keys_are_added(storage: Storage) -> Checked {
    let (ada, other) = (owner(1), owner_of("other", "account-1"));
    for n in 100..130 {
        storage.add(&key(if n % 3 == 0 { &other } else { &ada }, n), &digest(n)).await?;
    }
    for (within, fresh) in [(OwnerScope::Owner(&ada), 200), (OwnerScope::Tenant(ada.tenant()), 300)]
    {
        let before = ids(&storage.keys(within).await?);
        let covered = page_through(&storage, within, &ada, fresh).await?;
        let missed = before.iter().find(|id| covered.get(id) != Some(&1));
        assert_eq!(missed, None, "it is to be on exactly one page of {covered:?}");
        let twice = covered.iter().find(|(_, times)| **times > 1);
        assert_eq!(twice, None, "a key was on two pages");
    }
    Ok(())
}

/// How often each key was on a page, with a younger key added before each next page.
async fn page_through(
    storage: &Storage,
    within: OwnerScope<'_>,
    owner: &Owner,
    fresh: u64,
) -> Result<BTreeMap<KeyId, u32>, StoreError> {
    let mut covered = BTreeMap::new();
    let mut after = None;
    for n in fresh.. {
        let page = storage.any().list(&KeyQuery { after, limit: 4, ..every(within) }).await?;
        for id in ids(&page) {
            *covered.entry(id).or_default() += 1;
        }
        let Some(last) = page.last() else { break };
        assert!(n < fresh + 50, "the pages do not come to an end");
        after = Some(last.id);
        storage.add(&key(owner, n), &digest(n)).await?;
    }
    Ok(covered)
}

fn ids(keys: &[Arc<Key>]) -> Vec<KeyId> {
    keys.iter().map(|key| key.id).collect()
}
