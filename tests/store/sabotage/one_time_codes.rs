//! Broken one-time codes.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

use async_trait::async_trait;
use keyward::{
    SecretDigest, Timestamp,
    store::{CodeAttempt, CodeOutcome, OneTimeCode, OneTimeCodes, StoreError},
};
use tokio::task::yield_now;

use super::wrapper::{Inner, Sabotage, StoreResult};

/// The stored codes by address.
type Codes = Mutex<HashMap<SecretDigest, OneTimeCode>>;

#[derive(Default)]
pub struct CodesCanBeReused {
    codes: Codes,
}

#[async_trait]
impl Sabotage for CodesCanBeReused {
    async fn put_code(
        &self,
        inner: &Inner,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> StoreResult<()> {
        self.codes.lock().unwrap().insert(*address, *code);
        inner.put_code(address, code).await
    }

    async fn try_code(&self, inner: &Inner, attempt: &CodeAttempt) -> StoreResult<CodeOutcome> {
        let outcome = inner.try_code(attempt).await?;
        if outcome == CodeOutcome::Accepted {
            let code = self.codes.lock().unwrap()[&attempt.address];
            inner.put_code(&attempt.address, &code).await?;
        }
        Ok(outcome)
    }
}

#[derive(Default)]
pub struct IgnoresTheAddress {
    last: Mutex<Option<SecretDigest>>,
}

#[async_trait]
impl Sabotage for IgnoresTheAddress {
    async fn put_code(
        &self,
        inner: &Inner,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> StoreResult<()> {
        *self.last.lock().unwrap() = Some(*address);
        inner.put_code(address, code).await
    }

    async fn try_code(&self, inner: &Inner, attempt: &CodeAttempt) -> StoreResult<CodeOutcome> {
        let address = self.last.lock().unwrap().unwrap_or(attempt.address);
        inner.try_code(&CodeAttempt { address, ..*attempt }).await
    }
}

#[derive(Default)]
pub struct GrantsAnExtraTry;

#[async_trait]
impl Sabotage for GrantsAnExtraTry {
    async fn put_code(
        &self,
        inner: &Inner,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> StoreResult<()> {
        inner.put_code(address, &OneTimeCode { tries: code.tries + 1, ..*code }).await
    }
}

#[derive(Default)]
pub struct CodesNeverExpire;

#[async_trait]
impl Sabotage for CodesNeverExpire {
    async fn try_code(&self, inner: &Inner, attempt: &CodeAttempt) -> StoreResult<CodeOutcome> {
        inner.try_code(&CodeAttempt { at: Timestamp::MIN, ..*attempt }).await
    }
}

/// A new code for an address starts with the tries that the old one had left.
#[derive(Default)]
pub struct NewCodesInheritUsedTries {
    wrong: Mutex<HashMap<SecretDigest, u32>>,
}

#[async_trait]
impl Sabotage for NewCodesInheritUsedTries {
    async fn put_code(
        &self,
        inner: &Inner,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> StoreResult<()> {
        let wrong = self.wrong.lock().unwrap().get(address).copied().unwrap_or_default();
        inner.put_code(address, &OneTimeCode { tries: code.tries - wrong, ..*code }).await
    }

    async fn try_code(&self, inner: &Inner, attempt: &CodeAttempt) -> StoreResult<CodeOutcome> {
        let outcome = inner.try_code(attempt).await?;
        if outcome == CodeOutcome::Wrong {
            *self.wrong.lock().unwrap().entry(attempt.address).or_default() += 1;
        }
        Ok(outcome)
    }
}

/// Reads the code, yields, and writes it back with one try less.
#[derive(Default)]
pub struct ReadsThenConsumes {
    codes: Codes,
}

#[async_trait]
impl Sabotage for ReadsThenConsumes {
    async fn put_code(
        &self,
        _: &Inner,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> StoreResult<()> {
        self.codes.lock().unwrap().insert(*address, *code);
        Ok(())
    }

    async fn try_code(&self, _: &Inner, attempt: &CodeAttempt) -> StoreResult<CodeOutcome> {
        let read = self.codes.lock().unwrap().get(&attempt.address).copied();
        let Some(mut code) = read else { return Ok(CodeOutcome::NotFound) };
        yield_now().await;
        let outcome = attempt.check(&code);
        let mut codes = self.codes.lock().unwrap();
        match outcome {
            CodeOutcome::Accepted => _ = codes.remove(&attempt.address),
            CodeOutcome::Wrong => {
                code.tries -= 1;
                codes.insert(attempt.address, code);
            }
            CodeOutcome::Expired | CodeOutcome::NoTriesLeft | CodeOutcome::NotFound => {}
        }
        Ok(outcome)
    }
}

/// Locks a code while it is tried. If the future is dropped, the lock stays.
#[derive(Default)]
pub struct LeavesALockWhenDropped {
    locked: Mutex<HashSet<SecretDigest>>,
}

#[async_trait]
impl Sabotage for LeavesALockWhenDropped {
    async fn try_code(&self, inner: &Inner, attempt: &CodeAttempt) -> StoreResult<CodeOutcome> {
        if !self.locked.lock().unwrap().insert(attempt.address) {
            return Err(StoreError::unavailable("the code is locked"));
        }
        yield_now().await;
        let outcome = inner.try_code(attempt).await;
        self.locked.lock().unwrap().remove(&attempt.address);
        outcome
    }
}

#[derive(Default)]
pub struct PurgesCodesWithoutLimit;

#[async_trait]
impl Sabotage for PurgesCodesWithoutLimit {
    async fn purge_codes(&self, inner: &Inner, before: Timestamp, _: u32) -> StoreResult<u32> {
        inner.purge_codes(before, u32::MAX).await
    }
}

/// Purges neither codes nor counters.
#[derive(Default)]
pub struct PurgesNoCodes;

#[async_trait]
impl Sabotage for PurgesNoCodes {
    async fn purge_codes(&self, _: &Inner, _: Timestamp, _: u32) -> StoreResult<u32> {
        Ok(0)
    }
}
