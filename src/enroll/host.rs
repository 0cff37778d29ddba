use std::time::Duration;

use async_trait::async_trait;

use super::EmailAddress;
use crate::{model::Owner, secret::Secret};

/// Whose accounts there are: what the host knows of addresses.
#[async_trait]
pub trait AccountLookup: Send + Sync + 'static {
    /// Whose account an address is; `None` if it is nobody's.
    ///
    /// It is asked in the background, before a code is sent, and again when it was presented: an
    /// address that has changed hands, or lost its account, leads to no key any more. Only an address
    /// that the host has verified, or that belongs to nobody else, may lead to an account.
    async fn owner_of(&self, address: &EmailAddress) -> Result<Option<Owner>, HostError>;
}

/// Sends letters: by the host's own mail, or whatever reaches the person at that address.
#[async_trait]
pub trait CodeSender: Send + Sync + 'static {
    /// Sends one, to its address and to no other.
    ///
    /// It runs in the background, and is given up after a minute. Nobody but the audit log is told of
    /// a failure: who asked gets the same answer whether there was anything to send or not.
    async fn send(&self, letter: &CodeMessage) -> Result<(), HostError>;
}

/// Why the host could not do its part.
pub type HostError = Box<dyn std::error::Error + Send + Sync>;

/// A code on its way to a person.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CodeMessage {
    /// To whom.
    pub to: EmailAddress,
    /// Six digits. They belong into the letter, and into no log.
    pub code: Secret,
    /// For how long they are good.
    pub valid_for: Duration,
    /// For which product, in the words of [`EnrollmentBuilder::product`](super::EnrollmentBuilder::product).
    pub product: String,
}

impl CodeMessage {
    /// A subject, without the code: subjects are shown on locked screens.
    pub fn subject(&self) -> String {
        match self.product.as_str() {
            "" => "Your code".into(),
            product => format!("Your code for {product}"),
        }
    }

    /// A text of plain lines. A host may write one of its own instead.
    pub fn text(&self) -> String {
        let Self { code, valid_for, .. } = self;
        let minutes = valid_for.as_secs() / 60;
        format!(
            "{}\n\nThis code is good for one sign-in within {minutes} minutes.\n\
             If you did not ask for it, ignore this letter: nobody gets in without the code. \
             Do not pass it on.\n",
            code.expose()
        )
    }
}
