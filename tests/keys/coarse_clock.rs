//! The system's clock, and a clock whose cheap reading lags, as that of a Linux kernel does.

use std::{sync::Arc, time::Duration};

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
