//! Property tests that the in-process rate limiter, the Redis script and the crate `governor` make the same
//! decisions on random histories. The tests set the clock of the script, and keep its keys from expiring.

use std::{num::NonZeroU32, time::Duration};

use governor::{RateLimiter, clock::FakeRelativeClock};
use keyward::{
    Limits, VerifyError, VerifyRequest,
    manage::{Issued, KeyChange},
    model::{KeyLimits, Rate},
    verify::RateState,
};
use proptest::{collection::vec, prelude::*, test_runner::TestCaseResult};
use tokio::runtime::Runtime;

use crate::support::{
    Service,
    servers::redis::{self, Reply, Space},
    stores,
};

/// The in-process limiter: a key with a rate of its own and an owner with a rate.
struct InProcess {
    service: Service,
    issued: Issued,
    rates: [Rate; 2],
}

impl InProcess {
    async fn new(rates: [Rate; 2]) -> Self {
        let service = Service::new(stores::memory());
        let issued = service.issue().await;
        let mut limiter = Self { service, issued, rates };
        limiter.change(rates).await;
        limiter
    }

    async fn change(&mut self, rates: [Rate; 2]) {
        let Self { service, issued, .. } = self;
        let limits = KeyLimits { rate: Some(rates[0]), ..KeyLimits::default() };
        let change = KeyChange::default().limits(limits);
        let updated = service.keys().update(&service.owner, issued.key.id, &change, &service.actor);
        updated.await.unwrap();
        service.host.limit(&service.owner, Limits::default().rate(rates[1]));
        service.keys().account_changed(&service.owner).await.unwrap();
        self.rates = rates;
    }

    /// Charges uses, and returns whether they were granted and the state of both rates.
    async fn charge(&self, uses: u32) -> (bool, [RateState; 2]) {
        let request = VerifyRequest::new().cost(uses);
        let verified = self.service.keys().verify(self.issued.secret.expose(), &request).await;
        let (granted, rates) = match verified {
            Ok(verified) => (true, verified.rates()),
            Err(VerifyError::Limited(limited)) => (false, limited.rates),
            Err(other) => panic!("{other:?}"),
        };
        (granted, [rates.key.unwrap(), rates.owner.unwrap()])
    }
}

/// The Redis scripts, with a clock that the test sets.
struct Script {
    space: Space,
    charge: String,
    refund: String,
    names: [String; 2],
    micros: u64,
}

impl Script {
    fn new(space: Space) -> Self {
        let charge = include_str!("../../src/verify/limits/redis_rate_limiter/charge.lua");
        let refund = include_str!("../../src/verify/limits/redis_rate_limiter/refund.lua");
        let replace_clock = |text: &str, ttl| {
            let clock = "redis.call('TIME')";
            assert!(text.contains(clock) && text.contains(ttl));
            let text = text.replace(clock, "{ ARGV[#ARGV - 1], ARGV[#ARGV] }");
            text.replace(ttl, "'EX', 1000")
        };
        let charge = replace_clock(charge, "'PX', math.ceil(ahead[n] / 1000)");
        let refund = replace_clock(refund, "'PX', math.ceil(left / 1000)");
        let names = ["key", "owner"].map(|room| format!("{{{}}}{room}", space.prefix()));
        Self { space, charge, refund, names, micros: 1_790_000_000_000_000 }
    }

    /// Charges uses, and returns whether they were granted and, per rate, the microseconds until it is full
    /// again.
    fn charge(&self, uses: u32, rates: [Rate; 2]) -> (bool, Vec<u64>) {
        let mut arguments = vec![uses.to_string(), uses.to_string()];
        for rate in rates {
            let reach = interval(rate) * u64::from(rate.burst.get());
            arguments.extend([interval(rate).to_string(), reach.to_string()]);
        }
        let Reply::Array(words) = self.run(&self.charge, arguments) else { panic!("not an array") };
        let words: Vec<&str> = words.iter().map(Reply::text).collect();
        let ahead = |at: &&str| at.parse::<u64>().unwrap() - self.micros;
        (words[0] != "-1", words[2..].iter().map(ahead).collect())
    }

    /// Refunds uses. `full_at` is the instant at which each rate would be full again after the charge.
    fn refund(&self, uses: u32, rates: [Rate; 2], full_at: [u64; 2]) {
        let mut arguments = vec![uses.to_string()];
        for (rate, full_at) in rates.into_iter().zip(full_at) {
            arguments.extend([interval(rate).to_string(), full_at.to_string()]);
        }
        assert_eq!(self.run(&self.refund, arguments), Reply::Status("OK".into()));
    }

    fn run(&self, script: &str, mut arguments: Vec<String>) -> Reply {
        arguments.push((self.micros / 1_000_000).to_string());
        arguments.push((self.micros % 1_000_000).to_string());
        let mut command = vec!["EVAL", script, "2", &self.names[0], &self.names[1]];
        command.extend(arguments.iter().map(String::as_str));
        self.space.call(&command)
    }
}

fn interval(rate: Rate) -> u64 {
    (rate.period.as_micros() as u64).div_ceil(u64::from(rate.uses.get()))
}

fn any_rate() -> impl Strategy<Value = Rate> {
    (1u32..5_000, 1u32..30, prop_oneof![Just(1_000_u64), Just(999_983), Just(60_000_000)]).prop_map(
        |(uses, burst, micros)| {
            let period = Duration::from_micros(micros);
            Rate { period, ..Rate::per_second(uses) }.burst(burst)
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Charge { after: u64, uses: u32 },
    Change([Rate; 2]),
}

fn any_step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![0u64..50, 0u64..5_000, 0u64..20_000_000];
    let charge = (wait, 1u32..6).prop_map(|(after, uses)| Step::Charge { after, uses });
    prop_oneof![
        12 => charge,
        1 => [any_rate(), any_rate()].prop_map(Step::Change),
    ]
}

async fn agree(space: Space, rates: [Rate; 2], steps: Vec<Step>) -> TestCaseResult {
    let (mut process, mut script) = (InProcess::new(rates).await, Script::new(space));
    for step in steps {
        let (after, uses) = match step {
            Step::Charge { after, uses } => (after, uses),
            Step::Change(rates) => {
                process.change(rates).await;
                continue;
            }
        };
        process.service.clock.advance(Duration::from_micros(after));
        script.micros += after;
        let (granted, states) = process.charge(uses).await;
        let (also_granted, ahead) = script.charge(uses, process.rates);
        prop_assert_eq!(granted, also_granted);
        for (state, ahead) in states.into_iter().zip(ahead) {
            prop_assert_eq!(state.reset, Duration::from_micros(ahead));
        }
    }
    Ok(())
}

/// A new rate empties the key's bucket. Both limiters must forget the bucket, although the owner's rate rejects
/// the use that finds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_a_new_rate_empties_is_forgotten_even_if_the_use_is_rejected() {
    let Some(shared) = redis::shared() else { return };
    let rate = |uses| {
        let period = Duration::from_millis(1);
        Rate { period, ..Rate::per_second(uses) }.burst(1)
    };
    let steps = vec![
        Step::Charge { after: 0, uses: 1 },
        Step::Change([rate(1_000), rate(1)]),
        Step::Charge { after: 1, uses: 1 },
        Step::Change([rate(1), rate(1)]),
        Step::Charge { after: 0, uses: 1 },
    ];
    agree(shared.space(), [rate(1), rate(1)], steps).await.unwrap();
}

#[test]
fn redis_and_the_in_process_limiter_agree_on_random_histories() {
    let Some(shared) = redis::shared() else { return };
    let runtime = Runtime::new().unwrap();
    let rates = [any_rate(), any_rate()];
    proptest!(ProptestConfig::with_cases(64), |(rates in rates, steps in vec(any_step(), 1..60))| {
        runtime.block_on(agree(shared.space(), rates, steps))?;
    });
}

#[test]
fn both_limiters_agree_with_governor() {
    let Some(shared) = redis::shared() else { return };
    let runtime = Runtime::new().unwrap();
    let steps = vec((prop_oneof![0u64..2_000, 0u64..200_000], 1u32..6), 1..80);
    proptest!(ProptestConfig::with_cases(64), |(
        interval in 1u64..50_000, burst in 1u32..20, steps in steps,
    )| {
        // One use per interval of whole microseconds, without rounding.
        let period = Duration::from_micros(interval);
        let rate = Rate { period, ..Rate::per_second(1) }.burst(burst);
        let wide = Rate { period, ..Rate::per_second(1) }.burst(u32::MAX);
        let clock = FakeRelativeClock::default();
        let quota = governor::Quota::with_period(period).unwrap();
        let quota = quota.allow_burst(NonZeroU32::new(burst).unwrap());
        let governor = RateLimiter::direct_with_clock(quota, clock.clone());
        let process = runtime.block_on(InProcess::new([rate, wide]));
        let mut script = Script::new(shared.space());
        for (after, uses) in steps {
            process.service.clock.advance(Duration::from_micros(after));
            clock.advance(Duration::from_micros(after));
            script.micros += after;
            let uses_of_governor = NonZeroU32::new(uses).unwrap();
            let expected = matches!(governor.check_n(uses_of_governor), Ok(Ok(())));
            prop_assert_eq!(runtime.block_on(process.charge(uses)).0, expected);
            prop_assert_eq!(script.charge(uses, [rate, wide]).0, expected);
        }
    });
}

#[test]
fn a_refund_returns_no_more_than_the_refunded_uses() {
    let Some(shared) = redis::shared() else { return };
    let wait = || prop_oneof![Just(0u64), 0u64..2_000, 0u64..200_000];
    let steps = vec((wait(), 0u32..6), 0..6);
    proptest!(ProptestConfig::with_cases(128), |(
        rates in [any_rate(), any_rate()], uses in 1u32..20, first in 0u32..10, steps in steps,
    )| {
        // The same history, with a charge that is refunded at the end, and without that charge.
        let (mut with, mut without) = (Script::new(shared.space()), Script::new(shared.space()));
        let first_charge = with.charge(first, rates);
        prop_assert_eq!(&first_charge, &without.charge(first, rates));
        let (granted, ahead) = with.charge(uses, rates);
        prop_assume!(granted);
        let full_at = [with.micros + ahead[0], with.micros + ahead[1]];
        for (after, uses) in &steps {
            with.micros += after;
            without.micros += after;
            prop_assume!(with.charge(*uses, rates).0 == without.charge(*uses, rates).0);
        }
        with.refund(uses, rates, full_at);
        let (after, never) = (with.charge(0, rates).1, without.charge(0, rates).1);
        prop_assert!(after.iter().zip(&never).all(|(a, n)| a >= n), "{:?} {:?}", after, never);
        if steps.iter().all(|(after, _)| *after == 0) {
            prop_assert_eq!(after, never, "as without the charge");
        }
    });
}
