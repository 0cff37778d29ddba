use crate::{
    api::{ApiKeys, Inner},
    error::Error,
    verify::MAX_UNWRITTEN,
};
use crate::{
    audit::{AuditEvent, EventKind},
    model::{Actor, Owner},
    secret::SecretDigest,
    store::{ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, OneTimeCode},
    system::lock,
    verify::Attempt,
};

/// What codes need of the store, and what they leave in the log: written behind, as refusals of
/// verifications are.
impl ApiKeys {
    pub(crate) async fn put_code(
        &self,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> Result<(), Error> {
        Ok(self.inner.store.put_code(address, code).await?)
    }

    pub(crate) async fn try_code(&self, guess: &CodeAttempt) -> Result<CodeOutcome, Error> {
        Ok(self.inner.store.try_code(guess).await?)
    }

    pub(crate) async fn charge(
        &self,
        charges: &[CounterCharge<'_>],
    ) -> Result<ChargeOutcome, Error> {
        Ok(self.inner.store.charge(charges).await?)
    }

    /// What was done with a code for an owner. There are only so many codes an hour.
    pub(crate) fn note_code(&self, kind: EventKind, of: &Owner, by: &Actor) -> Result<(), Error> {
        let Inner { ids, outbox, .. } = &*self.inner;
        let now = self.now();
        let event = AuditEvent::of_owner(ids.event_id(now)?, now, kind, of, by);
        let mut unwritten = lock(&outbox.unwritten);
        if unwritten.len() < MAX_UNWRITTEN {
            unwritten.push(event);
        }
        drop(unwritten);
        self.inner.ensure_writer();
        Ok(())
    }

    /// Counts one more refusal, with the others of its reason.
    pub(crate) fn note_refused_code(&self, reason: &'static str, by: &Actor) {
        let (at, ip, user_agent) = (self.now(), by.address(), by.agent());
        self.inner.outbox.denials.note_code(Attempt { reason, key: None, at, ip, user_agent });
        self.inner.ensure_writer();
    }
}

#[cfg(feature = "totp")]
impl ApiKeys {
    /// Counts one more second factor that was refused, with the others of its owner and reason.
    pub(crate) fn note_refused_factor(&self, reason: &'static str, of: &Owner, by: &Actor) {
        let (at, ip, user_agent) = (self.now(), by.address(), by.agent());
        let attempt = Attempt { reason, key: None, at, ip, user_agent };
        self.inner.outbox.denials.note_factor(of, by.label(), attempt);
        self.inner.ensure_writer();
    }
}
