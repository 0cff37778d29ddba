use super::{
    Inner,
    pack::damaged,
    reply::{Reply, pairs},
    rows::{instant, read_instant},
    scripts::{REFUND, SPEND, TALLIES, TALLY},
};
use crate::{
    model::{KeyId, OwnerScope, Timestamp},
    store::{ChargeOutcome, CounterCharge, HourlyUsage, StoreError},
};

/// What is counted of keys and owners.
impl Inner {
    pub(super) async fn charge(
        &self,
        charges: &[CounterCharge<'_>],
    ) -> Result<ChargeOutcome, StoreError> {
        let mut arguments = Vec::with_capacity(charges.len() * 4);
        for spend in charges {
            arguments.push(field(spend));
            arguments.push(instant(spend.window).into());
            arguments.push(spend.limit.min(MOST).to_string().into());
            // More than there can be stays more than there can be.
            arguments.push(spend.uses.min(MOST + 1).to_string().into());
        }
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let spent = |reply: &Reply| reply.starts_with("1");
        let mut reply = self.change(&SPEND, &arguments, spent).await?.list()?.into_iter();
        let granted = reply.next().ok_or_else(damaged)?;
        let used = reply.map(|used| used.digits()).collect::<Result<Vec<u64>, _>>()?;
        match granted.bytes()? {
            b"1" => Ok(ChargeOutcome::Granted(used)),
            b"0" => Ok(ChargeOutcome::Exhausted(used)),
            _ => Err(damaged()),
        }
    }

    pub(super) async fn refund(&self, charges: &[CounterCharge<'_>]) -> Result<(), StoreError> {
        let mut arguments = Vec::with_capacity(charges.len() * 3);
        for spend in charges {
            arguments.push(field(spend));
            arguments.push(instant(spend.window).into());
            arguments.push(spend.uses.min(MOST).to_string().into());
        }
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        self.change(&REFUND, &arguments, |_| true).await.map(drop)
    }

    pub(super) async fn add_usage(&self, tallies: &[HourlyUsage]) -> Result<(), StoreError> {
        let mut arguments = Vec::with_capacity(tallies.len() * 5);
        for tally in tallies {
            arguments.push(tally.key_id.as_bytes().to_vec());
            arguments.push(instant(tally.hour).into());
            for sum in [tally.accepted, tally.denied, tally.limited] {
                arguments.push(sum.min(MOST).to_string().into());
            }
        }
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        self.change(&TALLY, &arguments, |_| true).await.map(drop)
    }

    pub(super) async fn usage_history(
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
        let reply = self.read(&TALLIES, &arguments).await?.list()?;
        let tally = |pair: Result<(&[u8], &[u8]), StoreError>| {
            let (hour, sums) = pair?;
            let sums = std::str::from_utf8(sums).map_err(StoreError::corrupt)?;
            let mut sums = sums.split(' ').map(|sum| sum.parse().map_err(StoreError::corrupt));
            let mut next = || sums.next().unwrap_or_else(|| Err(damaged()));
            Ok(HourlyUsage {
                key_id: id,
                hour: read_instant(hour)?.ok_or_else(damaged)?,
                accepted: next()?,
                denied: next()?,
                limited: next()?,
            })
        };
        pairs(&reply).map(tally).collect()
    }
}

/// The counter of a payer's quota; those of a key are known to the script that removes it.
fn field(spend: &CounterCharge<'_>) -> Vec<u8> {
    [&spend.payer.to_bytes()[..], spend.period.as_str().as_bytes()].concat()
}

/// The largest number that Lua counts exactly, and the largest that a quota can be.
const MOST: u64 = (1 << 53) - 1;
