use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use ipnet::IpNet;
use keyward::{
    ErrorKind, Expiry, Formats, HmacSha256Hasher, KeyFormat, Limits, NewKey, Pepper, SecretDigest,
    Sha256Hasher, Status, VerifyRequest,
    model::{KeyLimits, Networks, Rate},
    secret::{Hasher, Sha512Hasher},
};

use crate::support::{DAY, HOUR, MICRO, Service, format, on_each_store, owner, stores};

#[tokio::test]
async fn an_issued_key_verifies_and_is_listed_without_its_secret() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let issued = service.issue().await;
        // Compared before the first use, which is written in the background.
        assert_eq!(*issued.key, service.stored(issued.key.id).await);
        let verified = service.verify(&issued).await.unwrap();
        assert_eq!(verified.key_id(), issued.key.id);
        assert_eq!(verified.owner(), &service.owner);

        let secret = issued.secret.expose();
        assert!(secret.starts_with(&issued.key.hint));
        assert_eq!(issued.key.hint.len(), "lc_live_".len() + 8);
        assert!(!format!("{:#?}", service.stored(issued.key.id).await).contains(secret));
    })
    .await;
}

#[tokio::test]
async fn issuing_fails_at_the_plans_limit_and_the_error_names_it() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let owner = &service.owner;
        service.host.limit(owner, Limits::default().max_active_keys(3));
        let by = &service.actor;
        let first = service.issue().await;
        let short = service.new_key().expiry(Expiry::After(HOUR));
        let _ = service.keys().issue(short, by).await.unwrap();
        let third = service.issue().await;

        let refused = service.keys().issue(service.new_key(), by).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LimitReached);
        assert!(refused.to_string().contains("limit of 3"), "{refused}");

        service.keys().disable(owner, third.key.id, by).await.unwrap();
        assert!(service.keys().issue(service.new_key(), by).await.is_err(), "disabled keys count");

        service.keys().revoke(owner, first.key.id, "", by).await.unwrap();
        let _ = service.issue().await;
        assert!(service.keys().issue(service.new_key(), by).await.is_err());

        service.clock.advance(HOUR);
        let _ = service.issue().await;
        assert!(service.keys().issue(service.new_key(), by).await.is_err());
        assert!(
            service
                .keys()
                .issue(NewKey::new(&crate::support::owner("acme", "bob"), "b").unwrap(), by)
                .await
                .is_ok()
        );
    })
    .await;
}

#[tokio::test]
async fn a_plan_with_a_limit_of_zero_issues_no_keys() {
    let service = Service::new(stores::memory());
    service.host.limit(&service.owner, Limits::default().max_active_keys(0));
    let refused = service.keys().issue(service.new_key(), &service.actor).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitReached);
}

#[tokio::test]
async fn a_key_is_denied_from_the_exact_instant_of_its_expiry() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let new = service.new_key().expiry(Expiry::DAYS_30);
        let issued = service.keys().issue(new, &service.actor).await.unwrap();
        let end = issued.key.expires_at.unwrap();
        assert_eq!(end.since(service.now()), DAY * 30);

        service.clock.set(end.before(MICRO));
        assert!(service.verify(&issued).await.is_ok());
        service.clock.set(end);
        let reason = service.verify(&issued).await.unwrap_err();
        assert_eq!(reason.as_str(), "expired");
        assert_eq!(service.stored(issued.key.id).await.status(end), Status::Expired);
    })
    .await;
}

#[tokio::test]
async fn an_expiry_that_is_not_in_the_future_is_rejected() {
    let service = Service::new(stores::memory());
    for past in
        [Expiry::At(service.now()), Expiry::At(service.now().before(MICRO)), Expiry::days(0)]
    {
        let new = service.new_key().expiry(past);
        let refused = service.keys().issue(new, &service.actor).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }
    let eternal = service.new_key().expiry(Expiry::After(std::time::Duration::MAX));
    let issued = service.keys().issue(eternal, &service.actor).await.unwrap();
    assert_eq!(issued.key.expires_at, Some(keyward::model::Timestamp::MAX));
}

#[tokio::test]
async fn the_plans_maximum_lifetime_applies_to_new_keys() {
    let service = Service::new(stores::memory());
    service.host.limit(&service.owner, Limits::default().max_lifetime(DAY * 90));
    let issue =
        async |expiry| service.keys().issue(service.new_key().expiry(expiry), &service.actor).await;
    assert!(issue(Expiry::DAYS_90).await.is_ok());
    for too_long in [Expiry::Never, Expiry::YEAR, Expiry::At(service.now().after(DAY * 90 + MICRO))]
    {
        let refused = issue(too_long).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LifetimeTooLong);
        assert_eq!((refused.max_lifetime(), refused.limit()), (Some(DAY * 90), None));
        assert!(refused.to_string().contains("90 days"), "{refused}");
    }
}

#[tokio::test]
async fn invalid_names_are_rejected_with_a_reason() {
    let owner = owner("acme", "ada");
    let long = "x".repeat(101);
    for (name, why) in [("", "empty"), (" \t ", "empty"), (&long, "100"), ("a\0b", "NUL")] {
        let refused = NewKey::new(&owner, name).unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }
    assert!(NewKey::new(&owner, &"ü".repeat(100)).is_ok());
}

#[tokio::test]
async fn keys_of_other_systems_are_imported_by_their_hash() {
    on_each_store(async |handles| {
        let service = Service::with(handles, |builder| builder.also_accept(Sha512Hasher));
        let (keys, by) = (service.keys(), &service.actor);
        for (n, hash) in ["sha256", "sha512"].into_iter().enumerate() {
            let old = format().generate().unwrap();
            let digest = if hash == "sha256" {
                let raw = <sha2::Sha256 as sha2::Digest>::digest(old.expose());
                SecretDigest::from_sha256_text(&hex::encode(raw)).unwrap()
            } else {
                let raw = <sha2::Sha512 as sha2::Digest>::digest(old.expose());
                SecretDigest::from_sha512_text(&hex::encode(raw)).unwrap()
            };
            let imported =
                keys.import(service.new_key(), digest, &old.expose()[..12], by).await.unwrap();
            let again = keys.import(service.new_key(), digest, "lc_live_", by).await.unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AlreadyExists);
            let verified = keys.verify(old.expose(), &VerifyRequest::new()).await.unwrap();
            assert_eq!(verified.key_id(), imported.id);
            let page = keys.list(&service.owner, Default::default()).await.unwrap();
            assert_eq!(page.keys.len(), n + 1);
        }
    })
    .await;
}

#[tokio::test]
async fn a_digest_of_an_unconfigured_hasher_is_not_imported() {
    let service = Service::new(stores::memory());
    let foreign = HmacSha256Hasher::new(Pepper::new(9, vec![9; 32]).unwrap()).digest(b"x");
    let import = service.keys().import(service.new_key(), foreign, "lc_", &service.actor);
    let refused = import.await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("also_accept"));
}

#[tokio::test]
async fn a_hint_that_contains_the_secret_or_invisible_characters_is_rejected() {
    let service = Service::new(stores::memory());
    let old = format().generate().unwrap();
    let digest = Sha256Hasher.digest(old.expose().as_bytes());
    let text = old.expose();
    let all_but_one = text[..text.len() - 1].to_owned();
    for hint in [
        text.to_owned(),
        format!(" {text} "),
        format!("key={text}"),
        format!("{text}x"),
        all_but_one,
    ] {
        let import = service.keys().import(service.new_key(), digest, &hint, &service.actor);
        let refused = import.await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert!(!refused.to_string().contains(old.expose()), "{refused}");
    }
    for hint in ["old\nkey", "old\u{202e}key", "old\u{200b}key"] {
        let import = service.keys().import(service.new_key(), digest, hint, &service.actor);
        assert_eq!(import.await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let import =
        service.keys().import(service.new_key(), digest, "lc_live_a1b2c3d4", &service.actor);
    assert_eq!(import.await.unwrap().hint, "lc_live_a1b2c3d4");
}

#[tokio::test]
async fn limits_of_any_size_and_networks_up_to_the_bound_can_be_stored() {
    on_each_store(async |handles| {
        let service = Service::new(handles);
        let one = NonZeroU32::MIN;
        for period in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let rate = Some(Rate { uses: one, period, burst: one });
            let networks = (0..100).map(|n| IpNet::from(IpAddr::from([192, 0, 2, n])));
            let new = service
                .new_key()
                .limits(KeyLimits { rate, ..KeyLimits::default() })
                .networks(Networks::Only(networks.collect()));
            let issued = service.keys().issue(new, &service.actor).await.unwrap();
            let stored = service.stored(issued.key.id).await;
            assert_eq!(stored.networks, issued.key.networks);
            let stored = stored.limits.rate.unwrap().period;
            let capped = period.min(Duration::from_secs(365 * 86_400));
            assert!(stored >= capped.saturating_sub(MICRO), "{period:?} became {stored:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_older_format_is_accepted_beside_the_new_one() {
    let store = keyward::MemoryStore::new();
    let old_format = KeyFormat::builder("api").build().unwrap();
    let before = keyward::api::ApiKeys::builder(store.clone(), old_format.clone()).build();
    let by = keyward::model::Actor::account("ada");
    let ada = owner("acme", "ada");
    let old = before.issue(NewKey::new(&ada, "old").unwrap(), &by).await.unwrap();

    let formats = Formats::new(KeyFormat::builder("lk").build().unwrap());
    let both =
        keyward::api::ApiKeys::builder(store.clone(), formats.clone().accept(old_format).unwrap());
    let both = both.hasher(Sha256Hasher).build();
    let new = both.issue(NewKey::new(&ada, "new").unwrap(), &by).await.unwrap();
    assert!(new.secret.expose().starts_with("lk_"));
    for issued in [&old, &new] {
        assert!(both.verify(issued.secret.expose(), &VerifyRequest::new()).await.is_ok());
    }
    let only_new = keyward::api::ApiKeys::builder(store, formats).build();
    assert!(only_new.verify(old.secret.expose(), &VerifyRequest::new()).await.is_err());
}
