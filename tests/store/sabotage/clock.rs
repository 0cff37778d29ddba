//! Broken clocks of servers.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use keyward::Timestamp;

use super::wrapper::{Inner, Sabotage, StoreResult};

/// Returns the time at which the connection was opened.
#[derive(Default)]
pub struct StandsStill;

#[async_trait]
impl Sabotage for StandsStill {
    async fn now(&self, _: &Inner) -> StoreResult<Timestamp> {
        Ok(Timestamp::from_unix_micros(1_767_225_600_000_000))
    }
}

/// Takes milliseconds for microseconds.
#[derive(Default)]
pub struct ConfusesUnits;

#[async_trait]
impl Sabotage for ConfusesUnits {
    async fn now(&self, inner: &Inner) -> StoreResult<Timestamp> {
        Ok(Timestamp::from_unix_micros(inner.now().await?.as_unix_micros() / 1_000))
    }
}

/// Takes microseconds for units of ten.
#[derive(Default)]
pub struct RunsTooFast;

#[async_trait]
impl Sabotage for RunsTooFast {
    async fn now(&self, inner: &Inner) -> StoreResult<Timestamp> {
        Ok(Timestamp::from_unix_micros(inner.now().await?.as_unix_micros().saturating_mul(10)))
    }
}

/// Asks replicas in turn, whose clocks differ.
#[derive(Default)]
pub struct AsksReplicas(AtomicU64);

#[async_trait]
impl Sabotage for AsksReplicas {
    async fn now(&self, inner: &Inner) -> StoreResult<Timestamp> {
        let replica = self.0.fetch_add(1, Ordering::Relaxed) % 2;
        Ok(inner.now().await?.after(Duration::from_secs(60 * replica)))
    }
}
