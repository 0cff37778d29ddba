//! Rehashing: a secret moves to the digest of another hasher, and nothing else happens.

use super::{
    sample::{at, digest, key, owner},
    storage::{Checked, Storage, race},
    suite::checks,
    view::Watch,
};
use crate::{
    secret::{HasherTag, SecretDigest},
    store::{PreviousSecret, StoreError},
};

checks![
    a_rehash_replaces_one_digest_and_changes_nothing_else,
    a_rehash_from_a_missing_or_to_an_existing_digest_changes_nothing,
    racing_rehashes_of_one_secret_have_one_winner,
];

async fn a_rehash_replaces_one_digest_and_changes_nothing_else(storage: Storage) -> Checked {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    storage.rotate(&issued, &digest(2), PreviousSecret::EndsAt(at(50))).await?;
    let watch = Watch::begin(&storage, "acme", []).await?;
    let before = watch.look().await?;

    let (former, current) = (peppered(1), peppered(2));
    assert!(storage.any().rehash(&digest(1), &former).await?, "of the former secret");
    assert!(storage.any().rehash(&digest(2), &current).await?, "of the current secret");
    assert_eq!(storage.holder(&digest(1)).await?, None, "under the digest before");
    assert_eq!(storage.holder(&digest(2)).await?, None, "under the digest before");
    assert_eq!(storage.holder(&former).await?, Some((issued.id, Some(at(50)))), "the former");
    assert_eq!(storage.holder(&current).await?, Some((issued.id, None)), "the current secret");
    assert_eq!(watch.look().await?, before, "a rehash changed a key, the log or the feed");

    // What was freed is free, and what moved is where a rotation looks for it.
    storage.add(&key(&owner(1), 2), &digest(2)).await?;
    let rotated = storage.key(&issued).await?;
    storage.rotate(&rotated, &digest(3), PreviousSecret::EndsAt(at(70))).await?;
    assert_eq!(storage.holder(&former).await?, None, "two rotations ago");
    assert_eq!(storage.holder(&current).await?, Some((issued.id, Some(at(70)))));
    Ok(())
}

async fn a_rehash_from_a_missing_or_to_an_existing_digest_changes_nothing(
    storage: Storage,
) -> Checked {
    let (mine, other) = (key(&owner(1), 1), key(&owner(2), 2));
    storage.add(&mine, &digest(1)).await?;
    storage.rotate(&mine, &digest(2), PreviousSecret::EndsAt(at(50))).await?;
    storage.add(&other, &digest(3)).await?;
    let digests = (1..=3).map(digest).chain([peppered(1)]);
    let watch = Watch::begin(&storage, "acme", digests).await?;
    let before = watch.look().await?;
    let cases = [
        ("to another key's secret", digest(2), digest(3)),
        ("to the key's own former secret", digest(2), digest(1)),
        ("of the former to the current secret", digest(1), digest(2)),
        ("of a secret that is gone", digest(9), peppered(1)),
    ];
    for (what, from, to) in cases {
        assert!(!storage.any().rehash(&from, &to).await?, "a rehash {what}");
        assert_eq!(watch.look().await?, before, "after a rehash {what}");
    }
    Ok(())
}

async fn racing_rehashes_of_one_secret_have_one_winner(storage: Storage) -> Checked {
    for round in storage.rounds() {
        let issued = key(&owner(1), round);
        storage.add(&issued, &digest(round)).await?;
        let to = |task| peppered(round * 1_000 + task);
        let answers = race(6, |task| {
            let (store, to) = (storage.any(), to(task));
            async move { store.rehash(&digest(round), &to).await }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<bool>, StoreError>>()?;
        assert_eq!(answers.iter().filter(|won| **won).count(), 1, "rehashes that won");
        for (task, won) in (0..).zip(answers) {
            let holder = storage.holder(&to(task)).await?;
            assert_eq!(holder, won.then_some((issued.id, None)), "under the digest of a racer");
        }
    }
    Ok(())
}

/// The digest of the `n`th secret by another hasher.
fn peppered(n: u64) -> SecretDigest {
    let bytes = digest(n).to_bytes()[3..].try_into().expect("a digest has 32 bytes of hash");
    SecretDigest::from_parts(HasherTag::custom(1), bytes)
}
