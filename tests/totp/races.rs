use std::sync::Arc;

use keyward::totp::TotpError;
use tokio::task::JoinSet;

use super::Phone;
use crate::support::on_each_store;

/// What became of 64 codes that came at the same moment, on all nodes.
async fn race(
    phone: &Arc<Phone>,
    code: impl Fn(u32) -> String,
) -> Vec<Result<keyward::Timestamp, TotpError>> {
    let mut tasks = JoinSet::new();
    for task in 0..64 {
        let (phone, code) = (phone.clone(), code(task));
        tasks.spawn(async move { phone.check_at(task as usize, &code).await });
    }
    tasks.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_racing_right_codes_one_is_accepted() {
    on_each_store(async |handles| {
        let phone = Arc::new(Phone::new(handles));
        let answers = race(&phone, |_| phone.code(0)).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        let used = |answer: &&_| matches!(answer, Err(TotpError::UsedCode));
        assert_eq!(answers.iter().filter(used).count(), 63);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_racing_codes_of_three_steps_at_most_three_are_accepted() {
    on_each_store(async |handles| {
        let phone = Arc::new(Phone::new(handles));
        let answers = race(&phone, |n| phone.code(i64::from(n % 3) - 1)).await;
        let accepted = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!((1..=3).contains(&accepted), "{accepted}");
        assert!(matches!(phone.check(&phone.code(1)).await, Err(TotpError::UsedCode)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_racing_guesses_five_are_looked_at() {
    on_each_store(async |handles| {
        let phone = Arc::new(Phone::new(handles));
        let guesses: Vec<_> = (0..64).map(|n| phone.wrong(n)).collect();
        let answers = race(&phone, |n| guesses[n as usize].clone()).await;
        let wrong = |answer: &&_| matches!(answer, Err(TotpError::WrongCode));
        let too_often = |answer: &&_| matches!(answer, Err(TotpError::TooManyAttempts(_)));
        assert_eq!(answers.iter().filter(wrong).count(), 5);
        assert_eq!(answers.iter().filter(too_often).count(), 59);
    })
    .await;
}
