use std::{collections::HashMap, sync::Arc, sync::Mutex, time::Duration};

use async_trait::async_trait;
use keyward::{
    KeyId, KeyStore, Owner, Timestamp,
    model::Period,
    store::{Payer, RotateRow, RotatedRow, Spend, Spent, StoreError},
};
use tokio::{task::yield_now, time::timeout};

use super::wrapper::{Answer, Inside, Sabotage};

#[derive(Default)]
pub struct GrantsOneTooMany;

#[async_trait]
impl Sabotage for GrantsOneTooMany {
    async fn spend(&self, inside: &Inside, spends: &[Spend<'_>]) -> Answer<Spent> {
        let more = |spend: &Spend<'_>| spend.limit.saturating_add(1);
        let spends: Vec<_> =
            spends.iter().map(|spend| Spend { limit: more(spend), ..*spend }).collect();
        inside.spend(&spends).await
    }
}

#[derive(Default)]
pub struct LooksThenSpends;

#[async_trait]
impl Sabotage for LooksThenSpends {
    async fn spend(&self, inside: &Inside, spends: &[Spend<'_>]) -> Answer<Spent> {
        let look: Vec<_> =
            spends.iter().map(|spend| Spend { uses: 0, limit: u64::MAX, ..*spend }).collect();
        let Spent::Granted(used) = inside.spend(&look).await? else { unreachable!() };
        let mut both = spends.iter().zip(&used);
        if both.any(|(spend, used)| used.checked_add(spend.uses).is_none_or(|n| n > spend.limit)) {
            return Ok(Spent::Exhausted(used));
        }
        yield_now().await;
        let spends: Vec<_> =
            spends.iter().map(|spend| Spend { limit: u64::MAX, ..*spend }).collect();
        inside.spend(&spends).await
    }
}

#[derive(Default)]
pub struct SpendsOneByOne;

#[async_trait]
impl Sabotage for SpendsOneByOne {
    async fn spend(&self, inside: &Inside, spends: &[Spend<'_>]) -> Answer<Spent> {
        let mut all = Vec::new();
        for spend in spends {
            match inside.spend(&[*spend]).await? {
                Spent::Granted(used) => all.extend(used),
                Spent::Exhausted(_) => return Ok(Spent::Exhausted(all)),
            }
            yield_now().await;
        }
        Ok(Spent::Granted(all))
    }
}

/// Two who want the same two locks in opposite orders both wait, until they are told to give up.
#[derive(Default)]
pub struct LocksAsTheyCome {
    locks: Mutex<HashMap<Vec<u8>, Arc<tokio::sync::Mutex<()>>>>,
}

#[async_trait]
impl Sabotage for LocksAsTheyCome {
    async fn spend(&self, inside: &Inside, spends: &[Spend<'_>]) -> Answer<Spent> {
        let mut held = Vec::new();
        for spend in spends {
            let lock =
                self.locks.lock().unwrap().entry(spend.payer.to_bytes()).or_default().clone();
            let lock = timeout(Duration::from_millis(100), lock.lock_owned()).await;
            held.push(lock.map_err(StoreError::unavailable)?);
            yield_now().await;
        }
        inside.spend(spends).await
    }
}

#[derive(Default)]
pub struct KnowsNoPeriods;

#[async_trait]
impl Sabotage for KnowsNoPeriods {
    async fn spend(&self, inside: &Inside, spends: &[Spend<'_>]) -> Answer<Spent> {
        let forever = spends.iter().map(|spend| Spend { window: Timestamp::MIN, ..*spend });
        let spends: Vec<_> = forever.collect();
        inside.spend(&spends).await
    }
}

#[derive(Default)]
pub struct CountsByAccount;

#[async_trait]
impl Sabotage for CountsByAccount {
    async fn spend(&self, inside: &Inside, spends: &[Spend<'_>]) -> Answer<Spent> {
        let account = |payer| match payer {
            Payer::Owner(owner) => Owner::account_only(owner.account()).ok(),
            Payer::Key(_) | Payer::Guest(_) | Payer::Job(_) => None,
        };
        let accounts: Vec<_> = spends.iter().map(|spend| account(spend.payer)).collect();
        let by_account = spends.iter().zip(&accounts).map(|(spend, account)| Spend {
            payer: account.as_ref().map_or(spend.payer, Payer::Owner),
            ..*spend
        });
        let spends: Vec<_> = by_account.collect();
        inside.spend(&spends).await
    }
}

/// Gives back into whatever period there is by now.
#[derive(Default)]
pub struct RefundsIntoThePresent {
    window: Mutex<Timestamp>,
}

#[async_trait]
impl Sabotage for RefundsIntoThePresent {
    async fn spend(&self, inside: &Inside, spends: &[Spend<'_>]) -> Answer<Spent> {
        for spend in spends {
            *self.window.lock().unwrap() = spend.window;
        }
        inside.spend(spends).await
    }

    async fn refund(&self, inside: &Inside, spends: &[Spend<'_>]) -> Answer<()> {
        let window = *self.window.lock().unwrap();
        let spends: Vec<_> = spends.iter().map(|spend| Spend { window, ..*spend }).collect();
        inside.refund(&spends).await
    }
}

/// A new secret, a new life.
#[derive(Default)]
pub struct RotationsRefill {
    spent: Mutex<HashMap<KeyId, (Period, Timestamp)>>,
}

#[async_trait]
impl Sabotage for RotationsRefill {
    async fn spend(&self, inside: &Inside, spends: &[Spend<'_>]) -> Answer<Spent> {
        for spend in spends {
            if let Payer::Key(id) = spend.payer {
                self.spent.lock().unwrap().insert(id, (spend.period, spend.window));
            }
        }
        inside.spend(spends).await
    }

    async fn rotate(&self, inside: &Inside, rotate: RotateRow<'_>) -> Answer<RotatedRow> {
        let spent = self.spent.lock().unwrap().get(&rotate.key.id).copied();
        if let Some((period, window)) = spent {
            let payer = Payer::Key(rotate.key.id);
            inside.refund(&[Spend { payer, period, window, limit: 0, uses: u64::MAX }]).await?;
        }
        inside.rotate(rotate).await
    }
}
