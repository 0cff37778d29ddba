mod cluster;
mod lease;

use std::{
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use redis::{IntoConnectionInfo, Value, from_redis_value};
use tokio::time::Instant;

use self::{cluster::Cluster, lease::Leases};
use super::{
    gcra::Gcra,
    rate_buckets::{KeyRates, PerNodeRates, RateBucket},
    rate_limiter::{
        RateCharge, RateLevels, RateLimiter, RateLimiterError, RateOutcome, RateSubject,
    },
};
use crate::{
    model::{Invalid, Rate, Timestamp, debug_only},
    store::redis::{BoxError, Script, checked_prefix, owner_hash},
    system::lock,
};

/// A rate limiter that all nodes share through Redis 7.0 or newer, or Valkey. It counts exactly.
///
/// Each charge is one script, which the server runs atomically and by its own clock, in one round trip. A bucket
/// expires when its burst is full again. If the server loses its data, all bursts are full again and nothing else
/// is lost, so the cache server of the service may be used.
///
/// All buckets of an owner have the same hash tag, so a cluster distributes owners over its nodes. While a slot
/// is migrated between nodes, calls for it may fail.
///
/// # Leases
/// With [`lease`](RedisRateLimiter::lease), a node charges several permits in advance and then grants uses from
/// them, so most calls need no round trip. Leased permits are charged for all nodes, so the total never exceeds
/// the rate. There are two costs:
/// - A client may be rejected while other nodes, or this node for another key of the same owner, each hold up to a
///   tenth of the burst.
/// - Permits that a node leased earlier can be used on top of a full burst.
///
/// # Failures
/// A call times out after 250 ms by default. Then [`RedisOutage`] decides, and for one second other calls do not
/// try Redis. By default each node counts for itself until Redis is back.
///
/// # Examples
/// ```
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use keyward::{ApiKeys, KeyFormat, MemoryStore, verify::{RedisRateLimiter, RedisOutage}};
///
/// let limiter = RedisRateLimiter::new(["redis://localhost/"])?.lease(20).on_outage(RedisOutage::PerNode);
/// let keys = ApiKeys::builder(MemoryStore::new(), KeyFormat::builder("lc").build()?)
///     .rate_limiter(limiter)
///     .build();
/// # Ok(()) }
/// ```
#[must_use]
pub struct RedisRateLimiter {
    prefix: String,
    outage_policy: RedisOutage,
    cluster: Cluster,
    leases: Option<Leases>,
    per_node: PerNodeRates,
    breaker: CircuitBreaker,
}

/// What happens to uses that cannot be counted in Redis.
///
/// Defaults to [`PerNode`](Self::PerNode). Exhaustive on purpose: these are the only two policies; uses are never
/// accepted without being counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedisOutage {
    /// Each node counts for itself: *n* nodes accept up to *n* times the rate.
    #[default]
    PerNode,
    /// Verification fails as *unavailable*.
    Unavailable,
}

impl RedisRateLimiter {
    /// Returns a limiter on a single server, or on the cluster of the given nodes; some of its nodes are enough.
    /// It connects when it is first used.
    ///
    /// # Errors
    /// If a URL is not a valid Redis URL.
    pub fn new<T: AsRef<str>>(urls: impl IntoIterator<Item = T>) -> Result<Self, Invalid> {
        Self::with_prefix("keyward.rates", urls)
    }

    /// Returns a limiter whose Redis keys have another prefix than `keyward.rates`. It is written in braces.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and if the prefix is not 1 to 40 letters, digits and `_.:-`.
    pub fn with_prefix<T: AsRef<str>>(
        prefix: &str,
        urls: impl IntoIterator<Item = T>,
    ) -> Result<Self, Invalid> {
        let parse = |url: T| url.as_ref().into_connection_info();
        let seeds: Result<Vec<_>, _> = urls.into_iter().map(parse).collect();
        let seeds = seeds.map_err(|_| Invalid::new("url", "use redis://host:port/"))?;
        Ok(Self {
            prefix: checked_prefix(prefix)?,
            cluster: Cluster::new(seeds, Duration::from_millis(250)),
            outage_policy: RedisOutage::default(),
            leases: None,
            per_node: PerNodeRates::default(),
            breaker: CircuitBreaker::default(),
        })
    }

    /// Sets the timeout of a call. Defaults to 250 ms.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.cluster.timeout = timeout;
        self
    }

    /// Sets what happens to uses that cannot be counted. Defaults to [`RedisOutage::PerNode`].
    pub fn on_outage(self, policy: RedisOutage) -> Self {
        Self { outage_policy: policy, ..self }
    }

    /// Sets the number of permits that a node leases in advance. A lease is never larger than a tenth of the burst.
    /// Defaults to no leases.
    pub fn lease(self, permits: u32) -> Self {
        Self { leases: Some(Leases::new(permits)), ..self }
    }

    /// Charges between `charge.uses` and `max_uses` uses. Returns how many were granted; `None` if fewer than
    /// `charge.uses` are left.
    async fn charge_in_redis(
        &self,
        charge: &RateCharge<'_>,
        max_uses: u32,
    ) -> Result<(Option<u32>, RateLevels), RateLimiterError> {
        let mut arguments = vec![max_uses.to_string(), charge.uses.to_string()];
        for (_, rate) in charge.rates {
            let gcra = Gcra::new(*rate);
            arguments.extend([gcra.interval.to_string(), gcra.reach.to_string()]);
        }
        let reply = self.run(&CHARGE, charge, &arguments).await?;
        let numbers = from_redis_value::<Vec<i64>>(reply);
        let Ok([granted, at, full_at @ ..]) = numbers.as_deref() else {
            return Err("unexpected reply of Redis to a rate limit script".into());
        };
        let levels = RateLevels {
            at: Timestamp::from_unix_micros(*at),
            full_at: full_at.iter().map(|at| Timestamp::from_unix_micros(*at)).collect(),
        };
        // The script returns -1 if it granted none.
        Ok((u32::try_from(*granted).ok(), levels))
    }

    async fn run(
        &self,
        script: &Script,
        charge: &RateCharge<'_>,
        arguments: &[String],
    ) -> Result<Value, BoxError> {
        let tag = format!("{}:{}", self.prefix, hex::encode(owner_hash(charge.owner)));
        // The keys contain no text that a user chose.
        let keys = charge.rates.iter().map(|(subject, _)| match subject {
            RateSubject::Key(id) => format!("{{{tag}}}{id}"),
            RateSubject::Owner => format!("{{{tag}}}all"),
        });
        let keys: Vec<_> = keys.collect();
        self.cluster.run(script, &tag, &keys, arguments).await
    }
}

#[async_trait]
impl RateLimiter for RedisRateLimiter {
    async fn charge(&self, charge: &RateCharge<'_>) -> Result<RateOutcome, RateLimiterError> {
        if let Some(levels) = self.leases.as_ref().and_then(|leases| leases.take(charge)) {
            return Ok(RateOutcome::Granted(levels));
        }
        let max_uses = self.leases.as_ref().map_or(charge.uses, |leases| leases.batch(charge));
        let result = self.breaker.call(self.charge_in_redis(charge, max_uses)).await;
        match (result, self.outage_policy) {
            (Ok((None, levels)), _) => Ok(RateOutcome::Refused(levels)),
            (Ok((Some(granted), levels)), _) => Ok(RateOutcome::Granted(match &self.leases {
                Some(leases) => leases.add(charge, granted.saturating_sub(charge.uses), levels),
                None => levels,
            })),
            (Err(_), RedisOutage::PerNode) => Ok(self.per_node.charge_alone(charge)),
            (Err(error), RedisOutage::Unavailable) => Err(error),
        }
    }

    async fn refund(&self, charge: &RateCharge<'_>, granted: &RateLevels) {
        // Levels of this node are times of its monotonic clock, which are much earlier than the dates of Redis.
        if granted.at <= charge.at {
            return self.per_node.refund_alone(charge, granted);
        }
        if self.leases.as_ref().is_some_and(|leases| leases.restore(charge)) {
            return;
        }
        let mut arguments = vec![charge.uses.to_string()];
        for ((_, rate), full_at) in charge.rates.iter().zip(&granted.full_at) {
            let interval = Gcra::new(*rate).interval;
            arguments.extend([interval.to_string(), full_at.as_unix_micros().to_string()]);
        }
        // Best effort: uses that are not refunded return as time passes.
        let _ = self.breaker.call(self.run(&REFUND, charge, &arguments)).await;
    }
}

debug_only!(RedisRateLimiter { prefix, cluster, outage_policy });

/// Charges and refunds on this node alone, during an outage of Redis.
impl PerNodeRates {
    fn charge_alone(&self, charge: &RateCharge<'_>) -> RateOutcome {
        let now = charge.at;
        let bucket = |(subject, rate): &(RateSubject, Rate)| self.bucket(charge, *subject, *rate);
        let rates = || charge.rates.iter();
        let owner = rates().find(|(subject, _)| *subject == RateSubject::Owner).map(bucket);
        let key = rates().find(|(subject, _)| *subject != RateSubject::Owner).map(bucket);
        let granted = KeyRates::new(key, owner, false).charge(charge.uses, now).is_ok();
        let full_at = rates().map(|rate| now.after(bucket(rate).state(now).reset));
        let levels = RateLevels { at: now, full_at: full_at.collect() };
        if granted { RateOutcome::Granted(levels) } else { RateOutcome::Refused(levels) }
    }

    fn refund_alone(&self, charge: &RateCharge<'_>, granted: &RateLevels) {
        for ((subject, rate), full_at) in charge.rates.iter().zip(&granted.full_at) {
            let ahead = full_at.as_unix_micros() - charge.at.as_unix_micros();
            self.bucket(charge, *subject, *rate).refund(charge.uses, ahead);
        }
    }

    fn bucket(&self, charge: &RateCharge<'_>, subject: RateSubject, rate: Rate) -> Arc<RateBucket> {
        match subject {
            RateSubject::Key(id) => self.keys.bucket(&id, rate, charge.at),
            RateSubject::Owner => self.owners.bucket(charge.owner, rate, charge.at),
        }
    }
}

/// After a failure of Redis, lets one call per second try it. All other calls fail without waiting.
#[derive(Default)]
struct CircuitBreaker {
    /// `None` unless the latest call failed.
    retry_at: Mutex<Option<Instant>>,
}

impl CircuitBreaker {
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, BoxError>>,
    ) -> Result<T, BoxError> {
        if !self.may_call() {
            return Err("Redis failed less than a second ago; it is tried again shortly".into());
        }
        let result = call.await;
        *lock(&self.retry_at) = result.is_err().then(|| Instant::now() + RETRY_INTERVAL);
        result
    }

    fn may_call(&self) -> bool {
        let mut retry_at = lock(&self.retry_at);
        let Some(at) = &mut *retry_at else { return true };
        let now = Instant::now();
        let is_due = *at <= now;
        if is_due {
            *at = now + RETRY_INTERVAL;
        }
        is_due
    }
}

static CHARGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("charge.lua")));
static REFUND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("refund.lua")));
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
