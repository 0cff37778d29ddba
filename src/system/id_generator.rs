use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::{EntropyError, fill_random};
use crate::model::{EventId, KeyId, Timestamp};

/// Generates UUIDv7 identifiers that strictly increase, even if the clock stands still or is set back.
#[derive(Debug, Default)]
pub(crate) struct IdGenerator {
    /// The sortable half of the last identifier: milliseconds, then twelve bits of sub-millisecond fraction or counter.
    last: AtomicU64,
}

impl IdGenerator {
    pub(crate) fn key_id(&self, now: Timestamp) -> Result<KeyId, EntropyError> {
        self.uuid(now).map(|uuid| KeyId::from_bytes(uuid.into_bytes()))
    }

    pub(crate) fn event_id(&self, now: Timestamp) -> Result<EventId, EntropyError> {
        self.uuid(now).map(|uuid| EventId::from_bytes(uuid.into_bytes()))
    }

    fn uuid(&self, now: Timestamp) -> Result<Uuid, EntropyError> {
        let micros = now.as_unix_micros().unsigned_abs();
        let tick = (micros / 1_000) << 12 | (micros % 1_000) << 2;
        let next = |last: u64| Some(tick.max(last + 1));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let tick = tick.max(last.unwrap_or(0) + 1);
        let mut bytes = [0; 10];
        fill_random(&mut bytes)?;
        bytes[..2].copy_from_slice(&(tick as u16 & 0x0fff).to_be_bytes());
        Ok(uuid::Builder::from_unix_timestamp_millis(tick >> 12, &bytes).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_increase_while_the_clock_stands_still_or_goes_back() {
        let ids = IdGenerator::default();
        let noon = Timestamp::from_unix_micros(1_770_638_400_000_000);
        let mut last = ids.key_id(noon).unwrap();
        for i in 0..20_000u32 {
            let back = noon.before(std::time::Duration::from_micros(u64::from(i % 3)));
            let next = ids.key_id(back).unwrap();
            assert!(next > last);
            assert_eq!(Uuid::from_bytes(*next.as_bytes()).get_version_num(), 7);
            last = next;
        }
    }

    #[test]
    fn events_of_one_change_get_distinct_ids() {
        let first = IdGenerator::default().event_id(Timestamp::MIN).unwrap();
        let group: std::collections::BTreeSet<_> = (0..1_000).map(|n| first.nth(n)).collect();
        assert_eq!(group.len(), 1_000);
        assert_eq!(first.nth(0), first);
    }
}
