use std::str::FromStr;

/// The name of one of several identities kept in one credentials file; `default` unless told otherwise.
///
/// # Examples
/// ```
/// use keyward::client::Profile;
///
/// let work: Profile = "work".parse()?;
/// assert!(!work.is_default() && Profile::default().is_default());
/// assert!("a]b".parse::<Profile>().is_err());
/// # Ok::<(), keyward::client::InvalidProfile>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Profile(String);

/// The name cannot be one of a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a profile is named by 1 to {MAX} letters, digits, `-`, `_` and `.`")]
#[non_exhaustive]
pub struct InvalidProfile;

impl Profile {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the one that is meant when none is named.
    pub fn is_default(&self) -> bool {
        self.0 == DEFAULT
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl FromStr for Profile {
    type Err = InvalidProfile;

    fn from_str(name: &str) -> Result<Self, InvalidProfile> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let valid = (1..=MAX).contains(&name.len()) && name.bytes().all(fits);
        valid.then(|| Self(name.to_owned())).ok_or(InvalidProfile)
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) const DEFAULT: &str = "default";
const MAX: usize = 64;
