use super::{
    connections::Transaction,
    errors::SqlFailure,
    records::{digest, instant, number},
};
use crate::{
    model::KeyId,
    secret::SecretDigest,
    store::{
        ChargeOutcome, CodeAttempt, CodeOutcome, Counter, CounterCharge, CounterKey, HourlyUsage,
        OneTimeCode,
    },
};

/// Counters of quotas. SQLite has one writer at a time, so no other write comes between reading a
/// counter and writing it.
impl Transaction<'_> {
    pub(super) async fn charge(
        &mut self,
        charges: &[CounterCharge<'_>],
    ) -> Result<ChargeOutcome, SqlFailure> {
        let mut stored = Vec::with_capacity(charges.len());
        for charge in charges {
            stored.push(self.counter(charge).await?);
        }
        let (outcome, after) = CounterCharge::charge_all(charges, &stored);
        for (charge, after) in charges.iter().zip(after.into_iter().flatten()) {
            self.set_counter(charge, after).await?;
        }
        Ok(outcome)
    }

    pub(super) async fn refund(&mut self, charges: &[CounterCharge<'_>]) -> Result<(), SqlFailure> {
        for charge in charges {
            let after = charge.refund(self.counter(charge).await?);
            self.set_counter(charge, after).await?;
        }
        Ok(())
    }

    pub(super) async fn delete_counters(&mut self, id: KeyId) -> Result<(), SqlFailure> {
        sqlx::query(self.sql.delete_counters.clone())
            .bind(CounterKey::Key(id).to_bytes())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    async fn counter(&mut self, charge: &CounterCharge<'_>) -> Result<Counter, SqlFailure> {
        let row = sqlx::query(self.sql.get_counter.clone())
            .bind(charge.counter_key.to_bytes())
            .bind(charge.period.as_str())
            .fetch_optional(self.connection())
            .await?;
        let Some(row) = row else { return Ok(Counter::default()) };
        Ok(Counter { window: instant(&row, "window_start")?, used: number(&row, "used")? })
    }

    async fn set_counter(
        &mut self,
        charge: &CounterCharge<'_>,
        after: Counter,
    ) -> Result<(), SqlFailure> {
        sqlx::query(self.sql.set_counter.clone())
            .bind(charge.counter_key.to_bytes())
            .bind(charge.period.as_str())
            .bind(after.window.as_unix_micros())
            .bind(i64::try_from(after.used).unwrap_or(i64::MAX))
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

/// Hourly usage.
impl Transaction<'_> {
    pub(super) async fn add_usage(&mut self, usage: &[HourlyUsage]) -> Result<(), SqlFailure> {
        for hour in usage {
            let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
            sqlx::query(self.sql.add_usage.clone())
                .bind(hour.key_id.as_bytes().as_slice())
                .bind(hour.hour.as_unix_micros())
                .bind(count(hour.accepted))
                .bind(count(hour.denied))
                .bind(count(hour.limited))
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }
}

/// One-time codes. SQLite has one writer at a time, so no other write comes between comparing a
/// code and using it up.
impl Transaction<'_> {
    pub(super) async fn put_code(
        &mut self,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> Result<(), SqlFailure> {
        sqlx::query(self.sql.put_code.clone())
            .bind(address.to_bytes().to_vec())
            .bind(code.digest.to_bytes().to_vec())
            .bind(code.ends_at.as_unix_micros())
            .bind(code.tries)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    pub(super) async fn try_code(
        &mut self,
        attempt: &CodeAttempt,
    ) -> Result<CodeOutcome, SqlFailure> {
        let address = attempt.address.to_bytes().to_vec();
        let get = sqlx::query(self.sql.get_code.clone()).bind(address.clone());
        let Some(row) = get.fetch_optional(self.connection()).await? else {
            return Ok(CodeOutcome::NotFound);
        };
        let outcome = attempt.check(&OneTimeCode {
            digest: digest(&row)?,
            ends_at: instant(&row, "ends_at")?,
            tries: number(&row, "tries")?,
        });
        let change = match outcome {
            CodeOutcome::Accepted => &self.sql.delete_code,
            CodeOutcome::Wrong => &self.sql.decrement_tries,
            CodeOutcome::Expired | CodeOutcome::NoTriesLeft | CodeOutcome::NotFound => {
                return Ok(outcome);
            }
        };
        sqlx::query(change.clone()).bind(address).execute(self.connection()).await?;
        Ok(outcome)
    }
}
