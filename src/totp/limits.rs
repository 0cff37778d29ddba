use std::time::Duration;

use zeroize::Zeroizing;

use crate::{
    model::{Owner, Period, Timestamp},
    secret::{Hasher, SecretDigest, Sha256Hasher},
    store::{CounterCharge, CounterKey},
};

/// What a store counts of an account's codes.
pub(super) struct Counts {
    tries: SecretDigest,
    step: SecretDigest,
    now: Timestamp,
}

impl Counts {
    /// Tries belong to the account, whatever secrets it has; a used code to the secret, of which nobody
    /// learns anything by a digest of all its bits.
    pub(super) fn new(owner: &Owner, secret: &[u8], now: Timestamp) -> Self {
        let owner = CounterKey::Owner(owner).to_bytes();
        let tries = Sha256Hasher.digest(&[b"totp tries of ".as_slice(), &owner].concat());
        let step =
            Sha256Hasher.digest(&Zeroizing::new([b"totp step of ".as_slice(), secret].concat()));
        Self { tries, step, now }
    }

    /// What a code costs: a wrong one a try, and the right one its step. Both are the same question to
    /// the store, and neither is answered when there are no tries left: the limit tells nothing.
    ///
    /// A step is a period that has one use. No period comes back once there was a later one, so with a
    /// step all those before it are used up, too.
    pub(super) fn charges(&self, right: Option<Timestamp>) -> [CounterCharge<'_>; 3] {
        let (tries, steps) = if right.is_none() { (1, 0) } else { (0, 1) };
        let [quarter, day] = TRIES.map(|(length, limit)| CounterCharge {
            payer: CounterKey::Anonymous(&self.tries),
            period: period_of(length),
            window: self.now.rounded_down_to(length),
            // Who is right takes no try, but there has to be one.
            limit: limit - steps,
            uses: tries,
        });
        let step = CounterCharge {
            payer: CounterKey::Anonymous(&self.step),
            period: Period::Ever,
            // Before all others, so that a wrong code moves no period on.
            window: right.unwrap_or(Timestamp::MIN),
            limit: 1,
            uses: steps,
        };
        [quarter, day, step]
    }

    /// How long there are no tries, if that is why nothing was spent.
    pub(super) fn wait(&self, used: &[u64]) -> Option<Duration> {
        let waits = TRIES.iter().zip(used).filter(|((_, limit), used)| *used >= limit);
        waits.map(|((length, _), _)| self.now.until_next(*length)).max()
    }
}

/// Only so that a store keeps the two apart: when each begins is said by its window.
fn period_of(length: Duration) -> Period {
    if length == DAY { Period::Day } else { Period::Ever }
}

/// How many wrong codes in which time.
const TRIES: [(Duration, u64); 2] = [(Duration::from_secs(900), 5), (DAY, 20)];
const DAY: Duration = Duration::from_secs(86_400);
