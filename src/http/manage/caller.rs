use crate::{
    model::{Actor, Owner, OwnerScope},
    verify::Verified,
};

/// Who is calling, as the host has authenticated it: a session, a key with a scope for that, ….
///
/// # Examples
/// ```
/// use keyward::{Actor, Owner, http::manage::Caller};
///
/// let ada = Owner::new("acme", "ada")?;
/// let herself = Caller::new(ada.clone(), Actor::account("ada@acme.example"));
/// let for_all_of_acme = Caller::new(ada, Actor::account("ada@acme.example")).administrator();
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Caller {
    owner: Owner,
    actor: Actor,
    administrator: bool,
}

impl Caller {
    /// An account that manages its own keys. The actor goes to the audit log, and bounds what can
    /// be handed out.
    pub fn new(owner: Owner, actor: Actor) -> Self {
        Self { owner, actor, administrator: false }
    }

    /// The account of a key that manages keys: it hands out no more than it has itself. The host
    /// MUST have asked for a scope that stands for that.
    pub fn of_key(verified: &Verified) -> Self {
        Self::new(verified.owner().clone(), Actor::key(verified))
    }

    /// It sees and changes the keys of all accounts of its tenant. Keys that it makes are its own.
    pub fn administrator(mut self) -> Self {
        self.administrator = true;
        self
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(super) fn actor(&self) -> &Actor {
        &self.actor
    }

    pub(super) fn within(&self) -> OwnerScope<'_> {
        if self.administrator {
            OwnerScope::Tenant(self.owner.tenant())
        } else {
            OwnerScope::Owner(&self.owner)
        }
    }
}
