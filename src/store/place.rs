/// A place in the change feed: the number of an entry, and the tag that whoever wrote it drew.
///
/// When a failover, a restart or a backup loses entries, others get their numbers, but not their
/// tags. Whoever read one of the lost ones holds a tag that is not there, and is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) tag: u64,
}

impl Place {
    pub(super) fn of(cursor: u64) -> Self {
        Self { number: cursor >> TAG_BITS, tag: cursor & TAGS }
    }

    pub(super) fn cursor(self) -> u64 {
        self.number << TAG_BITS | self.tag
    }
}

/// Of 63 bits of a cursor, 40 count the changes: enough for a thousand a second for 34 years.
const TAG_BITS: u32 = 23;
/// The largest tag.
pub(super) const TAGS: u64 = (1 << TAG_BITS) - 1;
