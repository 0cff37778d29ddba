//! Finding: from a digest to its key, as both are now.

use super::{
    sample::{at, digest, event, key, owner, revocation},
    storage::{Checked, Storage},
    suite::checks,
};
use crate::{
    audit::EventKind,
    model::{Key, Status},
    secret::{HasherTag, SecretDigest},
    store::{PreviousSecret, StoreError},
};

checks![
    find_returns_the_key_of_any_candidate_digest,
    digests_are_compared_whole_including_the_hasher_tag,
    find_returns_the_latest_committed_key,
];

async fn find_returns_the_key_of_any_candidate_digest(storage: Storage) -> Checked {
    let ada = owner(1);
    for n in 1..=20 {
        storage.add(&key(&ada, n), &digest(n)).await?;
    }
    // As of one text under a current and two retired hashers: one of the candidates is stored.
    for (n, place) in [(7, 0), (8, 1), (9, 2)] {
        let mut candidates = [digest(101), digest(102), digest(103)];
        candidates[place] = digest(n);
        let found = storage.any().find(&candidates).await?;
        let found = found.unwrap_or_else(|| panic!("candidate {place} of 3 was not found"));
        assert_eq!(*found.key, key(&ada, n), "the key of candidate {place}");
        assert_eq!(found.digest.to_bytes(), digest(n).to_bytes(), "the digest that led to it");
        assert_eq!(found.ends_at, None, "a current secret does not end");
    }
    let absent = storage.any().find(&[digest(101), digest(102)]).await?;
    assert!(absent.is_none(), "unknown digests led to {absent:?}");
    let none = storage.any().find(&[]).await?;
    assert!(none.is_none(), "no digest at all led to {none:?}");
    Ok(())
}

async fn digests_are_compared_whole_including_the_hasher_tag(storage: Storage) -> Checked {
    let ada = owner(1);
    let stored = digest(1).to_bytes();
    let under = |tag: HasherTag| {
        let bytes = stored[3..].try_into().expect("a digest has three bytes of tag and 32 of hash");
        SecretDigest::from_parts(tag, bytes)
    };
    storage.add(&key(&ada, 1), &digest(1)).await?;

    // Letter case and trailing blanks are what collations of text do not tell apart.
    for bit in [0, 5, 23, 24, 29, 151, 274, 279] {
        let mut other = stored;
        other[bit / 8] ^= 0x80 >> (bit % 8);
        let other = SecretDigest::from_bytes(&other).expect("any 35 bytes are a digest");
        let holder = storage.holder(&other).await?;
        assert_eq!(holder, None, "a digest that differs in bit {bit} led to a key");
    }
    for (n, tag) in
        [(2, HasherTag::SHA512), (3, HasherTag::custom(1)), (4, HasherTag::custom(0x100))]
    {
        assert_eq!(storage.holder(&under(tag)).await?, None, "the same hash under {tag:?}");
        storage.add(&key(&ada, n), &under(tag)).await?;
        assert_eq!(storage.holder(&under(tag)).await?, Some((key(&ada, n).id, None)));
    }
    assert_eq!(storage.holder(&digest(1)).await?, Some((key(&ada, 1).id, None)));
    Ok(())
}

async fn find_returns_the_latest_committed_key(storage: Storage) -> Checked {
    let ada = owner(1);
    let status = async || {
        let found = storage.any().find(&[digest(1)]).await?;
        Ok::<_, StoreError>(found.map(|found| found.key.status(at(5))))
    };
    let issued = key(&ada, 1);
    assert_eq!(status().await?, None);
    storage.add(&issued, &digest(1)).await?;
    assert_eq!(status().await?, Some(Status::Active));
    storage.update(&Key { disabled_at: Some(at(1)), ..issued.clone() }, at(1)).await?;
    assert_eq!(status().await?, Some(Status::Disabled));

    // Its former secret leads to the same key, in the same state.
    let disabled = storage.key(&issued).await?;
    storage.rotate(&disabled, &digest(2), PreviousSecret::EndsAt(at(50))).await?;
    let by = revocation(&issued, at(2), "leaked");
    let _now = storage.any().revoke((&ada).into(), issued.id, &by).await?;
    assert_eq!(status().await?, Some(Status::Revoked), "a revoked key stays until it is purged");
    let by = event(EventKind::Deleted, &issued, at(3));
    let deleted = storage.any().delete((&ada).into(), issued.id, &by).await?;
    assert!(deleted);
    assert_eq!(status().await?, None, "a deleted key is found no more");
    Ok(())
}
