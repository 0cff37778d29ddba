use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;

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
    /// not reported to the caller of `request_code`: the response is the same whether a message was sent or
    /// not.
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
    /// The product name set by [`EnrollmentBuilder::product`](super::EnrollmentBuilder::product).
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
        let is_label = |label: &str| {
            let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            (1..=63).contains(&label.len())
                && label.bytes().all(is_allowed)
                && !label.starts_with('-')
        };
        let is_atom = |atom: &str| {
            let is_allowed =
                |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b);
            !atom.is_empty() && atom.bytes().all(is_allowed)
        };
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
