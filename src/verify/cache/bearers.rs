use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{accounts::Account, verify::verified::Bearer};

/// Who bears a cached key: one for all threads, or, once several were seen to use it at the same
/// time, one for each. A counter that threads share passes from processor to processor, and together
/// they would get less done than one of them alone.
#[derive(Clone)]
pub(crate) enum Bearers {
    One(Arc<Bearer>),
    Apart(Arc<[Arc<Bearer>; APART]>),
}

impl Bearers {
    pub(crate) fn one(bearer: Bearer) -> Self {
        Self::One(Arc::new(bearer))
    }

    /// The one of this thread.
    #[inline]
    pub(crate) fn own(&self) -> &Arc<Bearer> {
        match self {
            Self::One(bearer) => bearer,
            Self::Apart(all) => &all[number_of_thread() % APART],
        }
    }

    /// Whether it is time to have one for each thread.
    #[inline]
    pub(crate) fn is_crowded(&self) -> bool {
        matches!(self, Self::One(bearer) if bearer.usage.is_crowded())
    }

    /// One for each thread, until the key is read again.
    pub(crate) fn apart(&self) -> Self {
        match self {
            Self::One(one) => Self::Apart(Arc::new(array::from_fn(|_| renewed(one, &one.account)))),
            Self::Apart(_) => self.clone(),
        }
    }

    /// The same with what the host says of the owner now.
    pub(crate) fn renewed(&self, account: &Arc<Account>) -> Self {
        match self {
            Self::One(one) => Self::One(renewed(one, account)),
            Self::Apart(all) => {
                Self::Apart(Arc::new(all.each_ref().map(|each| renewed(each, account))))
            }
        }
    }
}

fn renewed(bearer: &Bearer, account: &Arc<Account>) -> Arc<Bearer> {
    Arc::new(bearer.renewed(account.clone()))
}

fn number_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! { static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed) }
    NUMBER.with(|number| *number)
}

/// Two threads may share one, or there would have to be as many as there ever were threads.
const APART: usize = 16;

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use super::*;
    use crate::{
        audit::EventKind,
        model::Timestamp,
        system::IdGenerator,
        testing::TestKeys,
        verify::{
            request::VerifyRequest,
            usage::{Usage, cell::Marked},
        },
    };

    #[tokio::test]
    async fn a_key_that_threads_use_at_once_has_bearers_apart_whose_uses_are_those_of_one_key() {
        let key = TestKeys::new().issue(["builds:read"]).await.key;
        let (usage, nobody) = (Usage::default(), Arc::new(Account::unknown()));
        let mark = |of: &Bearers| of.own().mark(&usage, Timestamp::MIN, None, None);
        let one = Bearers::one(Bearer::new(key, nobody.clone()));
        assert_eq!(mark(&one), Marked::First);
        assert!(!one.is_crowded());
        one.own().usage.crowd();
        assert!(one.is_crowded() && !one.renewed(&nobody).is_crowded());

        let apart = one.apart().renewed(&nobody);
        assert!(!apart.is_crowded() && Arc::ptr_eq(apart.own(), apart.apart().own()));
        let own = || {
            let (one, again) = (apart.own(), apart.own());
            assert!(Arc::ptr_eq(one, again));
            assert_eq!(mark(&apart), Marked::Again);
            (0..100).for_each(|_| _ = mark(&apart));
            one.clone()
        };
        let all: Vec<_> = (0..4 * APART)
            .map(|_| thread::scope(|scope| scope.spawn(own).join().unwrap()))
            .collect();
        assert_eq!(all.iter().map(Arc::as_ptr).collect::<HashSet<_>>().len(), APART);
        thread::scope(|scope| (0..4 * APART).for_each(|_| _ = scope.spawn(own)));

        assert_eq!(usage.len(), 1);
        assert_eq!(usage.drain(&IdGenerator::default()).unwrap().len(), 1);
        let uses: u64 = usage.drain_tallies().iter().map(|tally| tally.accepted).sum();
        assert_eq!(uses, 1 + 2 * 4 * APART as u64 * 101);
    }

    #[tokio::test]
    async fn who_notices_that_a_key_is_crowded_sets_its_bearers_apart_at_once() {
        let test = TestKeys::new();
        let issued = test.issue(["builds:read"]).await;
        let bearer = async || {
            let verified =
                test.keys.verify(issued.secret.expose(), &VerifyRequest::new()).await.unwrap();
            verified.bearer().expect("it is cached").clone()
        };
        let first = bearer().await;
        assert!(Arc::ptr_eq(&first, &bearer().await));
        first.usage.crowd();
        assert!(Arc::ptr_eq(&first, &bearer().await), "this one notices");
        let apart = bearer().await;
        assert!(!Arc::ptr_eq(&first, &apart) && Arc::ptr_eq(&apart, &bearer().await));

        test.keys.flush().await.unwrap();
        let firsts = test.events.kinds().into_iter().filter(|kind| *kind == EventKind::FirstUsed);
        assert_eq!(firsts.count(), 1);
    }
}
