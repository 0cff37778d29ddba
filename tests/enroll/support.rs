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

/// A service with one member, and all letters that it has sent.
pub struct Office {
    pub service: Service,
    /// One for each node.
    pub nodes: Vec<Enrollment>,
    pub host: Host,
    letters: AsyncMutex<mpsc::UnboundedReceiver<CodeMessage>>,
}

/// Knows `ada@example.com`, the owner of the service.
#[derive(Clone)]
pub struct Host {
    ada: Owner,
    letters: mpsc::UnboundedSender<CodeMessage>,
    mood: Arc<Mutex<Mood>>,
}

#[derive(Clone, Copy, Default, PartialEq)]
pub enum Mood {
    #[default]
    Fine,
    /// Neither accounts nor mail answer.
    Frozen,
    Failing,
    /// Ada has left.
    Deserted,
}

impl Office {
    pub fn new(handles: Handles) -> Self {
        Self::with(handles, |builder| builder)
    }

    /// Letters of which nobody counts how many there are in an hour.
    pub fn unlimited(handles: Handles) -> Self {
        Self::with(handles, |builder| {
            builder.codes_per_address(u32::MAX).codes_per_network(u32::MAX)
        })
    }

    pub fn with(handles: Handles, adapt: impl Fn(EnrollmentBuilder) -> EnrollmentBuilder) -> Self {
        let service = Service::new(handles);
        let (sender, letters) = mpsc::unbounded_channel();
        let host = Host { ada: service.owner.clone(), letters: sender, mood: Arc::default() };
        let nodes = service.nodes.iter().map(|keys| {
            let builder = Enrollment::builder(keys.clone(), host.clone(), host.clone(), pepper(1));
            adapt(builder.product("Lua")).build()
        });
        Self { nodes: nodes.collect(), service, host, letters: AsyncMutex::new(letters) }
    }

    pub fn any(&self) -> &Enrollment {
        &self.nodes[0]
    }

    /// Asks for a code at one node, and reads the letter.
    pub async fn code(&self) -> String {
        self.any().request_code(&ada(), &at_home()).await.unwrap();
        self.letter().await.code.expose().to_owned()
    }

    pub async fn letter(&self) -> CodeMessage {
        self.letters.lock().await.recv().await.unwrap()
    }

    /// Whether nothing was sent that was not read yet.
    pub async fn sent_nothing(&self) -> bool {
        self.letters.lock().await.is_empty()
    }

    /// Presents a code at the other node.
    pub async fn present(&self, code: &str) -> Result<Issued, EnrollError> {
        self.nodes.last().unwrap().redeem_code(&ada(), code, &at_home()).await
    }

    /// Of all tenants that the tests have; newest first.
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

    /// What is in the log, once this is.
    pub async fn logged(&self, kind: &str, reason: Option<&str>) -> AuditEvent {
        let fits =
            |event: &AuditEvent| event.kind.as_str() == kind && event.reason.as_deref() == reason;
        let mut found = None;
        eventually(&format!("{kind} {reason:?} is logged"), async || {
            found = self.log().await.into_iter().find(fits);
            found.is_some()
        })
        .await;
        found.unwrap()
    }
}

impl Host {
    pub fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    async fn obey(&self) -> Result<bool, HostError> {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Fine => Ok(true),
            Mood::Deserted => Ok(false),
            Mood::Failing => Err("down".into()),
            Mood::Frozen => std::future::pending().await,
        }
    }
}

#[async_trait]
impl AccountLookup for Host {
    async fn owner_of(&self, address: &EmailAddress) -> Result<Option<Owner>, HostError> {
        let there = self.obey().await?;
        Ok((there && *address == ada()).then(|| self.ada.clone()))
    }
}

#[async_trait]
impl CodeSender for Host {
    async fn send(&self, letter: &CodeMessage) -> Result<(), HostError> {
        self.obey().await?;
        let CodeMessage { to, code, .. } = letter;
        assert!(letter.text().contains(code.expose()) && !letter.subject().contains(code.expose()));
        assert!(!format!("{letter:#?}").contains(code.expose()), "a letter is debugged");
        assert_eq!(*to, ada(), "to nobody else");
        self.letters.send(letter.clone()).map_err(|_| "nobody reads")?;
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

/// Who asks, from where.
pub fn at_home() -> Actor {
    from("192.0.2.7")
}

pub fn from(ip: &str) -> Actor {
    Actor::account("ada@example.com").ip(ip.parse().unwrap()).user_agent("lua/1")
}

/// Another code than this one.
pub fn wrong(code: &str) -> String {
    format!("{:06}", (code.parse::<u32>().unwrap() + 1) % 1_000_000)
}
