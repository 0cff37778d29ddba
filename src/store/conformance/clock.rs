//! The clock of the server, if the store has one: it advances as time passes, and is one clock for all nodes.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::check::{CheckResult, TestStorage, checks};

checks![the_clock_of_the_server_advances_as_time_passes, all_handles_return_the_time_of_one_clock,];

async fn the_clock_of_the_server_advances_as_time_passes(storage: TestStorage) -> CheckResult {
    let store = storage.handle();
    let Some(clock) = store.clock() else { return Ok(()) };
    let began = Instant::now();
    let first = clock.now().await?;
    let mut last = first;
    // Whatever the server does meanwhile, this much time passes in it.
    let first_read = Instant::now();
    while first_read.elapsed() < SPAN {
        sleep(Duration::from_millis(10)).await;
        let time = clock.now().await?;
        assert!(time >= last, "the clock went back from {last} to {time}");
        last = time;
    }
    let (shortest, longest) = (SPAN - TOLERANCE, began.elapsed() + TOLERANCE);
    let advanced = last.since(first);
    assert!(advanced >= shortest, "in {SPAN:?}, the clock advanced by {advanced:?} only");
    assert!(advanced <= longest, "the clock advanced by {advanced:?} within {longest:?}");
    Ok(())
}

async fn all_handles_return_the_time_of_one_clock(storage: TestStorage) -> CheckResult {
    let (one, other) = (storage.handle(), storage.handle());
    let (Some(clock), Some(same)) = (one.clock(), other.clock()) else {
        let is_some = [one.clock().is_some(), other.clock().is_some()];
        assert_eq!(is_some, [false, false], "all handles to a store have a clock, or none has");
        return Ok(());
    };
    for _ in storage.rounds() {
        let (before, between, after) = (clock.now().await?, same.now().await?, clock.now().await?);
        let is_between = (before.before(TOLERANCE)..=after.after(TOLERANCE)).contains(&between);
        assert!(is_between, "one handle returned {before} and {after}, and another {between}");
    }
    Ok(())
}

/// How long the clock is watched.
const SPAN: Duration = Duration::from_millis(400);
/// Steps of a server's time synchronization.
const TOLERANCE: Duration = Duration::from_millis(200);
