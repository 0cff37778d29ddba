use sqlx::Row;

use super::{
    change::Change,
    errors::Failure,
    rows::{impossible, instant, number},
};
use crate::{
    model::Timestamp,
    secret::SecretDigest,
    store::{CodeAttempt, CodeOutcome, OneTimeCode},
};

/// One-time codes. One writer at a time: between comparing a code and taking it, nobody else does.
impl Change<'_> {
    pub(super) async fn put_code(
        &mut self,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> Result<(), Failure> {
        sqlx::query(self.sql.put_code.clone())
            .bind(address.to_bytes().to_vec())
            .bind(code.digest.to_bytes().to_vec())
            .bind(code.ends_at.as_unix_micros())
            .bind(code.tries)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    pub(super) async fn try_code(&mut self, guess: &CodeAttempt) -> Result<CodeOutcome, Failure> {
        let address = guess.address.to_bytes().to_vec();
        let code = sqlx::query(self.sql.code.clone()).bind(address.clone());
        let Some(row) = code.fetch_optional(self.connection()).await? else {
            return Ok(CodeOutcome::NotFound);
        };
        let guessed = guess.check(&OneTimeCode {
            digest: SecretDigest::from_bytes(row.try_get("digest")?)
                .ok_or_else(|| impossible("digest"))?,
            ends_at: instant(&row, "ends_at")?.ok_or_else(|| impossible("ends_at"))?,
            tries: number(&row, "tries")?,
        });
        let take = match guessed {
            CodeOutcome::Accepted => &self.sql.take_code,
            CodeOutcome::Wrong => &self.sql.take_try,
            CodeOutcome::Expired | CodeOutcome::NoTriesLeft | CodeOutcome::NotFound => {
                return Ok(guessed);
            }
        };
        sqlx::query(take.clone()).bind(address).execute(self.connection()).await?;
        Ok(guessed)
    }

    /// Codes that are over, then what was counted of guests.
    pub(super) async fn purge_codes(
        &mut self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, Failure> {
        let sql = self.sql;
        let codes = self.purge(&sql.purge_codes, before, limit).await?;
        Ok(codes + self.purge(&sql.purge_guests, before, limit - codes).await?)
    }
}
