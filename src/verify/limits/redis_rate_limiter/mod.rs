mod lease;
mod local;
mod nodes;

use std::{
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use redis::{ConnectionInfo, IntoConnectionInfo, Value};
use tokio::time::Instant;

use crate::verify::limits::redis_rate_limiter::{
    lease::Leases,
    nodes::{Call, Nodes, Script},
};
use crate::verify::limits::{
    gcra::Gcra,
    rate_buckets::PerNodeRates,
    rate_limiter::{
        RateCharge, RateLevels, RateLimiter, RateLimiterError, RateOutcome, RateSubject,
    },
};
use crate::{
    model::{Invalid, Timestamp},
    store::redis::{BoxError, checked_prefix, owner_hash},
    system::lock,
};

/// Counts rates in Redis 7.0 or newer, or Valkey: exactly, for all nodes together.
///
/// Each use is one script, which the server runs whole, in one round trip; the time is that of the
/// server. What is remembered of a rate expires by itself when its burst is full again. Nothing is
/// lost if the server forgets it all, but that all bursts are there again: it may well be the cache
/// server of the service.
///
/// All that is counted of one owner has one hash tag, so on a cluster owners are spread over its
/// nodes. While a slot is moved from one node to another, calls for it may fail.
///
/// # Leases
/// With [`lease`](RedisRateLimiter::lease), a node takes several permits at once and spends them
/// without asking: most calls need no round trip. What it has taken is spent for all others, so
/// the total is never exceeded; the price is that a client may be refused while another node, or this
/// one for another key of the same owner, holds up to a tenth of the burst each, and that permits which a
/// node took earlier can come on top of a burst.
///
/// # Failures
/// A call gives up after 250 ms, and then [`RedisOutage`] decides; for a second, others do not even
/// try. By default each node counts for itself until Redis is back.
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
    seeds: Vec<ConnectionInfo>,
    timeout: Duration,
    without: RedisOutage,
    nodes: Nodes,
    leases: Option<Leases>,
    per_node: PerNodeRates,
    outage: Outage,
}

/// What becomes of uses that cannot be counted in Redis.
///
/// Exhaustive on purpose: it is one or the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedisOutage {
    /// Each node counts for itself: *n* nodes let through up to *n* times the rate.
    #[default]
    PerNode,
    /// They are *unavailable*.
    Unavailable,
}

impl RedisRateLimiter {
    /// On one server, or on a cluster of which some nodes are named. It is connected to when first
    /// needed.
    ///
    /// # Errors
    /// If one of them is no URL of Redis.
    pub fn new<T: AsRef<str>>(urls: impl IntoIterator<Item = T>) -> Result<Self, Invalid> {
        let read = |url: T| url.as_ref().into_connection_info();
        let seeds: Result<Vec<_>, _> = urls.into_iter().map(read).collect();
        let seeds = seeds.map_err(|_| Invalid::new("url", "use redis://host:port/"))?;
        let timeout = Duration::from_millis(250);
        Ok(Self {
            prefix: "keyward.rates".into(),
            nodes: Nodes::new(seeds.clone(), timeout),
            seeds,
            timeout,
            without: RedisOutage::default(),
            leases: None,
            per_node: PerNodeRates::default(),
            outage: Outage::default(),
        })
    }

    /// What the names of all Redis keys begin with, in braces; `keyward.rates` by default.
    ///
    /// # Errors
    /// If it is not 1 to 40 letters, digits and `_.:-`.
    pub fn prefix(mut self, prefix: &str) -> Result<Self, Invalid> {
        self.prefix = checked_prefix(prefix)?;
        Ok(self)
    }

    /// After how long a call gives up; 250 ms by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self.nodes = Nodes::new(self.seeds.clone(), timeout);
        self
    }

    /// What becomes of uses that cannot be counted.
    pub fn on_outage(mut self, without: RedisOutage) -> Self {
        self.without = without;
        self
    }

    /// Takes up to so many permits at once, of a rate whose burst is at least ten times as large;
    /// of others, a tenth of the burst.
    pub fn lease(mut self, permits: u32) -> Self {
        self.leases = Some(Leases::new(permits));
        self
    }

    /// Asks for between `charge.uses` and `most` uses, and tells how many were granted, if any.
    async fn ask(
        &self,
        charge: &RateCharge<'_>,
        most: u32,
    ) -> Result<(Option<u32>, RateLevels), RateLimiterError> {
        let mut arguments = vec![most.to_string(), charge.uses.to_string()];
        for (_, rate) in charge.rates {
            let gcra = Gcra::new(*rate);
            arguments.extend([gcra.interval().to_string(), gcra.reach().to_string()]);
        }
        let answer = self.run(&SPEND, charge, &arguments).await?;
        let words = numbers(answer).ok_or("Redis answered a script with something else")?;
        let [uses, at, full_at @ ..] = &*words else { return Err("Redis left words out".into()) };
        let levels = RateLevels {
            at: Timestamp::from_unix_micros(*at),
            full_at: full_at.iter().map(|at| Timestamp::from_unix_micros(*at)).collect(),
        };
        Ok((u32::try_from(*uses).ok(), levels))
    }

    async fn run(
        &self,
        script: &Script,
        charge: &RateCharge<'_>,
        arguments: &[String],
    ) -> Result<Value, BoxError> {
        let tag = format!("{}:{}", self.prefix, hex::encode(owner_hash(charge.owner)));
        let keys: Vec<_> = charge.rates.iter().map(|(within, _)| name(&tag, *within)).collect();
        self.nodes.run(&Call { script, tag: &tag, keys: &keys, arguments }).await
    }
}

#[async_trait]
impl RateLimiter for RedisRateLimiter {
    async fn charge(&self, charge: &RateCharge<'_>) -> Result<RateOutcome, RateLimiterError> {
        if let Some(levels) = self.leases.as_ref().and_then(|leases| leases.take(charge)) {
            return Ok(RateOutcome::Granted(levels));
        }
        let most = self.leases.as_ref().map_or(charge.uses, |leases| leases.batch(charge));
        let answer = if self.outage.may_ask() {
            let answer = self.ask(charge, most).await;
            self.outage.note(answer.is_err());
            answer
        } else {
            Err("Redis has just failed, and is asked again in a moment".into())
        };
        match (answer, self.without) {
            (Ok((None, levels)), _) => Ok(RateOutcome::Refused(levels)),
            (Ok((Some(granted), levels)), _) => Ok(RateOutcome::Granted(match &self.leases {
                Some(leases) => leases.keep(charge, granted.saturating_sub(charge.uses), levels),
                None => levels,
            })),
            (Err(_), RedisOutage::PerNode) => Ok(self.per_node.charge(charge)),
            (Err(error), RedisOutage::Unavailable) => Err(error),
        }
    }

    async fn refund(&self, charge: &RateCharge<'_>, granted: &RateLevels) {
        // What was granted without Redis tells the time of this node's clock, which is much younger.
        if granted.at <= charge.at {
            return self.per_node.refund(charge, granted);
        }
        if self.leases.as_ref().is_some_and(|leases| leases.give_back(charge)) {
            return;
        }
        let mut arguments = vec![charge.uses.to_string()];
        for ((_, rate), full_at) in charge.rates.iter().zip(&granted.full_at) {
            let interval = Gcra::new(*rate).interval();
            arguments.extend([interval.to_string(), full_at.as_unix_micros().to_string()]);
        }
        if self.outage.may_ask() {
            let answer = self.run(&REFUND, charge, &arguments).await;
            self.outage.note(answer.is_err());
        }
    }
}

impl std::fmt::Debug for RedisRateLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLimiter")
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("without", &self.without)
            .finish_non_exhaustive()
    }
}

/// Whether Redis failed just now: then one caller in a second finds out whether it is back, and all
/// others do not wait for it.
#[derive(Default)]
struct Outage {
    lasts: AtomicBool,
    ask_again: Mutex<Option<Instant>>,
}

impl Outage {
    fn may_ask(&self) -> bool {
        if !self.lasts.load(Ordering::Relaxed) {
            return true;
        }
        let (mut ask_again, now) = (lock(&self.ask_again), Instant::now());
        let mine = ask_again.is_none_or(|at| at <= now);
        if mine {
            *ask_again = Some(now + PAUSE);
        }
        mine
    }

    fn note(&self, failed: bool) {
        if failed {
            *lock(&self.ask_again) = Some(Instant::now() + PAUSE);
        }
        if self.lasts.load(Ordering::Relaxed) != failed {
            self.lasts.store(failed, Ordering::Relaxed);
        }
    }
}

/// Nothing that a user chooses is part of it.
fn name(tag: &str, within: RateSubject) -> String {
    match within {
        RateSubject::Key(id) => format!("{{{tag}}}{id}"),
        RateSubject::Owner => format!("{{{tag}}}all"),
    }
}

fn numbers(answer: Value) -> Option<Vec<i64>> {
    let Value::Array(words) = answer else { return None };
    let number = |word| match word {
        Value::BulkString(digits) => std::str::from_utf8(&digits).ok()?.parse().ok(),
        _ => None,
    };
    words.into_iter().map(number).collect()
}

static SPEND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("spend.lua")));
static REFUND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("refund.lua")));
const PAUSE: Duration = Duration::from_secs(1);
