//! Storage that is opened again has everything that was acknowledged before.

use std::collections::BTreeSet;

use super::{
    check::{Check, CheckResult, Snapshot, TestStorage, Watch},
    counters::one_use,
    fixtures::{at, digest, event, insert_key, key, owner},
    write_case::{Write, WriteCase},
};
use crate::{
    audit::EventKind,
    model::{KeyId, Timestamp},
    store::{
        Capability, ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, CounterKey,
        HourlyUsage, InsertOutcome, OneTimeCode, StoreError,
    },
};

macro_rules! reopening {
    ($($check:ident needs $needs:expr;)*) => {
        pub(super) const CHECKS: &[Check] = &[$(Check {
            name: stringify!($check),
            needs: $needs,
            reopens: true,
            run: |storage| Box::pin($check(storage)),
        }),*];
    };
}

reopening! {
    keys_and_events_survive_a_reopening needs None;
    the_change_feed_survives_a_reopening needs Some(Capability::ChangeFeed);
    counters_survive_a_reopening needs Some(Capability::Counters);
    usage_history_survives_a_reopening needs Some(Capability::UsageHistory);
    one_time_codes_survive_a_reopening needs Some(Capability::OneTimeCodes);
}

async fn keys_and_events_survive_a_reopening(mut storage: TestStorage) -> CheckResult {
    let cases: Vec<WriteCase> =
        (1..).zip(Write::ALL).map(|(n, write)| WriteCase::new(write, n)).collect();
    for case in &cases {
        case.prepare(&storage).await?;
        case.run(&*storage.handle()).await?;
    }
    let noted = event(EventKind::HostEvent, &key(&owner(1), 900), at(1));
    storage.handle().record_events(std::slice::from_ref(&noted)).await?;
    let before = snapshots(&storage, &cases).await?;
    // Twice, because a store may write what it has read.
    for _ in 0..2 {
        storage.reopen().await;
        let after = snapshots(&storage, &cases).await?;
        for ((case, before), after) in cases.iter().zip(&before).zip(after) {
            assert_eq!(after, *before, "after the storage was opened again: {:?}", case.write);
        }
        let log = storage.log((&owner(1)).into()).await?;
        assert_eq!(log, std::slice::from_ref(&noted), "a recorded event");
    }
    // The keys from before count and stay unique.
    let [_, other, _] = &cases[0].keys;
    let another = key(&other.owner, 901);
    for (max_active, taken, outcome) in [
        (Some(3), digest(902), InsertOutcome::LimitReached),
        (None, digest(cases[0].first + 1), InsertOutcome::DigestTaken),
    ] {
        let created = event(EventKind::Created, &another, at(1));
        let new = insert_key(&another, &taken, max_active, &created);
        assert_eq!(
            storage.handle().insert(new).await?,
            outcome,
            "an insert after the storage was opened again"
        );
    }
    Ok(())
}

/// What can be read of each case, without the feed.
async fn snapshots(
    storage: &TestStorage,
    cases: &[WriteCase],
) -> Result<Vec<Snapshot>, StoreError> {
    let mut all = Vec::new();
    for case in cases {
        let watch = Watch::start(storage, case.owner.tenant(), case.digests()).await?;
        all.push(watch.snapshot().await?);
    }
    Ok(all)
}

async fn the_change_feed_survives_a_reopening(mut storage: TestStorage) -> CheckResult {
    let ada = owner(1);
    let start = storage.feed_end().await?;
    storage.add(&key(&ada, 1), &digest(1)).await?;
    storage.add(&key(&ada, 2), &digest(2)).await?;
    let end = storage.feed_end().await?;
    storage.reopen().await;
    storage.add(&key(&ada, 3), &digest(3)).await?;
    for (cursor, numbers) in [(start, 1..=3), (end, 3..=3)] {
        let wanted: BTreeSet<KeyId> = numbers.map(|n| key(&ada, n).id).collect();
        let (seen, missed) = read_on(&storage, cursor).await?;
        assert!(
            missed || wanted.is_subset(&seen),
            "a reader from before the storage was opened again missed changes silently: \
             it saw {seen:?}, not {wanted:?}"
        );
    }
    Ok(())
}

/// Reads the feed to its end. Returns the changed keys, and whether some may be missing.
async fn read_on(
    storage: &TestStorage,
    mut cursor: u64,
) -> Result<(BTreeSet<KeyId>, bool), StoreError> {
    let (mut seen, mut missed) = (BTreeSet::new(), false);
    loop {
        let page = storage.handle().feed().changes(Some(cursor)).await?;
        cursor = page.cursor;
        missed |= page.missed;
        seen.extend(page.keys);
        if !page.more {
            return Ok((seen, missed));
        }
    }
}

async fn counters_survive_a_reopening(mut storage: TestStorage) -> CheckResult {
    let (ada, address, issued) = (owner(1), digest(9), key(&owner(1), 1));
    storage.add(&issued, &digest(1)).await?;
    let counters = [
        CounterKey::Key(issued.id),
        CounterKey::Owner(&ada),
        CounterKey::Anonymous(&address),
        CounterKey::Job("conformance"),
    ];
    let charge = |counter_key, uses| CounterCharge { limit: 10, uses, ..one_use(counter_key) };
    for counter in counters {
        let charged = storage.handle().quotas().charge(&[charge(counter, 7)]).await?;
        assert_eq!(charged, ChargeOutcome::Granted(vec![7]));
        storage.handle().quotas().refund(&[charge(counter, 1)]).await?;
    }
    storage.reopen().await;
    for counter in counters {
        let over = storage.handle().quotas().charge(&[charge(counter, 5)]).await?;
        assert_eq!(
            over,
            ChargeOutcome::Exhausted(vec![6]),
            "{counter:?} after it was opened again"
        );
        let rest = storage.handle().quotas().charge(&[charge(counter, 4)]).await?;
        assert_eq!(rest, ChargeOutcome::Granted(vec![10]), "{counter:?} after it was opened again");
    }
    Ok(())
}

async fn usage_history_survives_a_reopening(mut storage: TestStorage) -> CheckResult {
    let issued = key(&owner(1), 1);
    storage.add(&issued, &digest(1)).await?;
    let hour = |hour, accepted| HourlyUsage {
        accepted,
        denied: 2,
        limited: 3,
        ..HourlyUsage::none(issued.id, hour)
    };
    let (first, second) = (hour(at(0), 1), hour(at(3_600), 5));
    storage.handle().history().add_usage(&[first, second]).await?;
    storage.reopen().await;
    let usage = async |storage: &TestStorage| {
        let within = (&issued.owner).into();
        storage.handle().history().hourly_usage(within, issued.id, Timestamp::MIN).await
    };
    assert_eq!(usage(&storage).await?, [first, second], "after the storage was opened again");
    storage.handle().history().add_usage(&[hour(at(3_600), 1)]).await?;
    let sum = HourlyUsage { accepted: 6, denied: 4, limited: 6, ..second };
    assert_eq!(usage(&storage).await?, [first, sum], "added after the storage was opened again");
    Ok(())
}

async fn one_time_codes_survive_a_reopening(mut storage: TestStorage) -> CheckResult {
    let code = |n| OneTimeCode { digest: digest(n), ends_at: at(600), tries: 2 };
    let try_code = async |storage: &TestStorage, address, presented| {
        let attempt =
            CodeAttempt { address: digest(address), digest: digest(presented), at: at(1) };
        storage.handle().codes().try_code(&attempt).await
    };
    for n in 1..=3 {
        storage.handle().codes().put_code(&digest(n), &code(n + 10)).await?;
    }
    assert_eq!(try_code(&storage, 1, 11).await?, CodeOutcome::Accepted);
    for _ in 0..2 {
        assert_eq!(try_code(&storage, 2, 99).await?, CodeOutcome::Wrong);
    }
    storage.reopen().await;
    let outcomes = [
        (1, CodeOutcome::NotFound, "an accepted code"),
        (2, CodeOutcome::NoTriesLeft, "a code without tries"),
        (3, CodeOutcome::Accepted, "an unused code"),
    ];
    for (n, outcome, what) in outcomes {
        assert_eq!(try_code(&storage, n, n + 10).await?, outcome, "{what}, opened again");
    }
    Ok(())
}
