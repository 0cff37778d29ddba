use std::sync::Arc;

use crate::verify::cache::{
    bearers::Bearers,
    fence::{Place, Token},
    shared::Shared,
};
use crate::{
    accounts::Account,
    model::{Networks, Permissions, Status, Timestamp},
    verify::{limits::meter::Meter, verified::Bearer},
};

/// A key as it was read, and until when it may be believed.
#[derive(Clone)]
pub(crate) struct Entry {
    bearers: Bearers,
    outline: Outline,
    /// When the secret it was found by stops working.
    pub(crate) ends_at: Option<Timestamp>,
    pub(crate) meter: Meter,
    pub(crate) read: Read,
    /// Where the key's invalidations are noted, and its owner's.
    pub(crate) places: [Place; 2],
    /// When the host was asked for the account.
    pub(crate) account_at: u64,
}

/// What decides about nearly every request, beside the rest: a hit follows no pointer to it.
#[derive(Clone)]
struct Outline {
    /// Until then it works, from everywhere; not at all if something else is to be looked at.
    works_until: Timestamp,
    permissions: Permissions,
}

impl Entry {
    pub(crate) fn new(
        bearer: Bearer,
        ends_at: Option<Timestamp>,
        meter: Meter,
        read: Read,
        places: [Place; 2],
        shared: &Shared,
    ) -> Self {
        let outline = Outline::of(&bearer, ends_at, shared);
        let bearers = Bearers::one(bearer);
        Self { bearers, outline, ends_at, meter, read, places, account_at: read.at }
    }

    /// The same key with what the host says of its owner now.
    pub(crate) fn renewed(
        &self,
        account: &Arc<Account>,
        meter: Meter,
        now: u64,
        shared: &Shared,
    ) -> Self {
        let bearers = self.bearers.renewed(account);
        let outline = Outline::of(bearers.own(), self.ends_at, shared);
        Self { bearers, outline, meter, account_at: now, ..self.clone() }
    }

    #[inline]
    pub(crate) fn is_crowded(&self) -> bool {
        self.bearers.is_crowded()
    }

    /// The same with a bearer for each thread.
    pub(crate) fn apart(&self) -> Self {
        Self { bearers: self.bearers.apart(), ..self.clone() }
    }

    /// The key, what the host says of its owner, and its uses, as this thread counts them.
    #[inline]
    pub(crate) fn bearer(&self) -> &Arc<Bearer> {
        self.bearers.own()
    }

    /// Whether all checks pass for certain. Where it says no, they have to be made one by one.
    #[inline]
    pub(crate) fn admits(&self, now: Timestamp, tenant: Option<&str>, scopes: &[&str]) -> bool {
        now < self.outline.works_until
            && tenant.is_none_or(|tenant| tenant == self.bearer().key.owner.tenant())
            && scopes.iter().all(|scope| self.outline.permissions.allows(scope))
    }
}

impl Outline {
    fn of(bearer: &Bearer, ends_at: Option<Timestamp>, shared: &Shared) -> Self {
        let Bearer { key, account, .. } = bearer;
        let active = key.status(Timestamp::MIN) == Status::Active;
        let plain = active && !account.suspended && key.networks == Networks::Any;
        let ends = [key.expires_at, ends_at].into_iter().flatten().min();
        Self {
            works_until: if plain { ends.unwrap_or(Timestamp::MAX) } else { Timestamp::MIN },
            permissions: shared.copy_of(key.access.within(&account.permissions)),
        }
    }
}

/// When a read began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) token: Token,
    pub(crate) at: u64,
}
