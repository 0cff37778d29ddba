use async_trait::async_trait;

use super::{
    RedisStore,
    commands::{Reply, pairs, unexpected_reply},
    msgpack::damaged_record,
    records::{instant, read_instant},
    scripts::{
        ADD_USAGE, CHARGE, PURGE_CODES, PURGE_COUNTERS, PURGE_USAGE, PUT_CODE, REFUND, TRY_CODE,
        USAGE_HISTORY,
    },
};
use crate::{
    model::{KeyId, OwnerScope, Timestamp},
    secret::SecretDigest,
    store::{
        ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, Counters, HourlyUsage, OneTimeCode,
        OneTimeCodes, StoreError, UsageHistory,
    },
};

#[async_trait]
impl Counters for RedisStore {
    async fn charge(&self, charges: &[CounterCharge<'_>]) -> Result<ChargeOutcome, StoreError> {
        let mut arguments = Vec::with_capacity(charges.len() * 5);
        for charge in charges {
            arguments.push(field(charge));
            arguments.push(instant(charge.window).into());
            arguments.push(instant(charge.latest_window).into());
            arguments.push(charge.limit.min(MAX_COUNT).to_string().into());
            // Uses above every limit stay above every limit.
            arguments.push(charge.uses.min(MAX_COUNT + 1).to_string().into());
        }
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let has_changed = |reply: &Reply| reply.starts_with("1");
        let mut reply =
            self.database.write(&CHARGE, &arguments, has_changed).await?.list()?.into_iter();
        let granted = reply.next().ok_or_else(damaged_record)?;
        let used = reply.map(|used| used.digits()).collect::<Result<Vec<u64>, _>>()?;
        match granted.bytes()? {
            b"1" => Ok(ChargeOutcome::Granted(used)),
            b"0" => Ok(ChargeOutcome::Exhausted(used)),
            _ => Err(damaged_record()),
        }
    }

    async fn refund(&self, charges: &[CounterCharge<'_>]) -> Result<(), StoreError> {
        let mut arguments = Vec::with_capacity(charges.len() * 3);
        for charge in charges {
            arguments.push(field(charge));
            arguments.push(instant(charge.window).into());
            arguments.push(charge.uses.min(MAX_COUNT).to_string().into());
        }
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        self.database.write(&REFUND, &arguments, |_| true).await.map(drop)
    }

    async fn purge_counters(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.database.purge(&PURGE_COUNTERS, before, limit).await
    }
}

#[async_trait]
impl UsageHistory for RedisStore {
    async fn add_usage(&self, usage: &[HourlyUsage]) -> Result<(), StoreError> {
        let mut arguments = Vec::with_capacity(usage.len() * 5);
        for hour in usage {
            arguments.push(hour.key_id.as_bytes().to_vec());
            arguments.push(instant(hour.hour).into());
            for count in [hour.accepted, hour.denied, hour.limited] {
                arguments.push(count.min(MAX_COUNT).to_string().into());
            }
        }
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        self.database.write(&ADD_USAGE, &arguments, |_| true).await.map(drop)
    }

    async fn hourly_usage(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        from: Timestamp,
    ) -> Result<Vec<HourlyUsage>, StoreError> {
        let arguments: [&[u8]; 4] = [
            id.as_bytes(),
            &instant(from),
            within.tenant().as_bytes(),
            within.account().unwrap_or_default().as_bytes(),
        ];
        let reply = self.database.read(&USAGE_HISTORY, &arguments).await?.list()?;
        let hour = |pair: Result<(&[u8], &[u8]), StoreError>| {
            let (start, counts) = pair?;
            let counts = std::str::from_utf8(counts).map_err(StoreError::corrupt)?;
            let mut counts =
                counts.split(' ').map(|count| count.parse().map_err(StoreError::corrupt));
            let mut next = || counts.next().unwrap_or_else(|| Err(damaged_record()));
            Ok(HourlyUsage {
                key_id: id,
                hour: read_instant(start)?.ok_or_else(damaged_record)?,
                accepted: next()?,
                denied: next()?,
                limited: next()?,
            })
        };
        pairs(&reply).map(hour).collect()
    }

    async fn purge_usage(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.database.purge(&PURGE_USAGE, before, limit).await
    }
}

#[async_trait]
impl OneTimeCodes for RedisStore {
    async fn put_code(&self, address: &SecretDigest, code: &OneTimeCode) -> Result<(), StoreError> {
        let (address, digest) = (address.to_bytes(), code.digest.to_bytes());
        let tries = code.tries.to_string();
        let arguments: [&[u8]; 4] = [&address, &digest, &instant(code.ends_at), tries.as_bytes()];
        self.database.write(&PUT_CODE, &arguments, |_| true).await.map(drop)
    }

    async fn try_code(&self, attempt: &CodeAttempt) -> Result<CodeOutcome, StoreError> {
        let (address, digest) = (attempt.address.to_bytes(), attempt.digest.to_bytes());
        let has_changed = |reply: &Reply| reply.is("accepted") || reply.is("wrong");
        let arguments: [&[u8]; 3] = [&address, &digest, &instant(attempt.at)];
        let reply = self.database.write(&TRY_CODE, &arguments, has_changed).await?;
        match reply.bytes()? {
            b"accepted" => Ok(CodeOutcome::Accepted),
            b"wrong" => Ok(CodeOutcome::Wrong),
            b"expired" => Ok(CodeOutcome::Expired),
            b"no tries" => Ok(CodeOutcome::NoTriesLeft),
            b"none" => Ok(CodeOutcome::NotFound),
            _ => Err(unexpected_reply(&reply)),
        }
    }

    async fn purge_codes(&self, before: Timestamp, limit: u32) -> Result<u32, StoreError> {
        self.database.purge(&PURGE_CODES, before, limit).await
    }
}

/// Returns the hash field of a counter. `delete_key` in `prelude.lua` knows the fields of a key.
fn field(charge: &CounterCharge<'_>) -> Vec<u8> {
    [&charge.counter_key.to_bytes()[..], charge.period.as_str().as_bytes()].concat()
}

/// The largest integer that Lua counts exactly, and the largest quota.
const MAX_COUNT: u64 = (1 << 53) - 1;
