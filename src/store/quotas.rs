use crate::{
    model::{KeyId, Owner, Period, Timestamp},
    secret::SecretDigest,
};

/// Uses to be spent from one quota.
#[derive(Clone, Copy, Debug)]
pub struct CounterCharge<'a> {
    /// Whose quota it is.
    pub payer: CounterKey<'a>,
    /// Which of its counts: each period has one of its own.
    pub period: Period,
    /// When the present period began.
    pub window: Timestamp,
    /// How many uses there are in it.
    pub limit: u64,
    /// How many of them to spend.
    pub uses: u64,
}

/// Whose quota is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CounterKey<'a> {
    /// That of one key, whatever its secret.
    Key(KeyId),
    /// That which all keys of an owner share.
    Owner(&'a Owner),
    /// That of someone who comes without a key, known by a digest: of an address or a network, or of
    /// an account that confirms who it is. Its counts are removed when they are old.
    Anonymous(&'a SecretDigest),
    /// Nobody's: the one use there is goes to the node that does a job for all.
    Job(&'static str),
}

/// What became of spending; with how much of each quota is used up now, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum ChargeOutcome {
    /// It was spent from all of them.
    Granted(Vec<u64>),
    /// One has not enough left; nothing was spent from any.
    Exhausted(Vec<u64>),
}

/// What a store keeps of a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// When the period began in which it counts.
    pub window: Timestamp,
    /// How many uses are spent in it.
    pub used: u64,
}

impl CounterCharge<'_> {
    /// A counter as it stands for this spending: one whose period is over begins anew. No period
    /// comes back, also if a node's clock is behind.
    #[must_use]
    pub fn now(&self, stored: Counter) -> Counter {
        if stored.window < self.window { Counter { window: self.window, used: 0 } } else { stored }
    }

    /// A counter after this spending, if there is enough left.
    pub fn charge(&self, stored: Counter) -> Option<Counter> {
        let Counter { window, used } = self.now(stored);
        let used = used.checked_add(self.uses).filter(|used| *used <= self.limit)?;
        Some(Counter { window, used })
    }

    /// A counter after this was given back: nothing, if its period is another one by now.
    #[must_use]
    pub fn refund(&self, stored: Counter) -> Counter {
        if stored.window == self.window {
            Counter { used: stored.used.saturating_sub(self.uses), ..stored }
        } else {
            stored
        }
    }
}

impl CounterKey<'_> {
    /// Bytes that no other payer has.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Key(id) => [&[0], id.as_bytes().as_slice()].concat(),
            Self::Owner(owner) => {
                let tenant = owner.tenant().as_bytes();
                let length = (tenant.len() as u32).to_be_bytes();
                [&[1], length.as_slice(), tenant, owner.account().as_bytes()].concat()
            }
            Self::Job(name) => [&[2], name.as_bytes()].concat(),
            Self::Anonymous(digest) => [&[3], digest.to_bytes().as_slice()].concat(),
        }
    }
}

impl CounterKey<'_> {
    /// Whether these bytes are those of a guest.
    pub(super) fn is_guest(bytes: &[u8]) -> bool {
        bytes.first() == Some(&3)
    }
}

/// Spends from all counters, or from none.
pub(super) fn charge_all(
    charges: &[CounterCharge<'_>],
    stored: &[Counter],
) -> (ChargeOutcome, Option<Vec<Counter>>) {
    let pairs = || charges.iter().zip(stored.iter().copied());
    match pairs().map(|(spend, stored)| spend.charge(stored)).collect::<Option<Vec<_>>>() {
        Some(after) => (
            ChargeOutcome::Granted(after.iter().map(|counter| counter.used).collect()),
            Some(after),
        ),
        None => (
            ChargeOutcome::Exhausted(
                pairs().map(|(spend, stored)| spend.now(stored).used).collect(),
            ),
            None,
        ),
    }
}
