//! Issues a first API key to a user who proves ownership of an e-mail address with a one-time code.
//!
//! [`request_code`](Enrollment::request_code) sends a six-digit code to an address;
//! [`redeem_code`](Enrollment::redeem_code) checks the code and issues a key. The host implements
//! [`AccountLookup`], which maps addresses to accounts, and [`CodeSender`], which sends a [`CodeMessage`].
//! `http::manage::SignIn` provides the same over HTTP.
//!
//! # Security of six-digit codes
//! There are only a million codes, so guessing is limited in several ways:
//! - A code issues one key, expires after 10 minutes, and allows 5 attempts. Every store counts the attempt
//!   and compares the code in one atomic step. Requested codes are limited per address and hour; requested
//!   codes and attempts are limited per network and hour.
//! - Codes are stored as digests keyed by a [`Pepper`] that is kept outside the database, and bound to their
//!   address. Without the pepper, a stolen database does not reveal them; a plain hash of six digits, salted
//!   or not, could be reversed in less than a second. Addresses are stored as keyed digests, too.
//! - The account is looked up and the message is sent in the background. Neither the response nor its
//!   timing reveals whether an address has an account. For an address without an account, a code is stored
//!   but never sent.
//!
//! A remaining limitation: requests for another person's address use up its codes for the hour.

mod enrollment;

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;
#[cfg(feature = "totp")]
pub(crate) use enrollment::parse_code;
pub use enrollment::{EnrollError, Enrollment, EnrollmentBuilder};

#[cfg(doc)]
use crate::secret::Pepper;
use crate::{
    model::{Invalid, Owner},
    secret::Secret,
};

/// Maps e-mail addresses to accounts; implemented by the host.
#[async_trait]
pub trait AccountLookup: Send + Sync + 'static {
    /// Returns the account that an address belongs to, or `None` if it belongs to no account.
    ///
    /// Called in the background before a code is sent, and again when the code is redeemed, so that an
    /// address whose account was changed or deleted in the meantime issues no key to the former owner. The
    /// host MUST return an account only if it has verified that the address belongs to it.
    async fn owner_of(&self, address: &EmailAddress) -> Result<Option<Owner>, HostError>;
}

/// Sends one-time codes, by e-mail or another channel that reaches the owner of the address; implemented by
/// the host. With the feature `email`, `email::Mailer` implements it for SMTP.
#[async_trait]
pub trait CodeSender: Send + Sync + 'static {
    /// Sends a message. It MUST be sent to `message.to` only.
    ///
    /// Called in the background, and cancelled after one minute. A failure is recorded in the audit log, but
    /// not returned by `request_code`, which does not reveal whether a message was sent.
    async fn send(&self, message: &CodeMessage) -> Result<(), HostError>;
}

/// An error of the host's own code.
pub type HostError = Box<dyn std::error::Error + Send + Sync>;

/// A one-time code with the address that it is sent to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CodeMessage {
    /// The recipient.
    pub to: EmailAddress,
    /// The six digits. They belong in the message body, and MUST NOT be logged.
    pub code: Secret,
    /// The time until the code expires.
    pub valid_for: Duration,
    /// The product name set by [`EnrollmentBuilder::product`].
    pub product: String,
}

impl CodeMessage {
    /// Returns a subject line without the code, because subjects are shown on lock screens.
    pub fn subject(&self) -> String {
        match self.product.as_str() {
            "" => "Your sign-in code".into(),
            product => format!("Your sign-in code for {product}"),
        }
    }

    /// Returns a plain-text body in English. A host may write its own instead.
    pub fn text(&self) -> String {
        let Self { code, valid_for, .. } = self;
        let minutes = valid_for.as_secs() / 60;
        format!(
            "{}\n\nEnter this code to sign in. It can be used once and expires in {minutes} minutes.\n\n\
             If you did not request it, you can ignore this e-mail: no one can sign in without the code. \
             Please do not share it with anyone.\n",
            code.expose()
        )
    }
}

/// An e-mail address, in lower case.
///
/// Only ASCII is accepted. With Unicode, letters that look alike or fold to the same lower case could send
/// one person's code to another. An internationalized domain is written in its `xn--` form.
///
/// # Examples
/// ```
/// use keyward::enroll::EmailAddress;
///
/// let address: EmailAddress = " Ada@Example.com".parse()?;
/// assert_eq!(address.as_str(), "ada@example.com");
/// assert!("ada@example.com\nBcc: eve@example.com".parse::<EmailAddress>().is_err());
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EmailAddress(Arc<str>);

impl EmailAddress {
    /// Returns the address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EmailAddress {
    type Err = Invalid;

    /// Parses an address that SMTP accepts without quotes, and trims white space around it.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |why| Invalid::new("e-mail address", why);
        let text = text.trim();
        let (local, domain) = text.split_once('@').ok_or_else(|| invalid("missing @"))?;
        let has_only = |part: &str, symbols: &[u8]| {
            let is_allowed = |b: u8| b.is_ascii_alphanumeric() || symbols.contains(&b);
            !part.is_empty() && part.bytes().all(is_allowed)
        };
        let is_atom = |atom: &str| has_only(atom, b"!#$%&'*+/=?^_`{|}~-");
        let is_label =
            |label: &str| has_only(label, b"-") && label.len() <= 63 && !label.starts_with('-');
        if local.len() > MAX_LOCAL_LEN || !local.split('.').all(is_atom) {
            return Err(invalid(
                "the part before the @ must be 1 to 64 ASCII characters, without quotes",
            ));
        }
        if text.len() > MAX_ADDRESS_LEN || !domain.split('.').all(is_label) {
            return Err(invalid(
                "the part after the @ is not a valid domain, or the address is too long",
            ));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The limits of SMTP (RFC 5321), in bytes.
const MAX_LOCAL_LEN: usize = 64;
const MAX_ADDRESS_LEN: usize = 254;
