use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use crate::{
    model::{KeyId, Timestamp},
    store::HourlyUsage,
};

/// How often keys were presented in an hour and what became of it, as far as it is not written.
#[derive(Default)]
pub(crate) struct Tallies(HashMap<(KeyId, Timestamp), HourlyUsage>);

impl Tallies {
    /// Where there is no room, it is not counted.
    pub(crate) fn add(&mut self, more: &HourlyUsage) {
        let room = self.0.len() < MOST;
        let sums = match self.0.entry((more.key_id, more.hour)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) if room => new.insert(HourlyUsage::none(more.key_id, more.hour)),
            Entry::Vacant(_) => return,
        };
        sums.accepted = sums.accepted.saturating_add(more.accepted);
        sums.denied = sums.denied.saturating_add(more.denied);
        sums.limited = sums.limited.saturating_add(more.limited);
    }

    pub(crate) fn take(&mut self) -> impl Iterator<Item = HourlyUsage> {
        std::mem::take(&mut self.0).into_values()
    }
}

pub(crate) fn begin_of_hour(at: Timestamp) -> Timestamp {
    at.rounded_down_to(HOUR)
}

const HOUR: Duration = Duration::from_secs(3_600);
/// Of one shard.
const MOST: usize = 8_192;
