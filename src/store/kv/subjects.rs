//! Counters, usage history and one-time codes.

use async_trait::async_trait;

use super::{
    KvError, KvOrder, KvStore, Work,
    layout::{self, after_prefix, damaged, instant, join, last, read_instant, take},
};
use crate::{
    model::{KeyId, OwnerScope, Timestamp},
    secret::SecretDigest,
    store::{
        ChargeOutcome, CodeAttempt, CodeOutcome, Counter, CounterCharge, CounterKey, Counters,
        HourlyUsage, OneTimeCode, OneTimeCodes, StoreError, UsageHistory,
    },
};

#[async_trait]
impl Counters for KvStore {
    async fn charge(&self, charges: &[CounterCharge<'_>]) -> Result<ChargeOutcome, StoreError> {
        self.write(async |work| {
            let mut stored = Vec::with_capacity(charges.len());
            for charge in charges {
                stored.push(work.counter(charge).await?);
            }
            let (outcome, after) = CounterCharge::charge_all(charges, &stored);
            for ((charge, stored), after) in
                charges.iter().zip(stored).zip(after.into_iter().flatten())
            {
                work.set_counter(charge, stored, after);
            }
            Ok(outcome)
        })
        .await
    }

    async fn refund(&self, charges: &[CounterCharge<'_>]) -> Result<(), StoreError> {
        self.write(async |work| {
            for charge in charges {
                let stored = work.counter(charge).await?;
                work.set_counter(charge, stored, charge.refund(stored));
            }
            Ok(())
        })
        .await
    }

    async fn purge_counters(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.write(async |work| {
            let old = work.older(b'g', before, limit).await?;
            for (entry, _) in &old {
                work.delete(join(b'q', &[entry.get(9..).ok_or_else(damaged)?]));
                work.delete(entry.clone());
            }
            Ok(old.len() as u32)
        })
        .await
    }
}

#[async_trait]
impl UsageHistory for KvStore {
    async fn add_usage(&self, usage: &[HourlyUsage]) -> Result<(), StoreError> {
        self.write(async |work| {
            for added in usage {
                if work.get(&layout::key(added.key_id)).await?.is_none() {
                    continue;
                }
                let (id, hour) = (added.key_id.as_bytes(), instant(added.hour));
                let entry = join(b'u', &[id, &hour]);
                let [accepted, denied, limited] = match work.get(&entry).await? {
                    Some(counts) => read_counts(&counts)?,
                    None => [0; 3],
                };
                let sums = [
                    accepted.saturating_add(added.accepted),
                    denied.saturating_add(added.denied),
                    limited.saturating_add(added.limited),
                ];
                work.put(entry, sums.map(u64::to_be_bytes).concat());
                work.put(join(b'h', &[&hour, id]), Vec::new());
            }
            Ok(())
        })
        .await
    }

    async fn hourly_usage(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Result<Vec<HourlyUsage>, StoreError> {
        self.read(async |work| {
            if work.row_within(within, id).await?.is_none() {
                return Ok(Vec::new());
            }
            let end = after_prefix(&join(b'u', &[id.as_bytes()]));
            let from = join(b'u', &[id.as_bytes(), &instant(from)]);
            let mut hours = Vec::new();
            for (entry, counts) in work.scan(&from..&end, KvOrder::Ascending, usize::MAX).await? {
                let [accepted, denied, limited] = read_counts(&counts)?;
                let hour = read_instant(last(&entry)?)?;
                hours.push(HourlyUsage { key_id: id, hour, accepted, denied, limited });
            }
            Ok(hours)
        })
        .await
    }

    async fn purge_usage(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.write(async |work| {
            let old = work.older(b'h', before, limit).await?;
            for (entry, _) in &old {
                let mut parts = entry.get(1..).ok_or_else(damaged)?;
                let hour: [u8; 8] = take(&mut parts)?;
                work.delete(join(b'u', &[parts, &hour]));
                work.delete(entry.clone());
            }
            Ok(old.len() as u32)
        })
        .await
    }
}

#[async_trait]
impl OneTimeCodes for KvStore {
    async fn put_code(&self, address: &SecretDigest, code: &OneTimeCode) -> Result<(), StoreError> {
        self.write(async |work| {
            if let Some(former) = work.code(address).await? {
                work.delete(end_of_code(address, &former));
            }
            work.put(end_of_code(address, code), Vec::new());
            work.set_code(address, code);
            Ok(())
        })
        .await
    }

    async fn try_code(&self, attempt: &CodeAttempt) -> Result<CodeOutcome, StoreError> {
        let address = &attempt.address;
        self.write(async |work| {
            let Some(code) = work.code(address).await? else { return Ok(CodeOutcome::NotFound) };
            let outcome = attempt.check(&code);
            match outcome {
                CodeOutcome::Accepted => {
                    work.delete(end_of_code(address, &code));
                    work.delete(code_key(address));
                }
                CodeOutcome::Wrong => {
                    work.set_code(address, &OneTimeCode { tries: code.tries - 1, ..code });
                }
                CodeOutcome::Expired | CodeOutcome::NoTriesLeft | CodeOutcome::NotFound => {}
            }
            Ok(outcome)
        })
        .await
    }

    async fn purge_codes(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.write(async |work| {
            let old = work.older(b'n', before, limit).await?;
            for (entry, _) in &old {
                work.delete(join(b'p', &[entry.get(9..).ok_or_else(damaged)?]));
                work.delete(entry.clone());
            }
            Ok(old.len() as u32)
        })
        .await
    }
}

impl Work {
    async fn counter(&mut self, charge: &CounterCharge<'_>) -> Result<Counter, KvError> {
        let Some(stored) = self.get(&counter_key(charge)).await? else {
            return Ok(Counter::default());
        };
        let mut stored = &stored[..];
        let window = read_instant(take(&mut stored)?)?;
        Ok(Counter { window, used: layout::number(stored)? })
    }

    /// Replaces a counter. Those of anonymous callers are indexed by age, so that they can be purged.
    fn set_counter(&mut self, charge: &CounterCharge<'_>, before: Counter, after: Counter) {
        if matches!(charge.counter_key, CounterKey::Anonymous(_)) {
            let counter = layout::counter(&charge.counter_key, charge.period);
            self.delete(join(b'g', &[&instant(before.window), &counter]));
            self.put(join(b'g', &[&instant(after.window), &counter]), Vec::new());
        }
        let value = [instant(after.window), after.used.to_be_bytes()].concat();
        self.put(counter_key(charge), value);
    }

    async fn code(&mut self, address: &SecretDigest) -> Result<Option<OneTimeCode>, KvError> {
        let Some(stored) = self.get(&code_key(address)).await? else { return Ok(None) };
        let mut stored = &stored[..];
        let digest: [u8; 35] = take(&mut stored)?;
        let digest = SecretDigest::from_bytes(&digest).ok_or_else(damaged)?;
        let ends_at = read_instant(take(&mut stored)?)?;
        let tries = u32::from_be_bytes(take(&mut stored)?);
        Ok(Some(OneTimeCode { digest, ends_at, tries }))
    }

    fn set_code(&mut self, address: &SecretDigest, code: &OneTimeCode) {
        let digest = code.digest.to_bytes();
        let value = [&digest[..], &instant(code.ends_at), &code.tries.to_be_bytes()].concat();
        self.put(code_key(address), value);
    }
}

fn counter_key(charge: &CounterCharge<'_>) -> Vec<u8> {
    join(b'q', &[&layout::counter(&charge.counter_key, charge.period)])
}

fn code_key(address: &SecretDigest) -> Vec<u8> {
    join(b'p', &[&address.to_bytes()])
}

fn end_of_code(address: &SecretDigest, code: &OneTimeCode) -> Vec<u8> {
    join(b'n', &[&instant(code.ends_at), &address.to_bytes()])
}

fn read_counts(bytes: &[u8]) -> Result<[u64; 3], StoreError> {
    let mut rest = bytes;
    let mut next = || Ok::<_, StoreError>(u64::from_be_bytes(take(&mut rest)?));
    Ok([next()?, next()?, next()?])
}
