use std::{fmt, str::FromStr, sync::Arc};

use crate::model::Invalid;

/// An e-mail address, in lower case.
///
/// ASCII only: letters that look alike, or become the same in some other case, would let one person
/// receive the code of another. A domain of other letters is written in its `xn--` form.
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
    /// The address as it is compared, looked up and written to.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EmailAddress {
    type Err = Invalid;

    /// Reads what can be written on an envelope without quotes, and is no longer than SMTP allows.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |why| Invalid::new("e-mail address", why);
        let text = text.trim();
        let (local, domain) = text.split_once('@').ok_or_else(|| invalid("it has no @"))?;
        let label = |label: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-')
        };
        let atom = |atom: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b);
            !atom.is_empty() && atom.bytes().all(plain)
        };
        if local.len() > MAX_LOCAL || !local.split('.').all(atom) {
            return Err(invalid("what stands before the @ is not 1 to 64 plain characters"));
        }
        if text.len() > MAX || !domain.split('.').all(label) {
            return Err(invalid("what stands behind the @ is no domain"));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const MAX_LOCAL: usize = 64;
const MAX: usize = 254;
