use super::{
    change::Change,
    errors::Failure,
    rows::{impossible, instant, number},
};
use crate::{
    model::KeyId,
    store::{ChargeOutcome, Counter, CounterCharge, CounterKey, records::charge_all},
};

/// Quotas. One writer at a time: between reading a counter and writing it, nobody else does.
impl Change<'_> {
    pub(super) async fn charge(
        &mut self,
        charges: &[CounterCharge<'_>],
    ) -> Result<ChargeOutcome, Failure> {
        let mut stored = Vec::with_capacity(charges.len());
        for spend in charges {
            stored.push(self.counter(spend).await?);
        }
        let (spent, after) = charge_all(charges, &stored);
        for (spend, after) in charges.iter().zip(after.into_iter().flatten()) {
            self.count(spend, after).await?;
        }
        Ok(spent)
    }

    pub(super) async fn refund(&mut self, charges: &[CounterCharge<'_>]) -> Result<(), Failure> {
        for spend in charges {
            let after = spend.refund(self.counter(spend).await?);
            self.count(spend, after).await?;
        }
        Ok(())
    }

    pub(super) async fn forget_counters(&mut self, id: KeyId) -> Result<(), Failure> {
        sqlx::query(self.sql.forget_counters.clone())
            .bind(CounterKey::Key(id).to_bytes())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    async fn counter(&mut self, spend: &CounterCharge<'_>) -> Result<Counter, Failure> {
        let row = sqlx::query(self.sql.counter.clone())
            .bind(spend.payer.to_bytes())
            .bind(spend.period.as_str())
            .fetch_optional(self.connection())
            .await?;
        let Some(row) = row else { return Ok(Counter::default()) };
        let window = instant(&row, "begun")?.ok_or_else(|| impossible("begun"))?;
        Ok(Counter { window, used: number(&row, "used")? })
    }

    async fn count(&mut self, spend: &CounterCharge<'_>, after: Counter) -> Result<(), Failure> {
        sqlx::query(self.sql.count.clone())
            .bind(spend.payer.to_bytes())
            .bind(spend.period.as_str())
            .bind(after.window.as_unix_micros())
            .bind(i64::try_from(after.used).unwrap_or(i64::MAX))
            .execute(self.connection())
            .await?;
        Ok(())
    }
}
