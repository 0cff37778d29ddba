use std::sync::{Arc, Mutex};

use crate::{system::lock, verify::verified::Bearer};

/// Bearers that have something to tell, the newest first. Each leads to the one that came before it, so
/// that a hit which adds its own allocates nothing.
#[derive(Default)]
pub(crate) struct Chain(Mutex<Link>);

pub(crate) type Link = Option<Arc<Bearer>>;

impl Chain {
    /// Adds a bearer that is in no chain.
    pub(crate) fn add(&self, bearer: Arc<Bearer>) {
        let mut newest = lock(&self.0);
        *bearer.earlier() = newest.take();
        *newest = Some(bearer);
    }

    /// Looks at each and leaves it where it is.
    pub(crate) fn look(&self, mut look: impl FnMut(&Bearer)) {
        let mut next = lock(&self.0).clone();
        while let Some(bearer) = next {
            look(&bearer);
            next = bearer.earlier().clone();
        }
    }

    /// Takes one after the other; each may be added again as soon as it is taken.
    pub(crate) fn take(&self, mut take: impl FnMut(Arc<Bearer>)) {
        let mut next = lock(&self.0).take();
        while let Some(bearer) = next {
            next = bearer.earlier().take();
            take(bearer);
        }
    }
}

/// One after the other: each would drop the one before it, and a long chain overflow the stack.
impl Drop for Chain {
    fn drop(&mut self) {
        self.take(drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{accounts::Account, testing::TestKeys};

    #[tokio::test]
    async fn all_are_taken_once_and_a_long_chain_overflows_no_stack() {
        let key = TestKeys::new().issue(["builds:read"]).await.key;
        let nobody = Arc::new(Account::unknown());
        let bearer = || Arc::new(Bearer::new(key.clone(), nobody.clone()));
        let (chain, again) = (Chain::default(), Chain::default());
        (0..MANY).for_each(|_| chain.add(bearer()));
        let mut seen = 0;
        chain.look(|_| seen += 1);
        assert_eq!(seen, MANY);
        let mut taken = 0;
        chain.take(|bearer| {
            taken += 1;
            again.add(bearer);
        });
        assert_eq!(taken, MANY);
        chain.look(|_| panic!("they were taken"));
        let last = bearer();
        again.add(last.clone());
        drop(again);
        assert_eq!(Arc::strong_count(&last), 1);
    }

    const MANY: usize = 200_000;
}
