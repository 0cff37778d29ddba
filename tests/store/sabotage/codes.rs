use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

use async_trait::async_trait;
use keyward::{
    KeyStore, SecretDigest, Timestamp,
    store::{CodeAttempt, CodeOutcome, OneTimeCode, StoreError},
};
use tokio::task::yield_now;

use super::wrapper::{Answer, Inside, Sabotage};

/// What was put, by address.
type Codes = Mutex<HashMap<SecretDigest, OneTimeCode>>;

#[derive(Default)]
pub struct CodesWorkAgain {
    codes: Codes,
}

#[async_trait]
impl Sabotage for CodesWorkAgain {
    async fn put_code(
        &self,
        inside: &Inside,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> Answer<()> {
        self.codes.lock().unwrap().insert(*address, *code);
        inside.put_code(address, code).await
    }

    async fn try_code(&self, inside: &Inside, guess: &CodeAttempt) -> Answer<CodeOutcome> {
        let guessed = inside.try_code(guess).await?;
        if guessed == CodeOutcome::Accepted {
            let code = self.codes.lock().unwrap()[&guess.address];
            inside.put_code(&guess.address, &code).await?;
        }
        Ok(guessed)
    }
}

#[derive(Default)]
pub struct OneCodeForAll {
    last: Mutex<Option<SecretDigest>>,
}

#[async_trait]
impl Sabotage for OneCodeForAll {
    async fn put_code(
        &self,
        inside: &Inside,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> Answer<()> {
        *self.last.lock().unwrap() = Some(*address);
        inside.put_code(address, code).await
    }

    async fn try_code(&self, inside: &Inside, guess: &CodeAttempt) -> Answer<CodeOutcome> {
        let address = self.last.lock().unwrap().unwrap_or(guess.address);
        inside.try_code(&CodeAttempt { address, ..*guess }).await
    }
}

#[derive(Default)]
pub struct GrantsATryTooMany;

#[async_trait]
impl Sabotage for GrantsATryTooMany {
    async fn put_code(
        &self,
        inside: &Inside,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> Answer<()> {
        inside.put_code(address, &OneTimeCode { tries: code.tries + 1, ..*code }).await
    }
}

#[derive(Default)]
pub struct CodesLastForEver;

#[async_trait]
impl Sabotage for CodesLastForEver {
    async fn try_code(&self, inside: &Inside, guess: &CodeAttempt) -> Answer<CodeOutcome> {
        inside.try_code(&CodeAttempt { at: Timestamp::MIN, ..*guess }).await
    }
}

/// A new code for an address, with the tries that are left of the former one.
#[derive(Default)]
pub struct TriesAreOfTheAddress {
    wrong: Mutex<HashMap<SecretDigest, u32>>,
}

#[async_trait]
impl Sabotage for TriesAreOfTheAddress {
    async fn put_code(
        &self,
        inside: &Inside,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> Answer<()> {
        let wrong = self.wrong.lock().unwrap().get(address).copied().unwrap_or_default();
        inside.put_code(address, &OneTimeCode { tries: code.tries - wrong, ..*code }).await
    }

    async fn try_code(&self, inside: &Inside, guess: &CodeAttempt) -> Answer<CodeOutcome> {
        let guessed = inside.try_code(guess).await?;
        if guessed == CodeOutcome::Wrong {
            *self.wrong.lock().unwrap().entry(guess.address).or_default() += 1;
        }
        Ok(guessed)
    }
}

/// Reads the code, thinks, and writes back what it read, one try less.
#[derive(Default)]
pub struct ComparesThenTakes {
    codes: Codes,
}

#[async_trait]
impl Sabotage for ComparesThenTakes {
    async fn put_code(&self, _: &Inside, address: &SecretDigest, code: &OneTimeCode) -> Answer<()> {
        self.codes.lock().unwrap().insert(*address, *code);
        Ok(())
    }

    async fn try_code(&self, _: &Inside, guess: &CodeAttempt) -> Answer<CodeOutcome> {
        let read = self.codes.lock().unwrap().get(&guess.address).copied();
        let Some(mut code) = read else { return Ok(CodeOutcome::NotFound) };
        yield_now().await;
        let guessed = guess.check(&code);
        let mut codes = self.codes.lock().unwrap();
        match guessed {
            CodeOutcome::Accepted => _ = codes.remove(&guess.address),
            CodeOutcome::Wrong => {
                code.tries -= 1;
                codes.insert(guess.address, code);
            }
            CodeOutcome::Expired | CodeOutcome::NoTriesLeft | CodeOutcome::NotFound => {}
        }
        Ok(guessed)
    }
}

/// Marks a code as being tried, tries it, and takes the mark away.
#[derive(Default)]
pub struct MarksWhatItTries {
    tried: Mutex<HashSet<SecretDigest>>,
}

#[async_trait]
impl Sabotage for MarksWhatItTries {
    async fn try_code(&self, inside: &Inside, guess: &CodeAttempt) -> Answer<CodeOutcome> {
        if !self.tried.lock().unwrap().insert(guess.address) {
            return Err(StoreError::unavailable("somebody else is trying it"));
        }
        yield_now().await;
        let guessed = inside.try_code(guess).await;
        self.tried.lock().unwrap().remove(&guess.address);
        guessed
    }
}

#[derive(Default)]
pub struct PurgesCodesWithoutLimit;

#[async_trait]
impl Sabotage for PurgesCodesWithoutLimit {
    async fn purge_codes(&self, inside: &Inside, before: Timestamp, _: u32) -> Answer<u32> {
        inside.purge_codes(before, u32::MAX).await
    }
}

/// Forgets who asked for codes, and lets codes lie.
#[derive(Default)]
pub struct PurgesNoCodes;

#[async_trait]
impl Sabotage for PurgesNoCodes {
    async fn purge_codes(&self, _: &Inside, _: Timestamp, _: u32) -> Answer<u32> {
        Ok(0)
    }
}
