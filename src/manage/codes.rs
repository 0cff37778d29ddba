use super::Manager;
use crate::{
    error::Error,
    secret::SecretDigest,
    store::{ChargeOutcome, CodeAttempt, CodeOutcome, CounterCharge, OneTimeCode},
};

/// What one-time codes and second factors need of the store.
impl Manager {
    pub(crate) async fn put_code(
        &self,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> Result<(), Error> {
        Ok(self.store.put_code(address, code).await?)
    }

    pub(crate) async fn try_code(&self, attempt: &CodeAttempt) -> Result<CodeOutcome, Error> {
        Ok(self.store.try_code(attempt).await?)
    }

    pub(crate) async fn charge_counters(
        &self,
        charges: &[CounterCharge<'_>],
    ) -> Result<ChargeOutcome, Error> {
        Ok(self.store.charge(charges).await?)
    }
}
