use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use keyward::{
    Actor, AuditEvent, AuditQuery, Owner, OwnerScope, Pepper,
    enroll::{
        AccountLookup, CodeMessage, CodeSender, EmailAddress, EnrollError, Enrollment,
        EnrollmentBuilder, HostError,
    },
    manage::Issued,
};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use crate::support::{Service, servers::eventually, stores::Handles};

/// A service with one account and the messages that it has sent.
pub struct EnrollmentHarness {
    pub service: Service,
    /// One for each node.
    pub nodes: Vec<Enrollment>,
    pub host: Host,
    messages: AsyncMutex<mpsc::UnboundedReceiver<CodeMessage>>,
}

/// A host with one account, `ada@example.com`, which owns the service's keys.
#[derive(Clone)]
pub struct Host {
    ada: Owner,
    messages: mpsc::UnboundedSender<CodeMessage>,
    mode: Arc<Mutex<HostMode>>,
}

#[derive(Clone, Copy, Default, PartialEq)]
pub enum HostMode {
    #[default]
    Fine,
    /// Neither the account lookup nor the code sender returns.
    Frozen,
    Failing,
    /// Ada's account no longer exists.
    NoAccount,
}

impl EnrollmentHarness {
    pub fn new(handles: Handles) -> Self {
        Self::with(handles, |builder| builder)
    }

    /// Without hourly limits on requested codes.
    pub fn unlimited(handles: Handles) -> Self {
        Self::with(handles, |builder| {
            builder.codes_per_address(u32::MAX).codes_per_network(u32::MAX)
        })
    }

    pub fn with(handles: Handles, adapt: impl Fn(EnrollmentBuilder) -> EnrollmentBuilder) -> Self {
        let service = Service::new(handles);
        let (sender, messages) = mpsc::unbounded_channel();
        let host = Host { ada: service.owner.clone(), messages: sender, mode: Arc::default() };
        let nodes = service.nodes.iter().map(|keys| {
            let builder = Enrollment::builder(keys.clone(), host.clone(), host.clone(), pepper(1));
            adapt(builder.product("Lua")).build().unwrap()
        });
        Self { nodes: nodes.collect(), service, host, messages: AsyncMutex::new(messages) }
    }

    pub fn node(&self) -> &Enrollment {
        &self.nodes[0]
    }

    /// Requests a code from the first node, and returns it from the message.
    pub async fn code(&self) -> String {
        self.node().request_code(&ada(), &ada_actor()).await.unwrap();
        self.message().await.code.expose().to_owned()
    }

    pub async fn message(&self) -> CodeMessage {
        self.messages.lock().await.recv().await.unwrap()
    }

    /// Returns whether no unread message was sent.
    pub async fn sent_nothing(&self) -> bool {
        self.messages.lock().await.is_empty()
    }

    /// Redeems a code at the last node.
    pub async fn redeem(&self, code: &str) -> Result<Issued, EnrollError> {
        self.nodes.last().unwrap().redeem_code(&ada(), code, &ada_actor()).await
    }

    /// Returns the events of all tenants that the tests use, newest first.
    pub async fn log(&self) -> Vec<AuditEvent> {
        let mut all = Vec::new();
        for node in &self.service.nodes {
            node.flush().await.unwrap();
        }
        for tenant in ["", self.service.owner.tenant()] {
            let query = AuditQuery::new(OwnerScope::Tenant(tenant)).limit(1_000);
            all.extend(self.service.keys().events(query).await.unwrap());
        }
        all
    }

    /// Returns how many codes were refused for this reason.
    pub async fn refused(&self, reason: &str) -> u32 {
        let events = self.log().await.into_iter();
        let refused = events.filter(|event| event.reason.as_deref() == Some(reason));
        refused.map(|event| event.count).sum()
    }

    /// Waits until an event of this kind and reason is in the audit log, and returns it.
    pub async fn logged(&self, kind: &str, reason: Option<&str>) -> AuditEvent {
        let matches =
            |event: &AuditEvent| event.kind.as_str() == kind && event.reason.as_deref() == reason;
        let mut found = None;
        eventually(&format!("{kind} {reason:?} is logged"), async || {
            found = self.log().await.into_iter().find(matches);
            found.is_some()
        })
        .await;
        found.unwrap()
    }
}

impl Host {
    pub fn set_mode(&self, mode: HostMode) {
        *self.mode.lock().unwrap() = mode;
    }

    /// Returns whether Ada has an account.
    async fn respond(&self) -> Result<bool, HostError> {
        let mode = *self.mode.lock().unwrap();
        match mode {
            HostMode::Fine => Ok(true),
            HostMode::NoAccount => Ok(false),
            HostMode::Failing => Err("down".into()),
            HostMode::Frozen => std::future::pending().await,
        }
    }
}

#[async_trait]
impl AccountLookup for Host {
    async fn owner_of(&self, address: &EmailAddress) -> Result<Option<Owner>, HostError> {
        let exists = self.respond().await?;
        Ok((exists && *address == ada()).then(|| self.ada.clone()))
    }
}

#[async_trait]
impl CodeSender for Host {
    async fn send(&self, message: &CodeMessage) -> Result<(), HostError> {
        self.respond().await?;
        let CodeMessage { to, code, .. } = message;
        assert!(
            message.text().contains(code.expose()) && !message.subject().contains(code.expose())
        );
        assert!(!format!("{message:#?}").contains(code.expose()), "`Debug` shows the code");
        assert_eq!(*to, ada(), "no other recipient");
        self.messages.send(message.clone()).map_err(|_| "the harness is gone")?;
        Ok(())
    }
}

pub fn pepper(id: u16) -> Pepper {
    Pepper::new(id, [id as u8; 32]).unwrap()
}

pub fn ada() -> EmailAddress {
    "ada@example.com".parse().unwrap()
}

pub fn stranger() -> EmailAddress {
    "nobody@example.com".parse().unwrap()
}

/// Ada at her usual IP address.
pub fn ada_actor() -> Actor {
    actor_from("192.0.2.7")
}

pub fn actor_from(ip: &str) -> Actor {
    Actor::account("ada@example.com").ip(ip.parse().unwrap()).user_agent("lua/1")
}

/// Returns a code that differs from this one.
pub fn wrong(code: &str) -> String {
    format!("{:06}", (code.parse::<u32>().unwrap() + 1) % 1_000_000)
}
