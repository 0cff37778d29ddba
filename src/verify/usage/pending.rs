use std::net::IpAddr;

use crate::verify::usage::tallies::begin_of_hour;
use crate::{
    model::{Key, KeyId, MAX_USER_AGENT_LEN, Owner, Timestamp, truncated},
    store::{HourlyUsage, KeyUse},
    system::{EntropyError, IdGenerator},
};

/// The uses of a key that are not written yet.
pub(crate) struct Pending {
    owner: Owner,
    first_at: Timestamp,
    last_at: Timestamp,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
    /// That of the last mark.
    hour: Hour,
    /// At the end of an hour, late marks of it come among those of the next.
    other: Hour,
}

/// How many uses were counted in an hour.
struct Hour {
    begin: Timestamp,
    uses: u64,
}

impl Pending {
    /// Only the event of a first use tells the program.
    pub(crate) fn new(key: &Key, at: Timestamp, ip: Option<IpAddr>, agent: Option<&str>) -> Self {
        let user_agent = agent.map(|agent| truncated(agent, MAX_USER_AGENT_LEN));
        let owner = key.owner.clone();
        let (hour, other) = (Hour { uses: 1, ..Hour::of(at) }, Hour::of(at));
        Self { owner, first_at: at, last_at: at, ip, user_agent, hour, other }
    }

    /// What a store did not take. Its uses are counted elsewhere.
    pub(crate) fn unwritten(used: &KeyUse) -> Self {
        Self {
            owner: used.owner.clone(),
            first_at: used.first_at,
            last_at: used.last_at,
            ip: used.ip,
            user_agent: used.user_agent.clone(),
            hour: Hour::of(used.last_at),
            other: Hour::of(used.last_at),
        }
    }

    /// One more use. There is room for two hours; of a third, it answers what makes room for it.
    pub(crate) fn again(
        &mut self,
        id: KeyId,
        at: Timestamp,
        ip: Option<IpAddr>,
    ) -> Option<HourlyUsage> {
        let (hour, mut over) = (Hour::of(at), None);
        if hour.begin != self.hour.begin {
            std::mem::swap(&mut self.hour, &mut self.other);
        }
        if hour.begin != self.hour.begin {
            over = self.hour.take(id);
            self.hour = hour;
        }
        self.hour.uses += 1;
        self.last_used(at, ip);
        over
    }

    /// So many more like the last one.
    pub(crate) fn counted(&mut self, uses: u64) {
        self.hour.uses += uses;
    }

    /// Takes what was counted.
    pub(crate) fn usage_history(&mut self, id: KeyId) -> impl Iterator<Item = HourlyUsage> {
        [self.other.take(id), self.hour.take(id)].into_iter().flatten()
    }

    /// Both are of the same key. What the other one has counted was taken.
    pub(crate) fn merge(&mut self, other: Self) {
        self.last_used(other.last_at, other.ip);
        if other.first_at < self.first_at {
            self.first_at = other.first_at;
            self.user_agent = other.user_agent.or(self.user_agent.take());
        } else if self.user_agent.is_none() {
            self.user_agent = other.user_agent;
        }
    }

    pub(crate) fn into_use(self, key_id: KeyId, ids: &IdGenerator) -> Result<KeyUse, EntropyError> {
        let Self { owner, first_at, last_at, ip, user_agent, .. } = self;
        let event_id = ids.event_id(first_at)?;
        Ok(KeyUse { key_id, owner, first_at, last_at, ip, user_agent, event_id })
    }

    fn last_used(&mut self, at: Timestamp, ip: Option<IpAddr>) {
        if at >= self.last_at {
            (self.last_at, self.ip) = (at, ip);
        }
    }
}

impl Hour {
    fn of(at: Timestamp) -> Self {
        Self { begin: begin_of_hour(at), uses: 0 }
    }

    fn take(&mut self, id: KeyId) -> Option<HourlyUsage> {
        let accepted = std::mem::take(&mut self.uses);
        (accepted > 0).then(|| HourlyUsage { accepted, ..HourlyUsage::none(id, self.begin) })
    }
}
