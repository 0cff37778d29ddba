//! Rates that a node counts in its own memory: no server is needed.

use std::time::Duration;

use async_trait::async_trait;
use keyward::{
    Limits, Timestamp, Verified, VerifyError, VerifyRequest,
    manage::{Issued, KeyChange},
    model::{KeyLimits, Rate},
    verify::{Limited, RateCharge, RateLevels, RateLimiter, RateLimiterError, RateOutcome},
};
use proptest::{collection::vec, prelude::*, test_runner::TestCaseResult};
use tokio::runtime::Runtime;

use super::limited_key;
use crate::support::{Service, stores};

async fn charge(service: &Service, issued: &Issued) -> Result<Verified, Limited> {
    charge_uses(service, issued, 1).await
}

async fn charge_uses(service: &Service, issued: &Issued, uses: u32) -> Result<Verified, Limited> {
    let request = VerifyRequest::new().cost(uses);
    let verified = service.keys().verify(issued.secret.expose(), &request).await;
    verified.map_err(|error| match error {
        VerifyError::Limited(limited) => *limited,
        other => panic!("{other}"),
    })
}

async fn remaining(service: &Service, issued: &Issued) -> u32 {
    let verified = charge_uses(service, issued, 0).await.unwrap();
    verified.rates().key.unwrap().remaining
}

/// Each use comes at the first instant at which it is granted.
#[tokio::test]
async fn a_rate_that_does_not_divide_its_period_is_never_exceeded() {
    for (uses, period) in [
        (3, Duration::from_secs(1)),
        (7, Duration::from_secs(1)),
        (7, Duration::from_secs(60)),
        (999, Duration::from_millis(1)),
        (7, Duration::from_micros(10)),
        (1_000, Duration::from_micros(1)),
    ] {
        let service = Service::new(stores::memory());
        let rate = Rate { period, ..Rate::per_second(uses).burst(1) };
        let issued = limited_key(&service, rate).await;
        let (start, mut granted) = (service.now(), 0);
        let end: Timestamp = start.after(period);
        while service.now() < end {
            match charge(&service, &issued).await {
                Ok(_) => granted += 1,
                Err(limited) => service.clock.advance(limited.retry_after.unwrap()),
            }
        }
        assert!((1..=uses).contains(&granted), "{granted} of {uses} in {period:?}");
    }
}

#[tokio::test]
async fn the_interval_of_a_rate_is_rounded_up_to_whole_microseconds() {
    for (uses, micros) in [(3, 333_334), (7, 142_858), (1_000, 1_000), (2_000_000, 1)] {
        let service = Service::new(stores::memory());
        let issued = limited_key(&service, Rate::per_second(uses).burst(1)).await;
        let state = charge(&service, &issued).await.unwrap().rates().key.unwrap();
        assert_eq!(state.reset, Duration::from_micros(micros), "{uses} per second");
    }
}

/// Uses of a plan stay used under the next one, for keys with a rate each and for a shared rate.
#[tokio::test]
async fn a_change_of_plan_neither_fills_nor_empties_a_bucket() {
    for shared in [false, true] {
        let plan = |uses| match shared {
            true => Limits::default().rate(Rate::per_minute(uses)),
            false => Limits::default().rate_per_key(Rate::per_minute(uses)),
        };
        for (before, used, after, left) in [
            (10, 7, 20, Some(13)),
            (10, 3, 5, Some(2)),
            (10, 7, 5, None),
            (10, 10, 20, Some(10)),
            (20, 2, 10, Some(8)),
            (6, 1, 600, Some(599)),
        ] {
            let service = Service::new(stores::memory());
            let issued = service.issue().await;
            service.host.limit(&service.owner, plan(before));
            service.keys().account_changed(&service.owner).await.unwrap();
            for _ in 0..used {
                charge(&service, &issued).await.unwrap();
            }
            service.host.limit(&service.owner, plan(after));
            service.keys().account_changed(&service.owner).await.unwrap();
            let case = format!("shared: {shared}, {used} of {before}, then {after} per minute");
            match (charge(&service, &issued).await, left) {
                (Ok(verified), Some(left)) => {
                    let rates = verified.rates();
                    let state = if shared { rates.owner } else { rates.key };
                    assert_eq!(state.unwrap().remaining, left - 1, "{case}");
                }
                (Err(_), None) => {}
                (Ok(_), None) => panic!("{case}: granted"),
                (Err(_), Some(_)) => panic!("{case}: refused"),
            }
        }
    }
}

/// The same where a key's own rate is changed.
#[tokio::test]
async fn a_key_whose_own_rate_is_changed_keeps_what_it_has_used() {
    let service = Service::new(stores::memory());
    let issued = limited_key(&service, Rate::per_minute(10)).await;
    for _ in 0..5 {
        charge(&service, &issued).await.unwrap();
    }
    let limits = KeyLimits { rate: Some(Rate::per_minute(30)), ..KeyLimits::default() };
    let change = KeyChange::default().limits(limits);
    let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
    keys.update(ada, issued.key.id, &change, by).await.unwrap();
    let state = charge(&service, &issued).await.unwrap().rates().key.unwrap();
    assert_eq!((state.rate.uses.get(), state.remaining), (30, 24));
}

/// The same rate as a token bucket of `burst` uses that regains `uses` per period, counted exactly in fractions of
/// `1 / period` use.
struct Exact {
    rate: Rate,
    tokens: u128,
}

impl Exact {
    fn new(rate: Rate) -> Self {
        Self { rate, tokens: Self::full(rate) }
    }

    fn full(rate: Rate) -> u128 {
        u128::from(rate.burst.get()) * rate.period.as_micros()
    }

    fn advance(&mut self, time: Duration) {
        let regained = time.as_micros() * u128::from(self.rate.uses.get());
        self.tokens = Self::full(self.rate).min(self.tokens + regained);
    }

    fn charge(&mut self, uses: u32) -> bool {
        let left = self.tokens.checked_sub(u128::from(uses) * self.rate.period.as_micros());
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

async fn agrees_with_exact(rate: Rate, steps: Vec<(Duration, u32)>) -> TestCaseResult {
    let (service, mut exact) = (Service::new(stores::memory()), Exact::new(rate));
    let issued = limited_key(&service, rate).await;
    for (wait, uses) in steps {
        service.clock.advance(wait);
        exact.advance(wait);
        let before = remaining(&service, &issued).await;
        let granted = charge_uses(&service, &issued, uses).await;
        prop_assert_eq!(exact.charge(uses), granted.is_ok());
        prop_assert_eq!(before >= uses, granted.is_ok());
        let Err(limited) = granted else { continue };
        let Some(wait) = limited.retry_after else {
            prop_assert!(uses > rate.burst.get());
            continue;
        };
        // Exactly then, and not a microsecond earlier, enough uses are regained.
        let micro = Duration::from_micros(1);
        for (wait, is_enough) in [(wait - micro, false), (micro, true)] {
            service.clock.advance(wait);
            exact.advance(wait);
            prop_assert_eq!(exact.charge(uses), is_enough);
            prop_assert_eq!(charge_uses(&service, &issued, uses).await.is_ok(), is_enough);
        }
    }
    Ok(())
}

#[test]
fn a_rate_agrees_with_an_exact_token_bucket() {
    let runtime = Runtime::new().unwrap();
    let steps = vec(((0u64..3_000_000).prop_map(Duration::from_micros), 0u32..5), 1..100);
    proptest!(|(uses in 1u32..2_000, burst in 1u32..50, unit in 0usize..3, steps in steps)| {
        // Periods that divide evenly, so that rounding hides no difference.
        let period = Duration::from_micros([1_000, 1_000_000, 60_000_000][unit]) * uses;
        let rate = Rate { period, ..Rate::per_second(uses).burst(burst) };
        runtime.block_on(agrees_with_exact(rate, steps))?;
    });
}

/// Also if the rate is changed between two uses.
async fn never_overflows(rates: [Rate; 2], waits: [Duration; 2], cost: u32) -> TestCaseResult {
    let service = Service::new(stores::memory());
    service.clock.advance(waits[0]);
    let issued = limited_key(&service, rates[0]).await;
    let _ = charge_uses(&service, &issued, cost).await;
    let limits = KeyLimits { rate: Some(rates[1]), ..KeyLimits::default() };
    let change = KeyChange::default().limits(limits);
    let (keys, ada, by) = (service.keys(), &service.owner, &service.actor);
    keys.update(ada, issued.key.id, &change, by).await.unwrap();
    service.clock.advance(waits[1]);
    for cost in [0, 1, cost] {
        let before = remaining(&service, &issued).await;
        match charge_uses(&service, &issued, cost).await {
            Ok(verified) => {
                let after = verified.rates().key.unwrap().remaining;
                prop_assert!(after <= before && (after < before || cost == 0));
            }
            Err(limited) => {
                prop_assert!(limited.retry_after != Some(Duration::ZERO) && before < cost);
            }
        }
    }
    Ok(())
}

/// A limiter that returns these levels, whatever is charged.
#[derive(Clone)]
struct Levels {
    are_granted: bool,
    levels: RateLevels,
}

#[async_trait]
impl RateLimiter for Levels {
    async fn charge(&self, _: &RateCharge<'_>) -> Result<RateOutcome, RateLimiterError> {
        let granted = if self.are_granted { RateOutcome::Granted } else { RateOutcome::Refused };
        Ok(granted(self.levels.clone()))
    }

    async fn refund(&self, _: &RateCharge<'_>, _: &RateLevels) {}
}

async fn states_at(levels: Levels, rate: Rate, cost: u32) -> TestCaseResult {
    let limiter = |builder: keyward::api::ApiKeysBuilder| builder.rate_limiter(levels.clone());
    let service = Service::with(stores::memory(), limiter);
    let issued = limited_key(&service, rate).await;
    let rates = match charge_uses(&service, &issued, cost).await {
        Ok(verified) => verified.rates(),
        Err(limited) => limited.rates,
    };
    prop_assert!(rates.key.unwrap().remaining <= rate.burst.get());
    Ok(())
}

#[test]
fn no_rate_and_no_instant_overflows() {
    let runtime = Runtime::new().unwrap();
    let rate = || {
        (any::<u32>(), any::<u32>(), any::<u64>()).prop_map(|(uses, burst, period)| {
            let period = Duration::from_micros(period);
            Rate { period, ..Rate::per_second(uses).burst(burst) }
        })
    };
    let century = 0..100 * 365 * 86_400 * 1_000_000u64;
    let wait = || century.clone().prop_map(Duration::from_micros);
    proptest!(|(
        rates in [rate(), rate()], waits in [wait(), wait()], cost in any::<u32>(),
        are_granted in any::<bool>(), instants in any::<[i64; 2]>(),
    )| {
        let [at, full_at] = instants.map(Timestamp::from_unix_micros);
        let levels = Levels { are_granted, levels: RateLevels { at, full_at: vec![full_at] } };
        runtime.block_on(async {
            never_overflows(rates, waits, cost).await?;
            states_at(levels, rates[0], cost.max(1)).await
        })?;
    });
}
