use std::net::IpAddr;

use super::tallies::begin_of_hour;
use crate::{
    format::EntropyError,
    key::{IdGenerator, Key, KeyId, MAX_USER_AGENT, Owner, Timestamp, fitted},
    store::{Tally, Use},
};

/// The uses of a key that are not written yet.
pub(super) struct Pending {
    owner: Owner,
    first_at: Timestamp,
    last_at: Timestamp,
    ip: Option<IpAddr>,
    user_agent: Option<String>,
    /// The hour of the last mark, and how many uses were counted in it.
    last: (Timestamp, u64),
    /// The same of another hour: at its end, late marks of it come among those of the next.
    other: (Timestamp, u64),
}

impl Pending {
    /// Only the event of a first use tells the program.
    pub(super) fn new(key: &Key, at: Timestamp, ip: Option<IpAddr>, agent: Option<&str>) -> Self {
        let user_agent = agent.map(|agent| fitted(agent, MAX_USER_AGENT));
        let (owner, hour) = (key.owner.clone(), begin_of_hour(at));
        let (last, other) = ((hour, 1), (hour, 0));
        Self { owner, first_at: at, last_at: at, ip, user_agent, last, other }
    }

    /// What a store did not take. Its uses are counted elsewhere.
    pub(super) fn unwritten(used: &Use) -> Self {
        let hour = begin_of_hour(used.last_at);
        Self {
            owner: used.owner.clone(),
            first_at: used.first_at,
            last_at: used.last_at,
            ip: used.ip,
            user_agent: used.user_agent.clone(),
            last: (hour, 0),
            other: (hour, 0),
        }
    }

    /// One more use. There is room for two hours; of a third, it answers what makes room for it.
    pub(super) fn again(&mut self, id: KeyId, at: Timestamp, ip: Option<IpAddr>) -> Option<Tally> {
        let (hour, mut over) = (begin_of_hour(at), None);
        if hour != self.last.0 {
            std::mem::swap(&mut self.last, &mut self.other);
        }
        if hour != self.last.0 {
            over = take(id, &mut self.last);
            self.last = (hour, 0);
        }
        self.last.1 += 1;
        self.last_used(at, ip);
        over
    }

    /// So many more like the last one.
    pub(super) fn counted(&mut self, uses: u64) {
        self.last.1 += uses;
    }

    /// Takes what was counted.
    pub(super) fn tallies(&mut self, id: KeyId) -> impl Iterator<Item = Tally> {
        [take(id, &mut self.other), take(id, &mut self.last)].into_iter().flatten()
    }

    /// Both are of the same key. What the other one has counted was taken.
    pub(super) fn merge(&mut self, other: Self) {
        self.last_used(other.last_at, other.ip);
        if other.first_at < self.first_at {
            self.first_at = other.first_at;
            self.user_agent = other.user_agent.or(self.user_agent.take());
        } else if self.user_agent.is_none() {
            self.user_agent = other.user_agent;
        }
    }

    pub(super) fn into_use(self, key_id: KeyId, ids: &IdGenerator) -> Result<Use, EntropyError> {
        let Self { owner, first_at, last_at, ip, user_agent, .. } = self;
        let event_id = ids.event_id(first_at)?;
        Ok(Use { key_id, owner, first_at, last_at, ip, user_agent, event_id })
    }

    fn last_used(&mut self, at: Timestamp, ip: Option<IpAddr>) {
        if at >= self.last_at {
            (self.last_at, self.ip) = (at, ip);
        }
    }
}

fn take(id: KeyId, (hour, uses): &mut (Timestamp, u64)) -> Option<Tally> {
    let accepted = std::mem::take(uses);
    (accepted > 0).then(|| Tally { accepted, ..Tally::none(id, *hour) })
}
