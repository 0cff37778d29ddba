use crate::secret::KeyFormat;

/// What becomes of a key whose secret has leaked. It is noted in the audit log in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeakPolicy {
    /// It is revoked for ever: whoever found the secret may use it.
    #[default]
    Revoke,
    /// It is switched off, and its owner can switch it on again.
    Disable,
    /// Nothing: the host does what it wants with the audit event.
    Notify,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    pub(super) general: LeakPolicy,
    /// The one that was set last stands first.
    pub(super) special: Vec<(KeyFormat, LeakPolicy)>,
}

impl Policies {
    pub(super) fn of(&self, secret: &str) -> LeakPolicy {
        let special = self.special.iter().find(|(format, _)| format.parse(secret).is_ok());
        special.map_or(self.general, |(_, policy)| *policy)
    }
}
