//! When keys and secrets end.

use std::{sync::Arc, time::Duration};

use keyward::{
    Expiry, VerifyRequest,
    api::ApiKeysBuilder,
    manage::{Issued, Rotation},
};

use crate::{
    cache::faulty_store::FaultyStore,
    support::{HOUR, MICRO, Service, reason, stores},
};

async fn says(service: &Service, issued: &Issued) -> &'static str {
    match service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await {
        Ok(_) => "ok",
        Err(error) => reason(error).as_str(),
    }
}

/// The old secret of a key that was rotated immediately after it was issued.
async fn rotated(service: &Service, lifetime: Duration, overlap: Duration) -> Issued {
    let new = service.new_key().expiry(Expiry::After(lifetime));
    let issued = service.keys().issue(new, &service.actor).await.unwrap();
    let (ada, rotation) = (&service.owner, Rotation::overlap(overlap));
    let _ = service.keys().rotate(ada, issued.key.id, rotation, &service.actor).await.unwrap();
    issued
}

#[tokio::test]
async fn a_rotated_key_stops_at_the_earlier_of_expiry_and_overlap_end() {
    for cached in [true, false] {
        for (lifetime, overlap, expected) in
            [(HOUR * 2, HOUR, "secret_retired"), (HOUR, HOUR * 2, "expired")]
        {
            let store = FaultyStore::new(stores::memory().remove(0));
            let service = Service::with(vec![Arc::new(store.clone())], |builder| match cached {
                true => builder,
                false => builder.no_cache(),
            });
            let old = rotated(&service, lifetime, overlap).await;
            assert_eq!(says(&service, &old).await, "ok");
            let asked = store.finds();
            // The calendar is set, which counts as a jump. Then the end comes without another one.
            let end = service.now().after(HOUR);
            service.clock.set(end.before(MICRO));
            assert_eq!(says(&service, &old).await, "ok", "cached: {cached}, {expected}");
            service.clock.set(end);
            assert_eq!(says(&service, &old).await, expected, "cached: {cached}");
            if cached {
                assert_eq!(store.finds(), asked + 1, "after the jump; the end was a hit");
            }
        }
    }
}

/// Less than a millisecond: the clock is not held by itself that closely.
#[tokio::test]
async fn a_clock_set_back_by_a_little_brings_no_ended_secret_back() {
    for cached in [true, false] {
        for (lifetime, overlap, expected) in
            [(HOUR * 2, HOUR, "secret_retired"), (HOUR, HOUR * 2, "expired")]
        {
            let service = Service::with(stores::memory(), |builder| match cached {
                true => builder,
                false => ApiKeysBuilder::no_cache(builder),
            });
            let old = rotated(&service, lifetime, overlap).await;
            let end = service.now().after(HOUR);
            service.clock.set(end.before(MICRO * 500));
            assert_eq!(says(&service, &old).await, "ok");
            service.clock.set(end);
            assert_eq!(says(&service, &old).await, expected, "cached: {cached}");
            service.clock.set(end.before(MICRO));
            assert_eq!(says(&service, &old).await, expected, "cached: {cached}, set back");
        }
    }
}
