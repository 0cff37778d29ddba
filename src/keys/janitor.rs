use std::sync::{Arc, Weak};

use super::{Error, Inner, purge::Purging};
use crate::{
    key::Timestamp,
    limits::Period,
    store::{Payer, Spend, Spent},
    usage::begin_of_hour,
};

/// Cleaning up by itself: once an hour, on one of all nodes.
impl Inner {
    /// Starts to clean up, unless it is switched off, or was tried in this hour already.
    pub(super) fn clean_up_hourly(self: &Arc<Self>, tried: &mut Option<Timestamp>) {
        let hour = Some(begin_of_hour(self.now()));
        if self.janitor.is_some() && *tried != hour {
            *tried = hour;
            // Apart from the writer, which must not wait for it. What fails is done in another hour.
            tokio::spawn(clean_up(Arc::downgrade(self)));
        }
    }

    /// Whether this hour's turn falls to this node: whoever takes the one use there is.
    async fn takes_turn(&self) -> Result<bool, Error> {
        let turn = Spend {
            payer: Payer::Job("purge"),
            period: Period::Ever,
            window: begin_of_hour(self.now()),
            limit: 1,
            uses: 1,
        };
        Ok(matches!(self.store.spend(&[turn]).await?, Spent::Granted(_)))
    }
}

/// Holds on to nothing between two batches, and ends when the `ApiKeys` are gone.
async fn clean_up(inner: Weak<Inner>) -> Result<(), Error> {
    let living = || inner.upgrade().filter(|inner| !inner.is_shut_down());
    let purge = match living() {
        Some(inner) if inner.takes_turn().await? => inner.janitor,
        _ => None,
    };
    let Some(purge) = purge else { return Ok(()) };
    let mut purging = Purging::new(purge);
    while let Some(inner) = living()
        && purging.step(&inner).await?
    {}
    Ok(())
}
