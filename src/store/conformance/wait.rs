//! Waiting for the change feed: whoever waits is woken, and nobody waits for ever.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    sample::{digest, key, owner},
    storage::{Checked, Storage, sound},
    suite::checks,
};

checks![
    a_change_ends_a_wait_that_started_before_it,
    a_wait_for_an_existing_change_ends,
    a_wait_without_a_change_times_out,
];

async fn a_change_ends_a_wait_that_started_before_it(storage: Storage) -> Checked {
    let ada = owner(1);
    for n in 1..=10 {
        let end = storage.feed_end().await?;
        let store = storage.any();
        let waiting = tokio::spawn(async move { store.wait_for_changes(end, FAR_AWAY).await });
        // With an even number the wait has most likely begun by then, with an odd one it has not.
        for _ in 0..(n % 2) * 100 {
            tokio::task::yield_now().await;
        }
        storage.add(&key(&ada, n), &digest(n)).await?;
        let woken = timeout(storage.patience(), waiting).await;
        let _feed = sound(woken.expect("nobody woke the one who waits for a change"))?;
    }
    Ok(())
}

async fn a_wait_for_an_existing_change_ends(storage: Storage) -> Checked {
    let before = storage.feed_end().await?;
    storage.add(&key(&owner(1), 1), &digest(1)).await?;
    for _ in 0..3 {
        let woken =
            timeout(storage.patience(), storage.any().wait_for_changes(before, FAR_AWAY)).await;
        let _feed = woken.expect("a change that was there before the wait did not end it")?;
    }
    Ok(())
}

async fn a_wait_without_a_change_times_out(storage: Storage) -> Checked {
    let end = storage.feed_end().await?;
    for at_most in [Duration::ZERO, Duration::from_millis(5)] {
        let ended = timeout(storage.patience(), storage.any().wait_for_changes(end, at_most)).await;
        let _feed = ended.expect("a wait went on behind its end")?;
    }
    Ok(())
}

/// Being woken is told from waiting until the end by this: the suite is not that patient.
const FAR_AWAY: Duration = Duration::from_secs(3_600);
