//! Entries whose places in the cache are the same.

use keyward::{
    Hasher, SecretDigest, Sha256Hasher, VerifyRequest,
    model::{KeyLimits, Quota, Rate},
    secret::HasherTag,
};

use crate::support::{Service, format, reason, stores};

/// A hasher whose digests have their first 64 bits in common: those by which the cache finds them.
struct Colliding;

impl Hasher for Colliding {
    fn digest(&self, presented: &[u8]) -> SecretDigest {
        let mut digest = Sha256Hasher.digest(presented).to_bytes();
        digest[3..11].fill(7);
        SecretDigest::from_bytes(&digest).unwrap()
    }

    fn tag(&self) -> HasherTag {
        HasherTag::SHA256
    }
}

#[tokio::test]
async fn secrets_that_agree_in_the_first_64_bits_of_their_digests_are_told_apart() {
    let service = Service::with(stores::memory(), |builder| builder.hasher(Colliding));
    let keys = [service.issue().await, service.issue().await];
    let unknown = format().generate().unwrap();
    for round in 0..3 {
        for issued in &keys {
            for _ in 0..2 {
                let verified = service.verify(issued).await.unwrap();
                assert_eq!(verified.key_id(), issued.key.id, "{round}");
            }
            for _ in 0..2 {
                let answer = service.keys().verify(unknown.expose(), &VerifyRequest::new()).await;
                assert_eq!(reason(answer.unwrap_err()).as_str(), "unknown", "{round}");
            }
            let verified = service.verify(issued).await.unwrap();
            assert_eq!(verified.key_id(), issued.key.id, "{round}");
        }
    }
}

#[tokio::test]
async fn keys_with_equal_rates_and_different_quotas_keep_their_own_limits() {
    let service = Service::new(stores::memory());
    let rate = Some(Rate::per_minute(60));
    let limits = [None, Some(Quota::total(10)), Some(Quota::per_day(20)), None]
        .map(|quota| KeyLimits { rate, quota });
    for limits in limits {
        let new = service.new_key().limits(limits);
        let issued = service.keys().issue(new, &service.actor).await.unwrap();
        let verified = service.verify(&issued).await.unwrap();
        assert_eq!(verified.limits(), limits);
        let remaining = verified.quotas().key.map(|state| state.remaining);
        assert_eq!(remaining, limits.quota.map(|quota| quota.uses() - 1));
    }
}
