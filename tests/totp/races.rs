use std::sync::Arc;

use keyward::totp::TotpError;
use tokio::task::JoinSet;

use super::TotpHarness;
use crate::support::on_each_store;

/// Checks 64 codes concurrently, on all nodes, and returns the results.
async fn race(
    harness: &Arc<TotpHarness>,
    code: impl Fn(u32) -> String,
) -> Vec<Result<keyward::Timestamp, TotpError>> {
    let mut tasks = JoinSet::new();
    for task in 0..64 {
        let (harness, code) = (harness.clone(), code(task));
        tasks.spawn(async move { harness.check_at(task as usize, &code).await });
    }
    tasks.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_racing_correct_codes_one_is_accepted() {
    on_each_store(async |handles| {
        let harness = Arc::new(TotpHarness::new(handles));
        let answers = race(&harness, |_| harness.code(0)).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        let used = |answer: &&_| matches!(answer, Err(TotpError::UsedCode));
        assert_eq!(answers.iter().filter(used).count(), 63);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_racing_codes_of_three_steps_at_most_three_are_accepted() {
    on_each_store(async |handles| {
        let harness = Arc::new(TotpHarness::new(handles));
        let answers = race(&harness, |n| harness.code(i64::from(n % 3) - 1)).await;
        let accepted = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!((1..=3).contains(&accepted), "{accepted}");
        assert!(matches!(harness.check(&harness.code(1)).await, Err(TotpError::UsedCode)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_racing_guesses_five_are_checked() {
    on_each_store(async |handles| {
        let harness = Arc::new(TotpHarness::new(handles));
        let guesses: Vec<_> = (0..64).map(|n| harness.wrong_code(n)).collect();
        let answers = race(&harness, |n| guesses[n as usize].clone()).await;
        let wrong = |answer: &&_| matches!(answer, Err(TotpError::WrongCode));
        let too_often = |answer: &&_| matches!(answer, Err(TotpError::TooManyAttempts(_)));
        assert_eq!(answers.iter().filter(wrong).count(), 5);
        assert_eq!(answers.iter().filter(too_often).count(), 59);
    })
    .await;
}
