use std::collections::{HashMap, hash_map::Entry};

use crate::{
    key::{KeyId, Timestamp},
    store::Tally,
};

/// How often keys were presented in an hour and what became of it, as far as it is not written.
#[derive(Default)]
pub(super) struct Tallies(HashMap<(KeyId, Timestamp), Counts>);

/// So many times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
}

impl Tallies {
    /// Where there is no room, it is not counted.
    pub(super) fn add(&mut self, id: KeyId, hour: Timestamp, more: Counts) {
        let room = self.0.len() < MOST;
        let counts = match self.0.entry((id, hour)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) if room => new.insert(Counts::default()),
            Entry::Vacant(_) => return,
        };
        counts.accepted = counts.accepted.saturating_add(more.accepted);
        counts.refused = counts.refused.saturating_add(more.refused);
    }

    pub(super) fn take(&mut self) -> impl Iterator<Item = Tally> {
        let counted = std::mem::take(&mut self.0).into_iter();
        counted.map(|((key_id, hour), Counts { accepted, refused })| Tally {
            key_id,
            hour,
            accepted,
            refused,
        })
    }
}

pub(crate) fn begin_of_hour(at: Timestamp) -> Timestamp {
    Timestamp::from_unix_micros(at.as_unix_micros() / HOUR * HOUR)
}

const HOUR: i64 = 3_600 * 1_000_000;
/// Of one shard.
const MOST: usize = 8_192;
