use std::{collections::HashMap, sync::Arc, sync::Mutex, time::Duration};

use async_trait::async_trait;
use keyward::{
    KeyId, KeyStore, Owner, Timestamp,
    model::Period,
    store::{ChargeOutcome, CounterCharge, CounterKey, RotateOutcome, RotateSecret, StoreError},
};
use tokio::{task::yield_now, time::timeout};

use super::wrapper::{Answer, Inside, Sabotage};

#[derive(Default)]
pub struct GrantsOneTooMany;

#[async_trait]
impl Sabotage for GrantsOneTooMany {
    async fn charge(
        &self,
        inside: &Inside,
        charges: &[CounterCharge<'_>],
    ) -> Answer<ChargeOutcome> {
        let more = |spend: &CounterCharge<'_>| spend.limit.saturating_add(1);
        let charges: Vec<_> =
            charges.iter().map(|spend| CounterCharge { limit: more(spend), ..*spend }).collect();
        inside.charge(&charges).await
    }
}

#[derive(Default)]
pub struct LooksThenSpends;

#[async_trait]
impl Sabotage for LooksThenSpends {
    async fn charge(
        &self,
        inside: &Inside,
        charges: &[CounterCharge<'_>],
    ) -> Answer<ChargeOutcome> {
        let look: Vec<_> = charges
            .iter()
            .map(|spend| CounterCharge { uses: 0, limit: u64::MAX, ..*spend })
            .collect();
        let ChargeOutcome::Granted(used) = inside.charge(&look).await? else { unreachable!() };
        let mut both = charges.iter().zip(&used);
        if both.any(|(spend, used)| used.checked_add(spend.uses).is_none_or(|n| n > spend.limit)) {
            return Ok(ChargeOutcome::Exhausted(used));
        }
        yield_now().await;
        let charges: Vec<_> =
            charges.iter().map(|spend| CounterCharge { limit: u64::MAX, ..*spend }).collect();
        inside.charge(&charges).await
    }
}

#[derive(Default)]
pub struct SpendsOneByOne;

#[async_trait]
impl Sabotage for SpendsOneByOne {
    async fn charge(
        &self,
        inside: &Inside,
        charges: &[CounterCharge<'_>],
    ) -> Answer<ChargeOutcome> {
        let mut all = Vec::new();
        for spend in charges {
            match inside.charge(&[*spend]).await? {
                ChargeOutcome::Granted(used) => all.extend(used),
                ChargeOutcome::Exhausted(_) => return Ok(ChargeOutcome::Exhausted(all)),
            }
            yield_now().await;
        }
        Ok(ChargeOutcome::Granted(all))
    }
}

/// Two who want the same two locks in opposite orders both wait, until they are told to give up.
#[derive(Default)]
pub struct LocksAsTheyCome {
    locks: Mutex<HashMap<Vec<u8>, Arc<tokio::sync::Mutex<()>>>>,
}

#[async_trait]
impl Sabotage for LocksAsTheyCome {
    async fn charge(
        &self,
        inside: &Inside,
        charges: &[CounterCharge<'_>],
    ) -> Answer<ChargeOutcome> {
        let mut held = Vec::new();
        for spend in charges {
            let lock =
                self.locks.lock().unwrap().entry(spend.payer.to_bytes()).or_default().clone();
            let lock = timeout(Duration::from_millis(100), lock.lock_owned()).await;
            held.push(lock.map_err(StoreError::unavailable)?);
            yield_now().await;
        }
        inside.charge(charges).await
    }
}

#[derive(Default)]
pub struct KnowsNoPeriods;

#[async_trait]
impl Sabotage for KnowsNoPeriods {
    async fn charge(
        &self,
        inside: &Inside,
        charges: &[CounterCharge<'_>],
    ) -> Answer<ChargeOutcome> {
        let forever =
            charges.iter().map(|spend| CounterCharge { window: Timestamp::MIN, ..*spend });
        let charges: Vec<_> = forever.collect();
        inside.charge(&charges).await
    }
}

#[derive(Default)]
pub struct CountsByAccount;

#[async_trait]
impl Sabotage for CountsByAccount {
    async fn charge(
        &self,
        inside: &Inside,
        charges: &[CounterCharge<'_>],
    ) -> Answer<ChargeOutcome> {
        let account = |payer| match payer {
            CounterKey::Owner(owner) => Owner::account_only(owner.account()).ok(),
            CounterKey::Key(_) | CounterKey::Anonymous(_) | CounterKey::Job(_) => None,
        };
        let accounts: Vec<_> = charges.iter().map(|spend| account(spend.payer)).collect();
        let by_account = charges.iter().zip(&accounts).map(|(spend, account)| CounterCharge {
            payer: account.as_ref().map_or(spend.payer, CounterKey::Owner),
            ..*spend
        });
        let charges: Vec<_> = by_account.collect();
        inside.charge(&charges).await
    }
}

/// Gives back into whatever period there is by now.
#[derive(Default)]
pub struct RefundsIntoThePresent {
    window: Mutex<Timestamp>,
}

#[async_trait]
impl Sabotage for RefundsIntoThePresent {
    async fn charge(
        &self,
        inside: &Inside,
        charges: &[CounterCharge<'_>],
    ) -> Answer<ChargeOutcome> {
        for spend in charges {
            *self.window.lock().unwrap() = spend.window;
        }
        inside.charge(charges).await
    }

    async fn refund(&self, inside: &Inside, charges: &[CounterCharge<'_>]) -> Answer<()> {
        let window = *self.window.lock().unwrap();
        let charges: Vec<_> =
            charges.iter().map(|spend| CounterCharge { window, ..*spend }).collect();
        inside.refund(&charges).await
    }
}

/// A new secret, a new life.
#[derive(Default)]
pub struct RotationsRefill {
    spent: Mutex<HashMap<KeyId, (Period, Timestamp)>>,
}

#[async_trait]
impl Sabotage for RotationsRefill {
    async fn charge(
        &self,
        inside: &Inside,
        charges: &[CounterCharge<'_>],
    ) -> Answer<ChargeOutcome> {
        for spend in charges {
            if let CounterKey::Key(id) = spend.payer {
                self.spent.lock().unwrap().insert(id, (spend.period, spend.window));
            }
        }
        inside.charge(charges).await
    }

    async fn rotate(&self, inside: &Inside, rotate: RotateSecret<'_>) -> Answer<RotateOutcome> {
        let spent = self.spent.lock().unwrap().get(&rotate.key.id).copied();
        if let Some((period, window)) = spent {
            let payer = CounterKey::Key(rotate.key.id);
            inside
                .refund(&[CounterCharge { payer, period, window, limit: 0, uses: u64::MAX }])
                .await?;
        }
        inside.rotate(rotate).await
    }
}
