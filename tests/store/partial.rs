//! Stores that lack capabilities: what is missing is known, and is never reported as a failure.

use std::{sync::Arc, time::Duration};

use keyward::{
    ErrorKind, KeyStore, Limits, Pepper, VerifyError, VerifyRequest,
    enroll::{AccountLookup, CodeMessage, CodeSender, EmailAddress, Enrollment, HostError},
    manage::{KeyChange, Reminders},
    model::{KeyLimits, Quota},
    store::{
        Capability::{self, ChangeFeed, Counters, OneTimeCodes, UsageHistory},
        conformance::{Suite, checks},
    },
    verify::{CacheOptions, DeniedReason, FeedState},
};

use crate::{
    cache::faulty_store::FaultyStore,
    support::{DAY, HOUR, MICRO, SECOND, Service, reason, stores},
};

const BOUND: Duration = Duration::from_secs(5);

/// Handles to one store that lacks capabilities.
fn two_without(missing: &[Capability]) -> (Vec<Arc<dyn KeyStore>>, FaultyStore) {
    let store = FaultyStore::new(stores::memory().remove(0)).without(missing.iter().copied());
    (vec![Arc::new(store.clone()), Arc::new(store.clone())], store)
}

#[tokio::test]
async fn without_a_change_feed_a_cached_key_is_trusted_for_max_staleness() {
    let (handles, store) = two_without(&[ChangeFeed]);
    let service = Service::new(handles);
    let issued = service.issue().await;
    let other = &service.nodes[1];
    let verify = async || {
        let verified = other.verify(issued.secret.expose(), &VerifyRequest::new()).await;
        verified.map(drop).map_err(reason)
    };
    verify().await.unwrap();
    service.clock.advance(BOUND);
    service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
    assert_eq!((verify().await, store.finds()), (Ok(()), 1), "until the end of the bound");
    let health = other.health();
    assert_eq!((health.feed, health.staleness), (FeedState::NotSupported, None));
    assert_eq!(health.not_supported, [ChangeFeed]);
    service.clock.advance(MICRO);
    assert_eq!(verify().await, Err(DeniedReason::Revoked));
    assert_eq!(store.feed_reads(), 0);
}

#[tokio::test]
async fn without_a_change_feed_a_node_can_still_catch_up_and_be_strict() {
    let (handles, store) = two_without(&[ChangeFeed]);
    let service = Service::new(handles);
    let issued = service.issue().await;
    service.verify(&issued).await.unwrap();
    service.keys().account_changed(&service.owner).await.unwrap();
    service.keys().revoke(&service.owner, issued.key.id, "", &service.actor).await.unwrap();
    assert_eq!(service.verify(&issued).await.unwrap_err(), DeniedReason::Revoked, "caught up");

    let options = CacheOptions::default().strict();
    let strict = Service::with(two_without(&[ChangeFeed]).0, |node| node.cache(options.clone()));
    let issued = strict.issue().await;
    strict.verify(&issued).await.unwrap();
    strict.keys().revoke(&strict.owner, issued.key.id, "", &strict.actor).await.unwrap();
    let verified = strict.nodes[1].verify(issued.secret.expose(), &VerifyRequest::new()).await;
    assert_eq!(reason(verified.unwrap_err()), DeniedReason::Revoked, "strict");
    assert_eq!(store.feed_reads(), 0);
}

#[tokio::test]
async fn without_counters_a_key_with_a_quota_is_refused_and_never_accepted() {
    let (handles, _) = two_without(&[Counters]);
    let service = Service::new(handles);
    let limits = KeyLimits { quota: Some(Quota::per_day(10)), ..KeyLimits::default() };
    let with_quota = || service.new_key().limits(limits);
    let refused = service.keys().issue(with_quota(), &service.actor).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotSupported);
    assert_eq!(
        refused.to_string(),
        "the key store has no counters, which a quota of a key or of its owner's plan needs: \
         remove the quota, or use another store"
    );
    let plain = service.issue().await;
    service.verify(&plain).await.unwrap();
    let change = KeyChange::default().limits(limits);
    let updated = service.keys().update(&service.owner, plain.key.id, &change, &service.actor);
    assert_eq!(updated.await.unwrap_err().kind(), ErrorKind::NotSupported);

    // The plan may get a quota after the key was issued.
    service.host.limit(&service.owner, Limits::default().quota(Quota::per_day(10)));
    service.keys().account_changed(&service.owner).await.unwrap();
    let verified = service.keys().verify(plain.secret.expose(), &VerifyRequest::new()).await;
    match verified {
        Err(VerifyError::Unavailable(error)) => assert_eq!(error.kind(), ErrorKind::NotSupported),
        other => panic!("{other:?}"),
    }
    let refused = service.keys().issue(service.new_key(), &service.actor).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotSupported, "the plan has a quota");
}

/// Time is virtual: it advances when all tasks are idle.
#[tokio::test(start_paused = true)]
async fn without_counters_every_node_runs_the_jobs_and_each_step_has_one_effect() {
    let (handles, _) = two_without(&[Counters]);
    let reminders = Reminders::none().unused_for(DAY);
    let service = Service::with(handles, |node| node.reminders(reminders.clone()));
    let (gone, unused) = (service.issue().await, service.issue().await);
    service.keys().revoke(&service.owner, gone.key.id, "", &service.actor).await.unwrap();
    service.clock.advance(DAY * 91);
    for node in &service.nodes {
        let _denied = node.verify("lc_live_nothing", &VerifyRequest::new()).await;
    }
    tokio::time::sleep(SECOND * 60).await;
    for node in &service.nodes {
        assert_eq!(node.health().failed_jobs, 0);
    }
    let left = service.keys().get(&service.owner, gone.key.id).await;
    assert_eq!(left.unwrap_err().kind(), ErrorKind::NotFound);
    let of_unused = |kinds: &[keyward::audit::EventKind]| {
        kinds.iter().filter(|kind| **kind == keyward::audit::EventKind::Unused).count()
    };
    assert_eq!(of_unused(&service.events.kinds()), 1, "{:?}", unused.key.id);
    // Another hour, on both nodes: nothing is left to do.
    service.clock.advance(HOUR);
    tokio::time::sleep(SECOND * 60).await;
    assert_eq!(of_unused(&service.events.kinds()), 1);
}

#[tokio::test]
async fn a_store_with_the_core_only_serves_and_shuts_down_without_errors() {
    let (handles, _) = two_without(&Capability::ALL);
    let service = Service::new(handles);
    let issued = service.issue().await;
    service.verify(&issued).await.unwrap();
    let node = service.nodes.last().unwrap();
    assert_eq!(node.health().not_supported, Capability::ALL);
    node.shutdown().await.unwrap();
    assert_eq!(service.stored(issued.key.id).await.first_used_at, Some(service.now()));
    node.purge(keyward::manage::Retention::default(), |_| ()).await.unwrap();
    let history = node.usage_history(&service.owner, issued.key.id, 1).await.unwrap_err();
    assert_eq!(
        (history.kind(), history.to_string().as_str()),
        (
            ErrorKind::NotSupported,
            "the key store has no usage history, which the hourly counts of uses need: use another store"
        )
    );
}

#[tokio::test]
async fn enrollment_without_codes_or_counters_is_refused_when_it_is_built() {
    for (missing, sentence) in [
        (OneTimeCodes, "the key store has no one-time codes, which enrollment needs"),
        (Counters, "the key store has no counters, which enrollment needs"),
    ] {
        let service = Service::new(two_without(&[missing]).0);
        let pepper = Pepper::new(1, [7; 32].as_slice()).unwrap();
        let built = Enrollment::builder(service.keys().clone(), Silent, Silent, pepper).build();
        let error = built.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotSupported);
        assert!(error.to_string().starts_with(sentence), "{error}");
    }
}

struct Silent;

#[async_trait::async_trait]
impl AccountLookup for Silent {
    async fn owner_of(&self, _: &EmailAddress) -> Result<Option<keyward::Owner>, HostError> {
        Ok(None)
    }
}

#[async_trait::async_trait]
impl CodeSender for Silent {
    async fn send(&self, _: &CodeMessage) -> Result<(), HostError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_passes_a_core_only_store_if_its_groups_are_left_out() {
    let core = Capability::ALL.into_iter().fold(Suite::new().rounds(2), Suite::without);
    let report = core.report(async || two_without(&Capability::ALL).0).await;
    assert!(report.failed.is_empty(), "{report}");
    assert!((60..checks().count()).contains(&report.passed.len()), "{}", report.passed.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_suite_fails_a_store_that_lacks_a_group_which_is_not_left_out() {
    for (missing, check) in [
        (ChangeFeed, "every_change_enters_the_feed"),
        (Counters, "charges_are_granted_exactly_up_to_the_limit"),
        (UsageHistory, "usage_adds_up_by_key_and_hour"),
        (OneTimeCodes, "a_code_is_accepted_once"),
    ] {
        let report = Suite::new().only([check]).report(async || two_without(&[missing]).0).await;
        let message = &report.failed[0].message;
        let advice = format!("`Suite::without(Capability::{missing:?})`");
        assert!(message.contains(&advice), "{message}");
    }
}
