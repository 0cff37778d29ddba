use super::manager::Manager;
use crate::{
    accounts::{Account, SensitiveChange},
    audit::{AuditEvent, AuditSink},
    error::{Error, ErrorKind},
    model::{Access, Actor, Key, Owner, Quota},
    verify::{Cache, run_to_end},
};

impl Manager {
    /// Authorizes a sensitive change: calls `check` with the owner's account, and requires the policy's second factor.
    ///
    /// The second factor comes last, so that it is not requested for a change that is refused anyway. Two checks come
    /// later, because only the store makes them: the number of keys, and whether an imported secret exists.
    pub(super) async fn authorize_change<T: Send>(
        &self,
        owner: &Owner,
        by: &Actor,
        change: SensitiveChange,
        check: impl FnOnce(&Account) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        self.clock.checked_now().await?;
        let account = self.accounts.account(owner).await.map_err(Error::accounts)?;
        if account.suspended {
            let message = "the owner is suspended: no key can be issued, rotated, enabled or widened until the \
                suspension ends";
            return Err(Error::new(ErrorKind::Suspended, message));
        }
        let checked = check(&account)?;
        let unavailable = |source| Error::unavailable("the host's second factor policy", source);
        match self.step_up.max_age(owner, by, change).await.map_err(unavailable)? {
            Some(max_age) if !by.confirmed_within(max_age, self.clock.now()) => {
                Err(Error::second_factor_required(max_age))
            }
            _ => Ok(checked),
        }
    }

    /// Checks that the store can count a quota.
    pub(super) fn check_counted(&self, quota: Option<Quota>) -> Result<(), Error> {
        match quota {
            Some(_) if self.store.counters().is_none() => Err(Error::no_counters()),
            _ => Ok(()),
        }
    }

    /// Makes a change: writes it, invalidates this node's cache, then notifies the sinks. `write` returns the answer to the
    /// caller, and the events that the store wrote with the change.
    ///
    /// `invalidate` is called before and after the write, whatever the outcome: also if the answer was lost, if the write
    /// panics, or if the runtime is shut down. So this node stops trusting its cache before the change is acknowledged.
    /// Keys that the events name are invalidated as well.
    ///
    /// Once begun, it runs to its end, also if the caller is dropped. If the outcome is unknown, no sink is notified.
    pub(super) async fn change<T: Send + 'static, E: IntoIterator<Item = AuditEvent>>(
        &self,
        invalidate: impl Fn(&Cache) + Send + Sync + 'static,
        write: impl Future<Output = Result<(T, E), Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (cache, sinks) = (self.cache.clone(), self.sinks.clone());
        run_to_end(async move {
            invalidate(&cache);
            let at_the_end = OnDrop(|| invalidate(&cache));
            let written = write.await;
            drop(at_the_end);
            let (answer, events) = written?;
            let events = Vec::from_iter(events);
            events.iter().filter_map(|event| event.key_id).for_each(|id| cache.invalidate_key(id));
            events.iter().for_each(|event| sinks.event(event));
            Ok(answer)
        })
        .await
    }

    /// Writes an event that belongs to no change, then notifies the sinks.
    pub(crate) async fn write_event(&self, event: AuditEvent) -> Result<(), Error> {
        self.write_events(vec![event]).await.map(drop)
    }

    /// Writes events that belong to no change, then notifies the sinks, unless all of them were written before. Returns
    /// the number written.
    pub(super) async fn write_events(&self, events: Vec<AuditEvent>) -> Result<u32, Error> {
        if events.is_empty() {
            return Ok(0);
        }
        let (store, sinks) = (self.store.clone(), self.sinks.clone());
        run_to_end(async move {
            let written = store.record_events(&events).await?;
            if written > 0 {
                events.iter().for_each(|event| sinks.event(event));
            }
            Ok(written)
        })
        .await
    }
}

/// Checks that a key does not exceed its owner's permissions.
pub(super) fn check_within_owner(key: &Key, account: &Account) -> Result<(), Error> {
    if let Access::Only(scopes) = &key.access
        && let Some(scope) = scopes.iter().find(|scope| !account.permissions.allows(scope))
    {
        let message = format!("the owner of the key does not have the scope `{scope}`");
        return Err(Error::new(ErrorKind::Forbidden, message));
    }
    Ok(())
}

/// Checks that the actor may hand out such a key.
pub(super) fn check_within_actor(key: &Key, by: &Actor) -> Result<(), Error> {
    if by.can_grant(key) {
        return Ok(());
    }
    let message = "the key would exceed what the actor may grant: stay in the actor's tenant, and reduce the key's \
        access, limits, networks or expiry";
    Err(Error::new(ErrorKind::Forbidden, message))
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
