use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{accounts::Account, key::Bearer};

/// Who bears a cached key: one for all threads, or for each another one where several were seen to
/// use the key at the same time. What they count in would pass from processor to processor, and
/// together they would get less done than one of them alone.
#[derive(Clone)]
pub(super) enum Bearers {
    One(Arc<Bearer>),
    Apart(Arc<[Arc<Bearer>; APART]>),
}

impl Bearers {
    pub(super) fn one(bearer: Bearer) -> Self {
        Self::One(Arc::new(bearer))
    }

    /// The one of this thread.
    #[inline]
    pub(super) fn own(&self) -> &Arc<Bearer> {
        match self {
            Self::One(bearer) => bearer,
            Self::Apart(all) => &all[number_of_thread() % APART],
        }
    }

    /// The same with what the host says of the owner now. That is the time to make more of them: a
    /// hit shall allocate nothing. A key that was crowded once stays so for as long as it is cached.
    pub(super) fn renewed(&self, account: &Arc<Account>) -> Self {
        let new = |own: &Arc<Bearer>| Arc::new(own.renewed(account.clone()));
        match self {
            Self::One(own) if own.usage.is_crowded() => {
                Self::Apart(Arc::new(array::from_fn(|_| new(own))))
            }
            Self::One(own) => Self::One(new(own)),
            Self::Apart(all) => Self::Apart(Arc::new(all.each_ref().map(new))),
        }
    }
}

fn number_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! { static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed) }
    NUMBER.with(|number| *number)
}

/// Of more threads, some share one.
const APART: usize = 16;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::{
        key::{IdGenerator, Timestamp},
        testing::TestKeys,
        usage::{Marked, Usage},
    };

    #[tokio::test]
    async fn a_key_that_threads_use_at_once_gets_bearers_apart_whose_uses_are_those_of_one_key() {
        let key = TestKeys::new().issue(["builds:read"]).await.key;
        let (usage, nobody) = (Usage::default(), Arc::new(Account::nobody()));
        let noon = Timestamp::MIN;
        let quiet = Bearers::one(Bearer::new(key, nobody.clone()));
        assert_eq!(quiet.own().mark(&usage, noon, None, None), Marked::First);
        assert!(matches!(quiet.renewed(&nobody), Bearers::One(_)));

        quiet.own().usage.crowd();
        let apart = quiet.renewed(&nobody).renewed(&nobody);
        let own = || thread::scope(|scope| scope.spawn(|| apart.own().clone()).join().unwrap());
        let all: Vec<_> = (0..2 * APART).map(|_| own()).collect();
        assert!(all.iter().any(|one| !Arc::ptr_eq(one, &all[0])));
        assert_eq!(apart.own().mark(&usage, noon, None, None), Marked::Again);
        thread::scope(|scope| {
            for _ in 0..2 * APART {
                scope.spawn(|| {
                    for _ in 0..100 {
                        assert_eq!(apart.own().mark(&usage, noon, None, None), Marked::Again);
                    }
                });
            }
        });
        assert_eq!(usage.len(), 1);
        assert_eq!(usage.drain(&IdGenerator::default()).unwrap().len(), 1);
        let uses: u64 = usage.drain_tallies().iter().map(|tally| tally.accepted).sum();
        assert_eq!(uses, 2 + 2 * APART as u64 * 100);
    }
}
