use std::sync::Arc;

use async_trait::async_trait;
use tokio::runtime::Handle;

use super::{
    mailer::{Mailer, SendError},
    messages::{EmailContent, Notice},
};
use crate::{
    AuditEvent, AuditSink, KeyStore,
    audit::{EventKind, Outcome},
    enroll::{EmailAddress, HostError},
    model::{Key, Owner, OwnerScope, debug_only, one_line},
};

/// Maps owners to e-mail addresses; implemented by the host.
#[async_trait]
pub trait Recipients: Send + Sync + 'static {
    /// Returns the address of an owner, or `None` if the owner has none or does not want e-mail. Called in the
    /// background before each attempt to send. Errors are retried like those of the mail server.
    async fn address_of(&self, owner: &Owner) -> Result<Option<EmailAddress>, HostError>;
}

/// Sends an e-mail to a key's owner when something happens to the key. Cheap to clone.
///
/// # Examples
/// ```
/// use keyward::async_trait;
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
#[derive(Clone, Debug)]
pub struct EmailSink {
    inner: Arc<Inner>,
}

/// Builds an [`EmailSink`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct EmailSinkBuilder(Inner);

struct Inner {
    mailer: Mailer,
    recipients: Box<dyn Recipients>,
    names_from: Option<Arc<dyn KeyStore>>,
    kinds: Vec<EventKind>,
    product: String,
    manage_url: Option<String>,
    content: Box<ContentFn>,
}

type ContentFn = dyn Fn(&Notice) -> Option<EmailContent> + Send + Sync;

impl EmailSink {
    /// Starts a sink with a mailer and the host's addresses.
    pub fn builder(mailer: Mailer, recipients: impl Recipients) -> EmailSinkBuilder {
        use EventKind::{Created, Expiring, Revoked, Rotated, RotationDue, Unused};
        EmailSinkBuilder(Inner {
            mailer,
            recipients: Box::new(recipients),
            names_from: None,
            kinds: vec![Created, Rotated, Revoked, Expiring, RotationDue, Unused],
            product: String::new(),
            manage_url: None,
            content: Box::new(|notice| Some(notice.default_content())),
        })
    }
}

impl AuditSink for EmailSink {
    /// Returns immediately: a spawned task writes and sends the message.
    fn event(&self, event: &AuditEvent) {
        if event.outcome != Outcome::Success || !self.inner.kinds.contains(&event.kind) {
            return;
        }
        let account = event.account.as_deref();
        let owner = account.and_then(|account| Owner::from_parts(&event.tenant, account).ok());
        let Some(owner) = owner else { return };
        let Some(slot) = self.inner.mailer.reserve() else { return };
        // Without a runtime nothing can be sent: dropping the slot counts the message as dropped.
        let Ok(runtime) = Handle::try_current() else { return };
        let (inner, event) = (self.inner.clone(), event.clone());
        runtime.spawn(async move {
            let attempt = || inner.send_once(&event, &owner);
            // The queue has counted and logged a failure; there is no caller to return it to.
            let _ = inner.mailer.deliver(slot, attempt).await;
        });
    }
}

impl EmailSinkBuilder {
    /// Sets the product name that messages show in the subject. Defaults to none.
    pub fn product(self, name: &str) -> Self {
        Self(Inner { product: one_line(name).into_owned(), ..self.0 })
    }

    /// Sets the page where owners manage their keys, linked at the end of each message. Defaults to none.
    pub fn manage_url(self, url: &str) -> Self {
        Self(Inner { manage_url: Some(url.into()), ..self.0 })
    }

    /// Sets the store from which key names are read: that of the keys, or a clone. Without it, messages show key ids.
    pub fn names_from(self, store: impl KeyStore) -> Self {
        self.names_from_shared(Arc::new(store))
    }

    /// Like [`names_from`](Self::names_from), for a store behind `Arc<dyn KeyStore>`.
    pub fn names_from_shared(self, store: Arc<dyn KeyStore>) -> Self {
        Self(Inner { names_from: Some(store), ..self.0 })
    }

    /// Sets the kinds of events to notify of. Defaults to created, rotated, revoked, and all reminders.
    pub fn kinds(self, kinds: impl IntoIterator<Item = EventKind>) -> Self {
        Self(Inner { kinds: kinds.into_iter().collect(), ..self.0 })
    }

    /// Sets a function that writes the messages, for example in another language. If it returns `None`, no
    /// message is sent. Defaults to [`Notice::default_content`].
    ///
    /// # Examples
    /// ```
    /// # use keyward::email::{EmailSinkBuilder, EmailContent};
    /// # fn configure(sink: EmailSinkBuilder) -> EmailSinkBuilder {
    /// sink.content(|notice| {
    ///     let mut content = notice.default_content();
    ///     content.subject = format!("Ihr API-Schlüssel {}", notice.key_name());
    ///     Some(content)
    /// })
    /// # }
    /// ```
    pub fn content(
        self,
        write: impl Fn(&Notice) -> Option<EmailContent> + Send + Sync + 'static,
    ) -> Self {
        Self(Inner { content: Box::new(write), ..self.0 })
    }

    /// Builds the sink.
    pub fn build(self) -> EmailSink {
        EmailSink { inner: Arc::new(self.0) }
    }
}

impl Inner {
    /// Makes one attempt, and returns whether it sent a message. Looks the address up again: that may have failed.
    async fn send_once(&self, event: &AuditEvent, owner: &Owner) -> Result<bool, SendError> {
        let to = self.recipients.address_of(owner).await.map_err(SendError::Temporary)?;
        let Some(to) = to else { return Ok(false) };
        let notice = Notice {
            event: event.clone(),
            owner: owner.clone(),
            to,
            key: self.key(event, owner).await?,
            product: self.product.clone(),
            manage_url: self.manage_url.clone(),
        };
        let Some(content) = (self.content)(&notice) else { return Ok(false) };
        self.mailer.send_once(&notice.to, &content, Some(event)).await
    }

    async fn key(&self, event: &AuditEvent, owner: &Owner) -> Result<Option<Key>, SendError> {
        let (Some(store), Some(id)) = (&self.names_from, event.key_id) else { return Ok(None) };
        let found = store.get(OwnerScope::Owner(owner), id).await;
        let found = found.map_err(|error| SendError::Temporary(error.into()))?;
        Ok(found.map(|key| Key::clone(&key)))
    }
}

debug_only!(Inner { mailer, kinds });
