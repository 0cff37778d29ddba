//! One-time codes: accepted once, until they expire, within a fixed number of tries.

use std::time::Duration;

use super::{
    check::{CheckResult, MAX_POLLS, TestStorage, checks, poll_at_most, race},
    fixtures::{at, digest, just_before},
};
use crate::{
    model::Timestamp,
    secret::SecretDigest,
    store::{CodeAttempt, CodeOutcome, OneTimeCode, StoreError},
};

checks![;
    OneTimeCodes:
    a_code_is_accepted_once,
    a_code_is_valid_only_for_its_address,
    a_code_has_a_fixed_number_of_tries,
    a_code_expires_at_its_end,
    a_new_code_replaces_the_former_one,
    racing_attempts_get_no_extra_tries,
    racing_right_attempts_have_one_winner,
    a_dropped_code_attempt_is_atomic,
    a_purge_of_codes_removes_expired_ones_up_to_its_limit,
];

async fn a_code_is_accepted_once(storage: TestStorage) -> CheckResult {
    storage.handle().codes().put_code(&address(1), &code(1)).await?;
    assert_eq!(try_code(&storage, 1, 1, at(0)).await?, CodeOutcome::Accepted);
    assert_eq!(try_code(&storage, 1, 1, at(0)).await?, CodeOutcome::NotFound, "a second time");
    Ok(())
}

async fn a_code_is_valid_only_for_its_address(storage: TestStorage) -> CheckResult {
    storage.handle().codes().put_code(&address(1), &code(1)).await?;
    storage.handle().codes().put_code(&address(2), &code(2)).await?;
    assert_eq!(
        try_code(&storage, 2, 1, at(0)).await?,
        CodeOutcome::Wrong,
        "the code of another address"
    );
    assert_eq!(
        try_code(&storage, 3, 1, at(0)).await?,
        CodeOutcome::NotFound,
        "an address without a code"
    );
    assert_eq!(try_code(&storage, 1, 1, at(0)).await?, CodeOutcome::Accepted);
    assert_eq!(
        try_code(&storage, 2, 2, at(0)).await?,
        CodeOutcome::Accepted,
        "the other code is still valid"
    );
    Ok(())
}

async fn a_code_has_a_fixed_number_of_tries(storage: TestStorage) -> CheckResult {
    for n in [1, 2] {
        storage.handle().codes().put_code(&address(n), &code(n)).await?;
    }
    for wrong in 1..=TRIES {
        assert_eq!(try_code(&storage, 1, 100, at(0)).await?, CodeOutcome::Wrong, "attempt {wrong}");
        if wrong < TRIES {
            assert_eq!(
                try_code(&storage, 2, 100, at(0)).await?,
                CodeOutcome::Wrong,
                "attempt {wrong}"
            );
        }
    }
    for presented in [100, 1] {
        assert_eq!(
            try_code(&storage, 1, presented, at(0)).await?,
            CodeOutcome::NoTriesLeft,
            "after the last try"
        );
    }
    assert_eq!(try_code(&storage, 2, 2, at(0)).await?, CodeOutcome::Accepted, "on the last try");
    Ok(())
}

async fn a_code_expires_at_its_end(storage: TestStorage) -> CheckResult {
    for n in [1, 2] {
        storage.handle().codes().put_code(&address(n), &code(n)).await?;
    }
    assert_eq!(
        try_code(&storage, 1, 1, just_before(end())).await?,
        CodeOutcome::Accepted,
        "just before it expires"
    );
    assert_eq!(try_code(&storage, 2, 2, end()).await?, CodeOutcome::Expired);
    assert_eq!(
        try_code(&storage, 2, 2, at(0)).await?,
        CodeOutcome::Accepted,
        "an expired attempt does not consume the code"
    );

    storage.handle().codes().put_code(&address(3), &code(3)).await?;
    for _ in 0..TRIES {
        assert_eq!(
            try_code(&storage, 3, 100, end()).await?,
            CodeOutcome::Wrong,
            "wrong attempts count after expiry"
        );
    }
    assert_eq!(try_code(&storage, 3, 3, end()).await?, CodeOutcome::NoTriesLeft);
    Ok(())
}

async fn a_new_code_replaces_the_former_one(storage: TestStorage) -> CheckResult {
    storage.handle().codes().put_code(&address(1), &code(1)).await?;
    for _ in 0..TRIES {
        assert_eq!(try_code(&storage, 1, 100, at(0)).await?, CodeOutcome::Wrong);
    }
    let later = OneTimeCode { ends_at: end().after(Duration::from_secs(600)), ..code(2) };
    storage.handle().codes().put_code(&address(1), &later).await?;
    assert_eq!(try_code(&storage, 1, 1, at(0)).await?, CodeOutcome::Wrong, "the replaced code");
    assert_eq!(
        try_code(&storage, 1, 2, end()).await?,
        CodeOutcome::Accepted,
        "the new code has its own tries and expiry"
    );
    assert_eq!(
        try_code(&storage, 1, 1, at(0)).await?,
        CodeOutcome::NotFound,
        "the replaced code was removed"
    );
    Ok(())
}

async fn racing_attempts_get_no_extra_tries(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        storage.handle().codes().put_code(&address(round), &code(round)).await?;
        let answers = race(64, |task| {
            let (store, presented) = (storage.handle(), 10_000 + task);
            async move { store.codes().try_code(&attempt(round, presented, at(0))).await }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let count = |wanted| answers.iter().filter(|answer| **answer == wanted).count();
        assert_eq!(count(CodeOutcome::Wrong), TRIES as usize, "of 64 attempts: {answers:?}");
        assert_eq!(
            count(CodeOutcome::NoTriesLeft),
            64 - TRIES as usize,
            "of 64 attempts: {answers:?}"
        );
        assert_eq!(try_code(&storage, round, round, at(0)).await?, CodeOutcome::NoTriesLeft);
    }
    Ok(())
}

async fn racing_right_attempts_have_one_winner(storage: TestStorage) -> CheckResult {
    for round in storage.rounds() {
        storage.handle().codes().put_code(&address(round), &code(round)).await?;
        let answers = race(64, |_| {
            let store = storage.handle();
            async move { store.codes().try_code(&attempt(round, round, at(0))).await }
        });
        let answers = answers.await.into_iter().collect::<Result<Vec<_>, StoreError>>()?;
        let count = |wanted| answers.iter().filter(|answer| **answer == wanted).count();
        assert_eq!(count(CodeOutcome::Accepted), 1, "of 64 right attempts: {answers:?}");
        assert_eq!(count(CodeOutcome::NotFound), 63, "of 64 right attempts: {answers:?}");
    }
    Ok(())
}

/// Drops an attempt one poll later each time, until it completes.
async fn a_dropped_code_attempt_is_atomic(storage: TestStorage) -> CheckResult {
    for polls in 0..MAX_POLLS {
        storage.handle().codes().put_code(&address(polls), &code(polls)).await?;
        let (store, right) = (storage.handle(), attempt(polls, polls, at(0)));
        let done = poll_at_most(polls, store.codes().try_code(&right)).await;
        // The dropped attempt left no lock, and the next one finds the code, or finds it consumed.
        let next = storage.handle().codes().try_code(&right).await?;
        assert_eq!(
            storage.handle().codes().try_code(&right).await?,
            CodeOutcome::NotFound,
            "a third time"
        );
        if let Some(done) = done.transpose()? {
            assert_eq!(
                (done, next),
                (CodeOutcome::Accepted, CodeOutcome::NotFound),
                "it was acknowledged"
            );
            return Ok(());
        }
        assert!(matches!(next, CodeOutcome::Accepted | CodeOutcome::NotFound), "{next:?}");
    }
    panic!("an attempt was not done after {} polls", MAX_POLLS)
}

async fn a_purge_of_codes_removes_expired_ones_up_to_its_limit(
    storage: TestStorage,
) -> CheckResult {
    for n in 1..=4 {
        // The fourth code is replaced by one that has not expired.
        storage
            .handle()
            .codes()
            .put_code(&address(n), &OneTimeCode { ends_at: at(n), ..code(n) })
            .await?;
    }
    storage.handle().codes().put_code(&address(4), &code(4)).await?;

    for purged in [2, 1, 0] {
        assert_eq!(
            storage.handle().codes().purge_codes(end(), 2).await?,
            purged,
            "at a limit of 2"
        );
    }
    for n in 1..=3 {
        assert_eq!(try_code(&storage, n, n, at(0)).await?, CodeOutcome::NotFound);
    }
    assert_eq!(try_code(&storage, 4, 4, at(0)).await?, CodeOutcome::Accepted, "it has not expired");
    Ok(())
}

/// The `n`th code.
fn code(n: u64) -> OneTimeCode {
    OneTimeCode { digest: digest(n), ends_at: end(), tries: TRIES }
}

/// The digest of the `n`th address.
fn address(n: u64) -> SecretDigest {
    digest(1_000_000 + n)
}

fn attempt(of: u64, presented: u64, at: Timestamp) -> CodeAttempt {
    CodeAttempt { address: address(of), digest: digest(presented), at }
}

async fn try_code(
    storage: &TestStorage,
    of: u64,
    presented: u64,
    at: Timestamp,
) -> Result<CodeOutcome, StoreError> {
    storage.handle().codes().try_code(&attempt(of, presented, at)).await
}

/// When the codes expire.
fn end() -> Timestamp {
    at(600)
}

const TRIES: u32 = 5;
