use super::{
    PostgresStore,
    errors::{Failure, with_timeout},
    rows::corrupt,
    transaction::Change,
};
use crate::{
    model::Timestamp,
    secret::SecretDigest,
    store::{CodeAttempt, CodeOutcome, OneTimeCode, StoreError},
};

/// One-time codes. A code is locked from when it is read until the commit.
impl PostgresStore {
    pub(super) async fn keep_code(
        &self,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO {t}codes (address, digest, ends_at, tries) VALUES ($1, $2, $3, $4) \
            ON CONFLICT (address) DO UPDATE SET \
            digest = excluded.digest, ends_at = excluded.ends_at, tries = excluded.tries";
        let mut change = self.begin().await?;
        with_timeout(change.left(), async {
            self.names
                .query(sql)
                .bind(address.to_bytes().to_vec())
                .bind(code.digest.to_bytes().to_vec())
                .bind(code.ends_at.as_unix_micros())
                .bind(i64::from(code.tries))
                .execute(&mut *change.tx)
                .await?;
            Ok(())
        })
        .await?;
        self.conclude(change, true).await
    }

    pub(super) async fn guess_code(&self, guess: &CodeAttempt) -> Result<CodeOutcome, StoreError> {
        let mut change = self.begin().await?;
        let guessed = with_timeout(change.left(), async {
            let Some(code) = change.lock_code(&guess.address).await? else {
                return Ok(CodeOutcome::NotFound);
            };
            let guessed = guess.check(&code);
            change.take_code(&guess.address, guessed).await?;
            Ok(guessed)
        });
        let guessed = guessed.await?;
        self.conclude(change, matches!(guessed, CodeOutcome::Accepted | CodeOutcome::Wrong))
            .await?;
        Ok(guessed)
    }

    /// Codes that are over, then what was counted of guests.
    pub(super) async fn delete_codes(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        let codes = "DELETE FROM {t}codes WHERE address IN (SELECT address FROM {t}codes \
            WHERE ends_at < $1 ORDER BY ends_at LIMIT $2 FOR UPDATE SKIP LOCKED)";
        let guests = "DELETE FROM {t}quotas WHERE (payer, period) IN (SELECT payer, period \
            FROM {t}quotas WHERE payer >= '\\x03' AND payer < '\\x04' AND begun < $1 \
            ORDER BY begun LIMIT $2 FOR UPDATE SKIP LOCKED)";
        let codes = self.delete_old(codes, before, limit).await?;
        Ok(codes + self.delete_old(guests, before, limit - codes).await?)
    }
}

impl Change<'_> {
    async fn lock_code(&mut self, address: &SecretDigest) -> Result<Option<OneTimeCode>, Failure> {
        let sql = "SELECT digest, ends_at, tries FROM {t}codes WHERE address = $1 FOR UPDATE";
        let stored: Option<(Vec<u8>, i64, i64)> = self
            .names
            .query_as(sql)
            .bind(address.to_bytes().to_vec())
            .fetch_optional(&mut *self.tx)
            .await?;
        let Some((digest, ends_at, tries)) = stored else { return Ok(None) };
        Ok(Some(OneTimeCode {
            digest: SecretDigest::from_bytes(&digest).ok_or_else(|| corrupt("digest"))?,
            ends_at: Timestamp::from_unix_micros(ends_at),
            tries: u32::try_from(tries).map_err(|_| corrupt("tries"))?,
        }))
    }

    /// Takes a code that was locked, or one of its tries.
    async fn take_code(
        &mut self,
        address: &SecretDigest,
        guessed: CodeOutcome,
    ) -> Result<(), Failure> {
        let sql = match guessed {
            CodeOutcome::Accepted => "DELETE FROM {t}codes WHERE address = $1",
            CodeOutcome::Wrong => "UPDATE {t}codes SET tries = tries - 1 WHERE address = $1",
            CodeOutcome::Expired | CodeOutcome::NoTriesLeft | CodeOutcome::NotFound => {
                return Ok(());
            }
        };
        let address = address.to_bytes().to_vec();
        self.names.query(sql).bind(address).execute(&mut *self.tx).await?;
        Ok(())
    }
}
