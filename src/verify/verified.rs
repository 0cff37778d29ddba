use std::{net::IpAddr, sync::Arc};

use super::{
    cache::CachedKey,
    facts::KeyFacts,
    limits::{QuotaStates, RateStates, RatesCharged},
};
use crate::{
    accounts::Account,
    model::{
        Access, Actor, Grantable, KeyId, KeyLimits, Metadata, Networks, Owner, Permissions,
        Timestamp,
    },
};

/// The proof that a request carried a live key. Only verification can create one.
///
/// It holds for the moment of the verification, [`at`](Verified::at), and does not learn of later changes. For work that
/// lasts longer than [`max_staleness`](crate::verify::CacheOptions::max_staleness), such as a stream or a web socket,
/// verify the secret again. A guard inside another guard does so by itself.
///
/// It holds what verification used. The rest of the key's record, such as its name and its last use, is read with
/// [`ApiKeys::get`](crate::ApiKeys::get).
#[derive(Clone)]
pub struct Verified {
    pub(super) key: Arc<CachedKey>,
    pub(super) at: Timestamp,
    pub(super) ip: Option<IpAddr>,
    pub(super) charged: Charged,
    /// Set by a guard; see [`is_csrf_exempt`](Verified::is_csrf_exempt).
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "for guards"))]
    pub(super) csrf_exempt: bool,
}

/// What a request was charged.
#[derive(Clone)]
pub(crate) enum Charged {
    /// Against the rate buckets of this node alone. What is left is computed when it is asked for.
    Locally(RatesCharged),
    /// Also by a rate limiter or in the store.
    Remotely(Arc<(RateStates, QuotaStates)>),
}

impl Verified {
    /// Returns the key's identifier: what belongs into logs and spans.
    pub fn key_id(&self) -> KeyId {
        self.key.facts.id
    }

    /// Returns the owner on whose behalf the request acts.
    pub fn owner(&self) -> &Owner {
        &self.key.facts.owner
    }

    /// Returns the key's own access, before it is limited by the owner's permissions.
    pub fn access(&self) -> &Access {
        &self.key.facts.access
    }

    /// Returns the networks that the key is restricted to.
    pub fn networks(&self) -> &Networks {
        &self.key.facts.networks
    }

    /// Returns the key's own limits.
    pub fn limits(&self) -> KeyLimits {
        self.key.facts.limits()
    }

    /// Returns the host's metadata of the key.
    pub fn metadata(&self) -> &Metadata {
        &self.key.facts.metadata
    }

    /// Returns when the key was issued.
    pub fn created_at(&self) -> Timestamp {
        self.key.facts.created_at
    }

    /// Returns when the key expires, if it does.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.key.facts.expires_at()
    }

    /// Returns what the host said of the owner when the key was verified.
    pub fn account(&self) -> &Account {
        &self.key.account
    }

    /// Returns when the key was verified.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Returns what is left of the rates that this request was charged to.
    pub fn rates(&self) -> RateStates {
        match &self.charged {
            Charged::Locally(charged) => self.key.rates.states_after(*charged),
            Charged::Remotely(states) => states.0,
        }
    }

    /// Returns what is left of the quotas that this request was charged to.
    pub fn quotas(&self) -> QuotaStates {
        match &self.charged {
            Charged::Locally(_) => QuotaStates::default(),
            Charged::Remotely(states) => states.1,
        }
    }

    /// Returns whether the key may do something: its own access and its owner's permissions both have to allow it.
    pub fn allows(&self, scope: &str) -> bool {
        self.access().allows(scope, &self.account().permissions)
    }

    /// Returns all that the key may do.
    pub fn permissions(&self) -> Permissions {
        self.access().within(&self.account().permissions)
    }

    /// Returns whether the request needs no protection against cross-site requests (CSRF), because another site cannot
    /// make a browser send it.
    ///
    /// This holds if a [`Guard`](crate::http::Guard) read the key from a header that a browser sends to another site only
    /// after a preflight request, such as `Authorization: Bearer` or `X-API-Key`, and the request has no cookies. It does
    /// not hold for a key in the query string, in a cookie or in a header like `Accept-Language`, nor for a request with
    /// cookies, which could identify another caller. It does not hold without a guard.
    ///
    /// # Examples
    /// ```
    /// # use keyward::{http::Guard, testing::TestKeys};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let test = TestKeys::new();
    /// # let (guard, issued) = (Guard::new(test.keys.clone()), test.issue(["a"]).await);
    /// let request = http::Request::builder().header("x-api-key", issued.secret.expose());
    /// let (mut head, _) = request.body(())?.into_parts();
    /// assert!(guard.check(&mut head, None).await?.unwrap().is_csrf_exempt());
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "http")]
    pub fn is_csrf_exempt(&self) -> bool {
        self.csrf_exempt
    }

    /// Returns the address that the request came from.
    #[cfg(feature = "http")]
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    #[cfg(feature = "http")]
    pub(crate) fn with_csrf_exempt(self, csrf_exempt: bool) -> Self {
        Self { csrf_exempt, ..self }
    }

    pub(super) fn facts(&self) -> &KeyFacts {
        &self.key.facts
    }

    /// Decides whether the key may do more than it was verified for, from the same address: for a guard inside
    /// another guard. Nothing is charged again.
    #[cfg(feature = "http")]
    pub(crate) fn authorize(
        &self,
        request: super::VerifyRequest<'_>,
        now: Timestamp,
    ) -> Result<(), super::DeniedReason> {
        let request = super::VerifyRequest { ip: self.ip, ..request };
        super::authorize::authorize(&self.key.facts, &self.key.account, &request, now)
    }
}

impl Actor {
    /// Creates the actor of a key that manages keys. It can hand out no more than it may do itself: within its tenant and
    /// networks, within its own limits, and not beyond its expiry.
    pub fn key(verified: &Verified) -> Self {
        let KeyFacts {
            id,
            owner,
            created_at: _,
            state: _,
            expires_at: _,
            secret_ends_at: _,
            access,
            networks,
            limits: _,
            metadata: _,
        } = verified.facts();
        let mut actor = Self::account(&format!("key:{id}"));
        actor.key_id = Some(*id);
        actor.grantable = Grantable {
            tenant: Some(owner.tenant().into()),
            permissions: verified.permissions(),
            inherited_from: (*access == Access::Inherited).then(|| owner.clone()),
            limits: verified.limits(),
            networks: networks.clone(),
            expires_at: verified.expires_at(),
        };
        actor
    }
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified")
            .field("key_id", &self.key_id())
            .field("owner", self.owner())
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}
