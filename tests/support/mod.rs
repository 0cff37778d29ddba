//! Shared by all tests: every store, a host with accounts, private servers, and a log that is checked for
//! secrets.

pub mod examples;
pub mod host;
pub mod hostile;
pub mod log;
pub mod policy;
pub mod random;
// Some server controls are used by fault tests of a single store only.
#[allow(dead_code, unused_imports)]
pub mod servers;
pub mod stores;

use std::{path::Path, time::Duration};

use keyward::{
    Access, Actor, ApiKeys, Denied, Key, KeyFormat, KeyId, NewKey, Owner, Timestamp, Verified,
    VerifyError, VerifyRequest,
    api::ApiKeysBuilder,
    manage::Issued,
    testing::{Events, ManualClock},
    verify::DeniedReason,
};

pub use host::Host;
pub use policy::Policy;
pub use stores::on_each_store;

/// Returns the folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// One service on one store, with one node per store handle, one clock and one host.
pub struct Service {
    pub nodes: Vec<ApiKeys>,
    pub clock: ManualClock,
    pub host: Host,
    pub policy: Policy,
    pub events: Events,
    pub owner: Owner,
    pub actor: Actor,
}

impl Service {
    pub fn new(handles: stores::Handles) -> Self {
        Self::with(handles, |builder| builder)
    }

    /// Without a cache: each verification queries the store.
    pub fn uncached(handles: stores::Handles) -> Self {
        Self::with(handles, ApiKeysBuilder::no_cache)
    }

    pub fn with(
        handles: stores::Handles,
        adapt: impl Fn(ApiKeysBuilder) -> ApiKeysBuilder,
    ) -> Self {
        log::watch();
        let (clock, events) = (ManualClock::default(), Events::default());
        let (host, policy) = (Host::default(), Policy::default());
        let node = |store| {
            let builder = ApiKeys::builder_on(store, format())
                .accounts(host.clone())
                .step_up(policy.clone())
                .clock(clock.clone())
                .audit(events.clone());
            adapt(builder).build()
        };
        let nodes = handles.into_iter().map(node).collect();
        let actor = Actor::account("ada@example.com")
            .ip("192.0.2.7".parse().unwrap())
            .user_agent("Mozilla/5.0");
        Self { nodes, clock, host, policy, events, owner: owner("acme", "ada"), actor }
    }

    /// The first node.
    pub fn keys(&self) -> &ApiKeys {
        &self.nodes[0]
    }

    pub fn new_key(&self) -> NewKey {
        NewKey::new(&self.owner, "ci-pipeline").unwrap()
    }

    pub async fn issue(&self) -> Issued {
        self.keys().issue(self.new_key(), &self.actor).await.unwrap()
    }

    pub async fn issue_with(&self, access: Access) -> Issued {
        self.keys().issue(self.new_key().access(access), &self.actor).await.unwrap()
    }

    pub async fn verify(&self, issued: &Issued) -> Result<Verified, DeniedReason> {
        self.verify_for(issued, &VerifyRequest::new()).await
    }

    /// Verifies on the last node, after it has read the change feed. Most changes are made on the first node.
    pub async fn verify_for(
        &self,
        issued: &Issued,
        request: &VerifyRequest<'_>,
    ) -> Result<Verified, DeniedReason> {
        let node = self.nodes.last().unwrap();
        node.catch_up().await.unwrap();
        node.verify(issued.secret.expose(), request).await.map_err(reason)
    }

    pub async fn stored(&self, id: KeyId) -> Key {
        Key::clone(&*self.nodes.last().unwrap().get(&self.owner, id).await.unwrap())
    }

    pub fn now(&self) -> Timestamp {
        keyward::system::Clock::now(&self.clock)
    }
}

pub fn reason(error: VerifyError) -> DeniedReason {
    match error {
        VerifyError::Denied(denied) => Denied::reason(&denied),
        VerifyError::Limited(limited) => panic!("{limited}"),
        VerifyError::Unavailable(error) => panic!("unavailable: {error}"),
    }
}

pub fn format() -> KeyFormat {
    KeyFormat::builder("lc").environment("live").build().unwrap()
}

pub fn owner(tenant: &str, account: &str) -> Owner {
    Owner::new(tenant, account).unwrap()
}

pub const SECOND: Duration = Duration::from_secs(1);
pub const HOUR: Duration = Duration::from_secs(3_600);
pub const DAY: Duration = Duration::from_secs(86_400);
/// The resolution of timestamps in every store.
pub const MICRO: Duration = Duration::from_micros(1);

/// Replaces the last character, so that the checksum is wrong.
pub fn mistyped(secret: &str) -> String {
    let (rest, last) = secret.split_at(secret.len() - 1);
    format!("{rest}{}", if last == "0" { "1" } else { "0" })
}
