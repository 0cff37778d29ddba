use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    error::{Error, ErrorKind},
    model::Timestamp,
    store::{KeyStore, StoreClock},
    system::{Clock, ClockOffset, NodeClock, Now, SETTLING_TIME},
};

/// Reads the store's clock when that is due, for the [`NodeClock`] that is compared with it, and refuses to decide by a
/// node clock that is too far from it.
pub(crate) struct CheckedClock {
    node: NodeClock,
    store: Arc<dyn KeyStore>,
    max_offset: Duration,
    /// Held by the caller that reads the store's clock.
    measuring: tokio::sync::Mutex<()>,
    /// How many times the store's clock was read, also without success.
    attempts: AtomicU64,
}

impl CheckedClock {
    /// Creates the clock of a node whose cache trusts nothing for longer than `bound`.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        store: Arc<dyn KeyStore>,
        bound: Duration,
        max_offset: Duration,
    ) -> Self {
        let node = NodeClock::new(clock, bound, max_offset, store.clock().is_some());
        let (measuring, attempts) = (tokio::sync::Mutex::default(), AtomicU64::default());
        Self { node, store, max_offset, measuring, attempts }
    }

    /// Returns the current instant, if this node's clock can be trusted. Reads the store's clock if that is due.
    ///
    /// # Errors
    /// *Unavailable* if this node's clock is too far from the store's clock, or could not be compared with it yet.
    pub(crate) async fn checked_now(&self) -> Result<Now, Error> {
        let measured = self.measure_if_due().await;
        let now = self.node.precise_now();
        match measured {
            _ if now.is_trusted => Ok(now),
            Err(error) if self.node.offset().micros.is_none() => Err(error),
            _ => Err(self.refusal()),
        }
    }

    /// Returns the time of a change that only takes away, such as a revocation: it is not refused. If this node's clock
    /// is wrong, it is the time that is nearest to it within the bound.
    pub(crate) async fn bounded_now(&self) -> Result<Timestamp, Error> {
        let measured = self.measure_if_due().await;
        if self.node.offset().micros.is_none() {
            measured?;
        }
        Ok(self.node.now())
    }

    /// Returns the error of a call that is refused because this node's clock is not trusted.
    #[cold]
    pub(crate) fn refusal(&self) -> Error {
        let ClockOffset { micros, from_store, .. } = self.node.offset();
        let allowed = self.max_offset;
        let message = match micros {
            Some(micros) if from_store => format!(
                "this node's clock is {} the key store's clock, more than the {allowed:?} that are allowed, so nothing is \
                 decided by it: check the time synchronization (NTP) of both machines",
                in_words(micros)
            ),
            Some(micros) => format!(
                "this node's clock jumped: it is {} the time that has passed, more than the {allowed:?} that are allowed; \
                 it is believed if it stays so for {SETTLING_TIME:?}: check the machine's time synchronization (NTP)",
                in_words(micros)
            ),
            None => "this node's clock could not be compared with the key store's clock: try again"
                .into(),
        };
        Error::new(ErrorKind::Unavailable, message)
    }

    /// Reads the store's clock, if the store has one and that is due. Callers that arrive meanwhile share the outcome.
    pub(crate) async fn measure_if_due(&self) -> Result<(), Error> {
        let Some(clock) = self.store.clock().filter(|_| self.node.needs_measurement()) else {
            return Ok(());
        };
        let attempts = self.attempts.load(Ordering::Acquire);
        let _one_at_a_time = self.measuring.lock().await;
        if self.attempts.load(Ordering::Acquire) != attempts {
            return Ok(());
        }
        let measured = self.measure(clock).await;
        self.attempts.fetch_add(1, Ordering::AcqRel);
        measured
    }

    async fn measure(&self, clock: &dyn StoreClock) -> Result<(), Error> {
        let began = self.node.monotonic();
        let time = clock.now().await?;
        self.node.measured(began, time);
        Ok(())
    }
}

impl Deref for CheckedClock {
    type Target = NodeClock;

    fn deref(&self) -> &NodeClock {
        &self.node
    }
}

fn in_words(micros: i64) -> String {
    let by = Duration::from_millis(micros.unsigned_abs().div_ceil(1_000));
    let direction = if micros > 0 { "ahead of" } else { "behind" };
    format!("{} s {direction}", by.as_secs_f64())
}
