use super::{
    PostgresStore,
    errors::{Failure, with_timeout},
    rows::corrupt,
    transaction::Change,
};
use crate::{
    model::{KeyId, Timestamp},
    store::{ChargeOutcome, Counter, CounterCharge, CounterKey, StoreError, records::charge_all},
};

/// Quotas. A counter is locked from when it is read until the commit.
impl PostgresStore {
    pub(super) async fn spend_quotas(
        &self,
        charges: &[CounterCharge<'_>],
    ) -> Result<ChargeOutcome, StoreError> {
        let mut change = self.begin().await?;
        let spent = with_timeout(change.left(), async {
            let stored = change.lock_counters(charges).await?;
            let (spent, after) = charge_all(charges, &stored);
            if let Some(after) = &after {
                change.count(charges, after).await?;
            }
            Ok((spent, after.is_some()))
        });
        let (spent, granted) = spent.await?;
        self.conclude(change, granted).await?;
        Ok(spent)
    }

    pub(super) async fn refund_quotas(
        &self,
        charges: &[CounterCharge<'_>],
    ) -> Result<(), StoreError> {
        let mut change = self.begin().await?;
        with_timeout(change.left(), async {
            let stored = change.lock_counters(charges).await?;
            let pairs = charges.iter().zip(stored);
            let after: Vec<_> = pairs.map(|(spend, stored)| spend.refund(stored)).collect();
            change.count(charges, &after).await
        })
        .await?;
        self.conclude(change, true).await
    }
}

impl Change<'_> {
    /// Reads counters, making those that are not there, and locks them in one order for all, so
    /// that two calls cannot wait for each other. An `UPDATE` to what is there is the lock.
    async fn lock_counters(
        &mut self,
        charges: &[CounterCharge<'_>],
    ) -> Result<Vec<Counter>, Failure> {
        let sql = "WITH locked AS (\
                INSERT INTO {t}quotas AS q (payer, period, begun, used) \
                SELECT payer, period, 0, 0 FROM unnest($1::bytea[], $2::text[]) AS s (payer, period) \
                ORDER BY payer, period \
                ON CONFLICT (payer, period) DO UPDATE SET used = q.used \
                RETURNING payer, period, begun, used) \
            SELECT begun, used FROM unnest($1::bytea[], $2::text[]) WITH ORDINALITY \
                AS s (payer, period, n) JOIN locked USING (payer, period) ORDER BY n";
        let (payers, periods) = names(charges);
        let stored: Vec<(i64, i64)> =
            self.names.query_as(sql).bind(payers).bind(periods).fetch_all(&mut *self.tx).await?;
        stored.into_iter().map(counter).collect()
    }

    async fn count(
        &mut self,
        charges: &[CounterCharge<'_>],
        after: &[Counter],
    ) -> Result<(), Failure> {
        let sql = "UPDATE {t}quotas q SET begun = s.begun, used = s.used \
            FROM unnest($1::bytea[], $2::text[], $3::bigint[], $4::bigint[]) \
            AS s (payer, period, begun, used) WHERE q.payer = s.payer AND q.period = s.period";
        let (payers, periods) = names(charges);
        let begun: Vec<_> = after.iter().map(|after| after.window.as_unix_micros()).collect();
        let used = after.iter().map(|after| i64::try_from(after.used).unwrap_or(i64::MAX));
        self.names
            .query(sql)
            .bind(payers)
            .bind(periods)
            .bind(begun)
            .bind(used.collect::<Vec<_>>())
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    pub(super) async fn forget_counters(
        &mut self,
        ids: impl Iterator<Item = KeyId>,
    ) -> Result<(), Failure> {
        let payers: Vec<_> = ids.map(|id| CounterKey::Key(id).to_bytes()).collect();
        let sql = "DELETE FROM {t}quotas WHERE payer = ANY($1)";
        self.names.query(sql).bind(payers).execute(&mut *self.tx).await?;
        Ok(())
    }
}

fn names(charges: &[CounterCharge<'_>]) -> (Vec<Vec<u8>>, Vec<&'static str>) {
    charges.iter().map(|spend| (spend.payer.to_bytes(), spend.period.as_str())).unzip()
}

fn counter((begun, used): (i64, i64)) -> Result<Counter, Failure> {
    let window = Timestamp::from_unix_micros(begun);
    if window.as_unix_micros() != begun {
        return Err(corrupt("begun").into());
    }
    Ok(Counter { window, used: u64::try_from(used).map_err(|_| corrupt("used"))? })
}
