use std::sync::Arc;

use async_trait::async_trait;
use tokio::runtime::Handle;

use super::{
    Mailer,
    letter::Envelope,
    retries::{Failure, Sent},
    wording::{EmailContent, Notice},
};
use crate::{
    AuditEvent, AuditSink, KeyStore,
    audit::{EventKind, Outcome},
    enroll::{EmailAddress, HostError},
    model::{Key, Owner, OwnerScope, one_line},
};

/// To whom letters go: what the host knows of its accounts.
#[async_trait]
pub trait Recipients: Send + Sync + 'static {
    /// The address of an owner; `None` if it has none, or wants no letters.
    ///
    /// It is asked in the background, and again before each attempt. A failure is tried again, as one
    /// of the mail server is.
    async fn address_of(&self, owner: &Owner) -> Result<Option<EmailAddress>, HostError>;
}

/// Writes to the owner of a key what happened to it. Cheap to clone.
///
/// # Examples
/// ```
/// use async_trait::async_trait;
/// use keyward::{
///     ApiKeys, KeyFormat, MemoryStore, Owner,
///     email::{EmailSink, Mailer, Recipients},
///     enroll::{EmailAddress, HostError},
/// };
///
/// struct Users;
/// #[async_trait]
/// impl Recipients for Users {
///     async fn address_of(&self, owner: &Owner) -> Result<Option<EmailAddress>, HostError> {
///         Ok(Some(format!("{}@example.com", owner.account()).parse()?))
///     }
/// }
///
/// let store = MemoryStore::new();
/// let mailer = Mailer::builder("smtp://localhost:25", "keys@example.com".parse()?)?.build();
/// let sink = EmailSink::builder(mailer, Users)
///     .product("Lua")
///     .manage_url("https://example.com/account/keys")
///     .names_from(store.clone())
///     .build();
/// let keys = ApiKeys::builder(store, KeyFormat::builder("lua").build()?).audit(sink).build();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct EmailSink {
    inner: Arc<Inner>,
}

/// Puts an [`EmailSink`] together.
#[must_use = "a builder does nothing until `build` is called"]
pub struct EmailSinkBuilder {
    inner: Inner,
}

struct Inner {
    mailer: Mailer,
    recipients: Box<dyn Recipients>,
    names: Option<Arc<dyn KeyStore>>,
    kinds: Vec<EventKind>,
    product: String,
    manage_url: Option<String>,
    words: Box<Write>,
}

type Write = dyn Fn(&Notice) -> Option<EmailContent> + Send + Sync;

impl EmailSink {
    /// Begins with what sends letters, and who knows to whom.
    pub fn builder(mailer: Mailer, recipients: impl Recipients) -> EmailSinkBuilder {
        EmailSinkBuilder {
            inner: Inner {
                mailer,
                recipients: Box::new(recipients),
                names: None,
                kinds: KINDS.into(),
                product: String::new(),
                manage_url: None,
                words: Box::new(|notice| Some(notice.default_content())),
            },
        }
    }
}

impl AuditSink for EmailSink {
    /// Returns at once: the letter is written and sent by a task of its own.
    fn event(&self, event: &AuditEvent) {
        if event.outcome != Outcome::Success || !self.inner.kinds.contains(&event.kind) {
            return;
        }
        let Some(owner) = owner_of(event) else { return };
        let Some(place) = self.inner.mailer.retries().place() else { return };
        // Outside of a runtime nothing can be sent: the place is given up, and counted.
        let Ok(runtime) = Handle::try_current() else { return };
        let (inner, event) = (self.inner.clone(), event.clone());
        runtime.spawn(async move {
            let attempt = || inner.write(&event, &owner);
            // What fails is counted and told; there is nobody else who waits for it.
            let _ = inner.mailer.retries().run(place, attempt).await;
        });
    }
}

impl EmailSinkBuilder {
    /// What the letters call the product.
    pub fn product(mut self, name: &str) -> Self {
        self.inner.product = one_line(name).into_owned();
        self
    }

    /// Where owners manage their keys: a link at the end of each letter.
    pub fn manage_url(mut self, url: &str) -> Self {
        self.inner.manage_url = Some(url.into());
        self
    }

    /// Reads there what keys are called; without it, letters name them by their ids. It is the store
    /// of the keys, or a clone of it.
    pub fn names_from(self, store: impl KeyStore) -> Self {
        self.names_from_shared(Arc::new(store))
    }

    /// [`names_from`](Self::names_from) a store whose type is known at run time only.
    pub fn names_from_shared(mut self, store: Arc<dyn KeyStore>) -> Self {
        self.inner.names = Some(store);
        self
    }

    /// Of what owners are told; by default of keys that were created, rotated and revoked, and of
    /// all reminders.
    pub fn kinds(mut self, kinds: impl IntoIterator<Item = EventKind>) -> Self {
        self.inner.kinds = kinds.into_iter().collect();
        self
    }

    /// Words of the host's own, also in other languages; `None` sends no letter. What it leaves as it
    /// is, it takes from [`Notice::default_content`].
    ///
    /// # Examples
    /// ```
    /// # use keyward::email::{EmailSinkBuilder, EmailContent};
    /// # fn of(sink: EmailSinkBuilder) -> EmailSinkBuilder {
    /// sink.content(|notice| {
    ///     let mut words = notice.default_content();
    ///     words.subject = format!("Ihr API-Schlüssel {}", notice.key_name());
    ///     Some(words)
    /// })
    /// # }
    /// ```
    pub fn content(
        mut self,
        write: impl Fn(&Notice) -> Option<EmailContent> + Send + Sync + 'static,
    ) -> Self {
        self.inner.words = Box::new(write);
        self
    }

    /// Builds it.
    pub fn build(self) -> EmailSink {
        EmailSink { inner: Arc::new(self.inner) }
    }
}

impl Inner {
    /// One attempt, from the address on: it may be what failed.
    async fn write(&self, event: &AuditEvent, owner: &Owner) -> Result<Sent, Failure> {
        let to = self.recipients.address_of(owner).await.map_err(Failure::for_now)?;
        let Some(to) = to else { return Ok(Sent::Nobody) };
        let notice = Notice {
            event: event.clone(),
            owner: owner.clone(),
            to,
            key: self.key(event, owner).await?,
            product: self.product.clone(),
            manage_url: self.manage_url.clone(),
        };
        let Some(words) = (self.words)(&notice) else { return Ok(Sent::Nobody) };
        let id = Some(format!("{}.keyward", event.id));
        let envelope = Envelope { id, at: Some(event.at.into()) };
        self.mailer.send(&notice.to, &words, envelope).await
    }

    async fn key(&self, event: &AuditEvent, owner: &Owner) -> Result<Option<Key>, Failure> {
        let (Some(names), Some(id)) = (&self.names, event.key_id) else { return Ok(None) };
        let key = names.get(OwnerScope::Owner(owner), id).await.map_err(Failure::for_now)?;
        Ok(key.map(|key| Key::clone(&key)))
    }
}

fn owner_of(event: &AuditEvent) -> Option<Owner> {
    let account = event.account.as_deref()?;
    match event.tenant.as_str() {
        "" => Owner::account_only(account),
        tenant => Owner::new(tenant, account),
    }
    .ok()
}

impl std::fmt::Debug for EmailSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Inner { mailer, kinds, product, .. } = &*self.inner;
        f.debug_struct("EmailSink")
            .field("mailer", mailer)
            .field("kinds", kinds)
            .field("product", product)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for EmailSinkBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmailSinkBuilder").finish_non_exhaustive()
    }
}

const KINDS: [EventKind; 6] = [
    EventKind::Created,
    EventKind::Rotated,
    EventKind::Revoked,
    EventKind::Expiring,
    EventKind::RotationDue,
    EventKind::Unused,
];
