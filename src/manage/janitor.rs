use std::sync::{Arc, Weak, atomic::Ordering};

use crate::{
    api::Inner,
    error::Error,
    manage::{purge::Purging, remind::remind_all},
};
use crate::{model::Timestamp, store::CounterKey, verify::begin_of_hour};

/// Cleaning up and reminding by itself: once an hour, on one of all nodes.
impl Inner {
    /// Starts what is not switched off, unless it was tried in this hour already.
    pub(crate) fn work_hourly(self: &Arc<Self>, tried: &mut Option<Timestamp>) {
        let hour = Some(begin_of_hour(self.now()));
        if *tried == hour {
            return;
        }
        *tried = hour;
        // Apart from the writer, which must not wait for it.
        if self.janitor.is_some() {
            self.start(clean_up);
        }
        if self.reminders.is_some() {
            self.start(remind_all);
        }
    }

    /// What fails is counted, and done in another hour.
    fn start<J>(self: &Arc<Self>, job: fn(Weak<Self>) -> J)
    where
        J: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let inner = Arc::downgrade(self);
        tokio::spawn(async move {
            if job(inner.clone()).await.is_err()
                && let Some(inner) = inner.upgrade()
            {
                inner.failed_jobs.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// Holds on to nothing between two batches, and ends when the `ApiKeys` are gone.
async fn clean_up(inner: Weak<Inner>) -> Result<(), Error> {
    let living = || inner.upgrade().filter(|inner| !inner.is_shut_down());
    let purge = match living() {
        Some(inner) if inner.takes_one(CounterKey::Job("purge"), inner.now()).await? => {
            inner.janitor
        }
        _ => None,
    };
    let Some(purge) = purge else { return Ok(()) };
    let mut purging = Purging::new(purge);
    while let Some(inner) = living()
        && purging.step(&inner).await?
    {}
    Ok(())
}
