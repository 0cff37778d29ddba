//! The system's clock, and a clock whose cheap reading lags, as that of a Linux kernel does.

use std::{process::Command, sync::Arc, time::Duration};

use keyward::{
    Expiry, Timestamp, VerifyRequest,
    model::{KeyLimits, Rate},
    system::{Clock, ClockReading, SystemClock},
    testing::ManualClock,
};

use crate::support::{HOUR, MICRO, Service, reason, stores};

/// Its coarse reading is that of the last tick.
#[derive(Clone)]
struct Ticking(ManualClock);

const TICK: Duration = Duration::from_millis(20);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn reading(&self) -> ClockReading {
        self.0.reading()
    }

    fn coarse_reading(&self) -> ClockReading {
        let ClockReading { wall, monotonic } = self.0.reading();
        let late = Duration::from_nanos((monotonic.as_nanos() % TICK.as_nanos()) as u64);
        ClockReading { wall: wall.before(late), monotonic: monotonic - late }
    }

    fn coarse_lag(&self) -> Duration {
        TICK
    }
}

fn service() -> (Service, ManualClock) {
    let clock = ManualClock::default();
    let ticking = Ticking(clock.clone());
    (Service::with(stores::memory(), |builder| builder.clock(ticking.clone())), clock)
}

#[test]
fn the_system_clock_agrees_with_the_wall_clock() {
    let (before, reading) = (SystemClock.now(), SystemClock.reading());
    assert!(before.before(Duration::from_secs(1)) <= reading.wall);
    assert!(reading.wall <= SystemClock.now().after(Duration::from_secs(1)));
    assert!(SystemClock.reading().monotonic >= reading.monotonic);
    let coarse = SystemClock.coarse_reading();
    assert!(before.before(Duration::from_secs(1)) <= coarse.wall);
    assert!(coarse.monotonic <= SystemClock.reading().monotonic);
}

/// In a namespace whose `CLOCK_BOOTTIME` is ahead, as after a suspension of that length.
#[test]
fn the_monotonic_time_counts_the_suspension_of_the_machine() {
    let test = "keys::coarse_clock::prints_the_monotonic_time";
    let before = SystemClock.reading().monotonic;
    let child = Command::new("unshare")
        .args(["--time", "--boottime", &SUSPENDED.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--quiet"])
        .output();
    let output = child.map(|output| String::from_utf8(output.stdout).unwrap()).unwrap_or_default();
    let Some((_, readings)) = output.split_once("monotonic") else {
        println!("SKIPPED: this test needs `unshare --time`, and the right to use it");
        return;
    };
    let readings: Vec<u64> =
        readings.lines().next().unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert_eq!(readings.len(), 3);
    for seconds in readings {
        let passed = seconds - before.as_secs();
        assert!((SUSPENDED..SUSPENDED + 60).contains(&passed), "{passed}");
    }
}

#[test]
#[ignore = "started by the test above"]
fn prints_the_monotonic_time() {
    let coarse = SystemClock.coarse_reading().monotonic.as_secs();
    let precise = SystemClock.reading().monotonic.as_secs();
    let by_default = OtherClock.reading().monotonic.as_secs();
    println!("monotonic {coarse} {precise} {by_default}");
}

struct OtherClock;

impl Clock for OtherClock {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }
}

/// Seconds.
const SUSPENDED: u64 = 100_000;

#[test]
fn the_coarse_reading_is_never_ahead_and_stays_within_its_lag() {
    let mut closest = Duration::MAX;
    for _ in 0..1_000 {
        let before = SystemClock.reading().monotonic;
        let coarse = SystemClock.coarse_reading().monotonic;
        assert!(coarse <= SystemClock.reading().monotonic);
        closest = closest.min(before.saturating_sub(coarse));
    }
    assert!(closest <= SystemClock.coarse_lag());
}

#[tokio::test]
async fn a_key_ends_exactly_at_its_expiry_although_the_coarse_clock_lags() {
    let (service, clock) = service();
    let new = service.new_key().expiry(Expiry::After(HOUR + TICK / 2));
    let issued = service.keys().issue(new, &service.actor).await.unwrap();
    clock.advance(HOUR);
    let says =
        async || match service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await {
            Ok(_) => "ok",
            Err(error) => reason(error).as_str(),
        };
    for _ in 0..2 {
        assert_eq!(says().await, "ok");
    }
    clock.advance(TICK / 2 - MICRO);
    assert_eq!(says().await, "ok", "a microsecond before the end");
    clock.advance(MICRO);
    assert_eq!(says().await, "expired", "the coarse clock has not ticked since");
}

#[tokio::test]
async fn a_fast_rate_regains_its_uses_between_two_ticks_of_the_coarse_clock() {
    let (service, clock) = service();
    let rate = Some(Rate::per_second(1_000).burst(1));
    let limits = KeyLimits { rate, ..KeyLimits::default() };
    let new = service.new_key().limits(limits);
    let issued = Arc::new(service.keys().issue(new, &service.actor).await.unwrap());
    for n in 0..10 {
        let answer = service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await;
        assert!(answer.is_ok(), "{n}");
        let again = service.keys().verify(issued.secret.expose(), &VerifyRequest::new()).await;
        assert!(again.is_err(), "{n}");
        clock.advance(Duration::from_millis(1));
    }
}
