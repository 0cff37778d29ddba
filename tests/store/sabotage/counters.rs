//! Broken quota counters.

use std::{collections::HashMap, sync::Arc, sync::Mutex, time::Duration};

use async_trait::async_trait;
use keyward::{
    KeyId, KeyStore, Owner, Timestamp,
    model::Period,
    store::{
        ChargeOutcome, CounterCharge, CounterKey, Counters, RotateOutcome, RotateSecret, StoreError,
    },
};
use tokio::{task::yield_now, time::timeout};

use super::wrapper::{Inner, Sabotage, StoreResult};

#[derive(Default)]
pub struct GrantsOneTooMany;

#[async_trait]
impl Sabotage for GrantsOneTooMany {
    async fn charge(
        &self,
        inner: &Inner,
        charges: &[CounterCharge<'_>],
    ) -> StoreResult<ChargeOutcome> {
        let more = |charge: &CounterCharge<'_>| charge.limit.saturating_add(1);
        let charges: Vec<_> =
            charges.iter().map(|charge| CounterCharge { limit: more(charge), ..*charge }).collect();
        inner.charge(&charges).await
    }
}

#[derive(Default)]
pub struct ReadsThenCharges;

#[async_trait]
impl Sabotage for ReadsThenCharges {
    async fn charge(
        &self,
        inner: &Inner,
        charges: &[CounterCharge<'_>],
    ) -> StoreResult<ChargeOutcome> {
        let look: Vec<_> = charges
            .iter()
            .map(|charge| CounterCharge { uses: 0, limit: u64::MAX, ..*charge })
            .collect();
        let ChargeOutcome::Granted(used) = inner.charge(&look).await? else { unreachable!() };
        let mut both = charges.iter().zip(&used);
        if both.any(|(charge, used)| used.checked_add(charge.uses).is_none_or(|n| n > charge.limit))
        {
            return Ok(ChargeOutcome::Exhausted(used));
        }
        yield_now().await;
        let charges: Vec<_> =
            charges.iter().map(|charge| CounterCharge { limit: u64::MAX, ..*charge }).collect();
        inner.charge(&charges).await
    }
}

#[derive(Default)]
pub struct ChargesOneByOne;

#[async_trait]
impl Sabotage for ChargesOneByOne {
    async fn charge(
        &self,
        inner: &Inner,
        charges: &[CounterCharge<'_>],
    ) -> StoreResult<ChargeOutcome> {
        let mut all = Vec::new();
        for charge in charges {
            match inner.charge(&[*charge]).await? {
                ChargeOutcome::Granted(used) => all.extend(used),
                ChargeOutcome::Exhausted(_) => return Ok(ChargeOutcome::Exhausted(all)),
            }
            yield_now().await;
        }
        Ok(ChargeOutcome::Granted(all))
    }
}

/// Two tasks that take the same two locks in opposite orders deadlock until a timeout.
#[derive(Default)]
pub struct LocksInArgumentOrder {
    locks: Mutex<HashMap<Vec<u8>, Arc<tokio::sync::Mutex<()>>>>,
}

#[async_trait]
impl Sabotage for LocksInArgumentOrder {
    async fn charge(
        &self,
        inner: &Inner,
        charges: &[CounterCharge<'_>],
    ) -> StoreResult<ChargeOutcome> {
        let mut held = Vec::new();
        for charge in charges {
            let lock = self
                .locks
                .lock()
                .unwrap()
                .entry(charge.counter_key.to_bytes())
                .or_default()
                .clone();
            let lock = timeout(Duration::from_millis(100), lock.lock_owned()).await;
            held.push(lock.map_err(StoreError::unavailable)?);
            yield_now().await;
        }
        inner.charge(charges).await
    }
}

#[derive(Default)]
pub struct IgnoresPeriods;

#[async_trait]
impl Sabotage for IgnoresPeriods {
    async fn charge(
        &self,
        inner: &Inner,
        charges: &[CounterCharge<'_>],
    ) -> StoreResult<ChargeOutcome> {
        let one_period =
            charges.iter().map(|charge| CounterCharge { window: Timestamp::MIN, ..*charge });
        let charges: Vec<_> = one_period.collect();
        inner.charge(&charges).await
    }
}

#[derive(Default)]
pub struct KeepsPeriodsOfAWrongClock;

#[async_trait]
impl Sabotage for KeepsPeriodsOfAWrongClock {
    async fn charge(
        &self,
        inner: &Inner,
        charges: &[CounterCharge<'_>],
    ) -> StoreResult<ChargeOutcome> {
        let latest_window = Timestamp::MAX;
        let charges = charges.iter().map(|charge| CounterCharge { latest_window, ..*charge });
        inner.charge(&charges.collect::<Vec<_>>()).await
    }
}

/// Takes each period that is not the current one for one of a wrong clock.
#[derive(Default)]
pub struct ReopensOldPeriods;

#[async_trait]
impl Sabotage for ReopensOldPeriods {
    async fn charge(
        &self,
        inner: &Inner,
        charges: &[CounterCharge<'_>],
    ) -> StoreResult<ChargeOutcome> {
        let exactly = |charge: &CounterCharge<'_>| charge.window.min(charge.latest_window);
        let charges = charges
            .iter()
            .map(|charge| CounterCharge { latest_window: exactly(charge), ..*charge });
        inner.charge(&charges.collect::<Vec<_>>()).await
    }
}

#[derive(Default)]
pub struct IgnoresTheTenant;

#[async_trait]
impl Sabotage for IgnoresTheTenant {
    async fn charge(
        &self,
        inner: &Inner,
        charges: &[CounterCharge<'_>],
    ) -> StoreResult<ChargeOutcome> {
        let account = |counter_key| match counter_key {
            CounterKey::Owner(owner) => Owner::account_only(owner.account()).ok(),
            CounterKey::Key(_) | CounterKey::Anonymous(_) | CounterKey::Job(_) => None,
        };
        let accounts: Vec<_> = charges.iter().map(|charge| account(charge.counter_key)).collect();
        let by_account = charges.iter().zip(&accounts).map(|(charge, account)| CounterCharge {
            counter_key: account.as_ref().map_or(charge.counter_key, CounterKey::Owner),
            ..*charge
        });
        let charges: Vec<_> = by_account.collect();
        inner.charge(&charges).await
    }
}

/// Refunds into the current period, not the charged one.
#[derive(Default)]
pub struct RefundsIntoTheCurrentPeriod {
    window: Mutex<Timestamp>,
}

#[async_trait]
impl Sabotage for RefundsIntoTheCurrentPeriod {
    async fn charge(
        &self,
        inner: &Inner,
        charges: &[CounterCharge<'_>],
    ) -> StoreResult<ChargeOutcome> {
        for charge in charges {
            *self.window.lock().unwrap() = charge.window;
        }
        inner.charge(charges).await
    }

    async fn refund(&self, inner: &Inner, charges: &[CounterCharge<'_>]) -> StoreResult<()> {
        let window = *self.window.lock().unwrap();
        let charges: Vec<_> =
            charges.iter().map(|charge| CounterCharge { window, ..*charge }).collect();
        inner.refund(&charges).await
    }
}

/// A new secret resets the key's counters.
#[derive(Default)]
pub struct RotationsResetCounters {
    charged: Mutex<HashMap<KeyId, (Period, Timestamp)>>,
}

#[async_trait]
impl Sabotage for RotationsResetCounters {
    async fn charge(
        &self,
        inner: &Inner,
        charges: &[CounterCharge<'_>],
    ) -> StoreResult<ChargeOutcome> {
        for charge in charges {
            if let CounterKey::Key(id) = charge.counter_key {
                self.charged.lock().unwrap().insert(id, (charge.period, charge.window));
            }
        }
        inner.charge(charges).await
    }

    async fn rotate(&self, inner: &Inner, rotate: RotateSecret<'_>) -> StoreResult<RotateOutcome> {
        let charged = self.charged.lock().unwrap().get(&rotate.key.id).copied();
        if let Some((period, window)) = charged {
            let counter_key = CounterKey::Key(rotate.key.id);
            let latest_window = Timestamp::MAX;
            let (limit, uses) = (0, u64::MAX);
            let charge = CounterCharge { counter_key, period, window, latest_window, limit, uses };
            inner.refund(&[charge]).await?;
        }
        inner.rotate(rotate).await
    }
}

#[derive(Default)]
pub struct PurgesCountersWithoutLimit;

#[async_trait]
impl Sabotage for PurgesCountersWithoutLimit {
    async fn purge_counters(&self, inner: &Inner, before: Timestamp, _: u32) -> StoreResult<u32> {
        inner.purge_counters(before, u32::MAX).await
    }
}
