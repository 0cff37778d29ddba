/// A position in the change feed: the number of an entry, and the random tag of its writer.
///
/// After a failover, a restart or a restored backup, new entries may reuse the numbers of lost
/// entries, but not their tags. A reader of a lost entry holds a tag that is no longer stored, so
/// the store knows that the reader missed changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FeedPosition {
    pub(super) number: u64,
    pub(super) tag: u64,
}

impl FeedPosition {
    pub(super) fn from_cursor(cursor: u64) -> Self {
        Self { number: cursor >> TAG_BITS, tag: cursor & MAX_TAG }
    }

    pub(super) fn cursor(self) -> u64 {
        self.number << TAG_BITS | self.tag
    }
}

/// A cursor has 63 bits. The other 40 number the changes: 1,000 per second for 34 years.
const TAG_BITS: u32 = 23;
pub(super) const MAX_TAG: u64 = (1 << TAG_BITS) - 1;
