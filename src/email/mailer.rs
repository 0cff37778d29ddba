use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::extension::ClientId,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::messages::EmailContent;
use crate::{
    audit::AuditEvent,
    enroll::{CodeMessage, CodeSender, EmailAddress, HostError},
    model::{Invalid, debug_only, one_line},
    system::lock,
};

/// Sends messages to a mail server over SMTP. Cheap to clone; clones share the pending messages.
///
/// It is also a [`CodeSender`] for [`Enrollment`](crate::enroll::Enrollment).
///
/// # Examples
/// ```
/// use keyward::email::Mailer;
///
/// let url = "smtp://user:password@mail.example.com?tls=required";
/// let mailer = Mailer::builder(url, "no-reply@example.com".parse()?)?.name("Lua").build();
/// assert_eq!(mailer.stats().dropped, 0);
/// # Ok::<(), keyward::model::Invalid>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mailer {
    inner: Arc<Inner>,
}

/// Builds a [`Mailer`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct MailerBuilder(Inner);

/// The messages of a [`Mailer`] since it was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MailerStats {
    /// Messages that the mail server accepted.
    pub sent: u64,
    /// Messages that were never delivered: rejected, failed on the last attempt, or too many were pending.
    pub dropped: u64,
    /// Failed attempts that were followed by another one.
    pub retried: u64,
    /// Messages that are being sent now, or wait for their next attempt.
    pub pending: u64,
}

struct Inner {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: EmailAddress,
    name: String,
    max_attempts: u32,
    /// The delay before the second attempt; it is multiplied by four after each further one.
    retry_delay: Duration,
    attempt_timeout: Duration,
    max_pending: u32,
    free_slots: Arc<Semaphore>,
    connections: Semaphore,
    /// All fields but `pending`.
    stats: Mutex<MailerStats>,
}

impl Mailer {
    /// Starts a mailer with the URL of the mail server and the sender's address. `smtps://user:password@host` uses TLS
    /// from the first byte, `smtp://…?tls=required` uses `STARTTLS`. Without TLS, only this machine is accepted:
    /// `smtp://localhost:25`. Certificates are checked against the system's roots.
    ///
    /// # Errors
    /// If the URL is not one of these, or the operating system has no trusted roots.
    pub fn builder(url: &str, from: EmailAddress) -> Result<MailerBuilder, Invalid> {
        let invalid = |why| Invalid::new("mail server URL", why);
        if !is_encrypted_or_local(url) {
            let why = "it does not require TLS: use smtps://host, or smtp://host?tls=required";
            return Err(invalid(why));
        }
        let why = "expected smtp://host or smtps://host, and trusted TLS roots on this machine";
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
            // The cause is left out: it could contain the password.
            .map_err(|_| invalid(why))?
            .hello_name(ClientId::Domain(domain(&from).into()))
            .build();
        Ok(MailerBuilder(Inner {
            transport,
            from,
            name: String::new(),
            max_attempts: 5,
            retry_delay: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(30),
            max_pending: 1_000,
            free_slots: Arc::new(Semaphore::new(0)),
            connections: Semaphore::new(MAX_CONCURRENT_ATTEMPTS),
            stats: Mutex::default(),
        }))
    }

    /// Returns the numbers of messages sent, dropped, retried and pending, for metrics and alerts.
    pub fn stats(&self) -> MailerStats {
        let Inner { stats, max_pending, free_slots, .. } = &*self.inner;
        let pending = u64::from(*max_pending) - free_slots.available_permits() as u64;
        MailerStats { pending, ..*lock(stats) }
    }

    /// Waits until no message is pending. A service calls this before it exits, with a timeout of its own.
    pub async fn flush(&self) {
        // Fails only if the semaphore is closed, which never happens.
        let _all = self.inner.free_slots.acquire_many(self.inner.max_pending).await;
    }

    /// Reserves a slot for one message. If all are taken, counts the message as dropped and returns `None`.
    pub(super) fn reserve(&self) -> Option<PendingSlot> {
        let Ok(permit) = self.inner.free_slots.clone().try_acquire_owned() else {
            lock(&self.inner.stats).dropped += 1;
            #[cfg(feature = "tracing")]
            tracing::warn!(target: "keyward::email", "an e-mail was dropped: too many are pending");
            return None;
        };
        Some(PendingSlot { inner: self.inner.clone(), delivered: false, _permit: permit })
    }

    /// Attempts until one succeeds, one fails permanently, or the last allowed one has failed. An attempt
    /// returns whether it sent a message: the owner may have no address, or the host may want no message.
    pub(super) async fn deliver<F: Future<Output = Result<bool, SendError>>>(
        &self,
        mut slot: PendingSlot,
        attempt: impl Fn() -> F,
    ) -> Result<(), SendError> {
        let Inner { connections, attempt_timeout, max_attempts, stats, .. } = &*self.inner;
        let (mut delay, mut attempts) = (self.inner.retry_delay, 0);
        loop {
            // Held for the attempt only, so that a message between two attempts does not block others.
            let permit = connections.acquire().await;
            let result = timeout(*attempt_timeout, attempt()).await;
            drop(permit);
            let error = match result {
                Ok(Ok(was_sent)) => {
                    lock(stats).sent += u64::from(was_sent);
                    slot.delivered = true;
                    return Ok(());
                }
                Ok(Err(error)) => error,
                Err(_) => SendError::Temporary("the mail server or the host took too long".into()),
            };
            attempts += 1;
            let giving_up = matches!(error, SendError::Permanent(_)) || attempts >= *max_attempts;
            // Neither the recipient nor the content is logged.
            #[cfg(feature = "tracing")]
            tracing::warn!(
                target: "keyward::email", attempt = attempts, giving_up,
                reason = %one_line(&error.to_string()), "cannot send an e-mail"
            );
            if giving_up {
                return Err(error);
            }
            lock(stats).retried += 1;
            sleep(delay).await;
            delay = (delay * 4).min(MAX_RETRY_DELAY);
        }
    }

    /// Makes one attempt to send a message, about an event if there is one.
    pub(super) async fn send_once(
        &self,
        to: &EmailAddress,
        content: &EmailContent,
        event: Option<&AuditEvent>,
    ) -> Result<bool, SendError> {
        let Inner { transport, from, name, .. } = &*self.inner;
        let mailbox = |name, address: &EmailAddress| -> Result<_, SendError> {
            let address = address.as_str().parse::<Address>();
            Ok(Mailbox::new(name, address.map_err(|error| SendError::Permanent(error.into()))?))
        };
        let subject: String = header_text(&content.subject).chars().take(MAX_SUBJECT_LEN).collect();
        let builder = Message::builder()
            .from(mailbox(Some(name.clone()).filter(|name| !name.is_empty()), from)?)
            .to(mailbox(None, to)?)
            .subject(subject)
            // The same for all attempts, so that a mail server recognizes a repeated message.
            .message_id(event.map(|event| format!("<{}.keyward@{}>", event.id, domain(from))))
            .date(event.map_or_else(SystemTime::now, |event| event.at.into()))
            // Marks the message as machine-generated, so that no vacation responder answers it (RFC 3834).
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".into(),
            ));
        let EmailContent { text, html, .. } = content.clone();
        let built = match html {
            None => builder.singlepart(SinglePart::plain(text)),
            Some(html) => builder.multipart(MultiPart::alternative_plain_html(text, html)),
        };
        let message = built.map_err(|error| SendError::Permanent(error.into()))?;
        match transport.send(message).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_permanent() || error.is_client() => {
                Err(SendError::Permanent(error.into()))
            }
            Err(error) => Err(SendError::Temporary(error.into())),
        }
    }
}

/// Retries until the minute that enrollment allows is over. A failure appears in the audit log only.
#[async_trait]
impl CodeSender for Mailer {
    async fn send(&self, message: &CodeMessage) -> Result<(), HostError> {
        let slot = self.reserve().ok_or("too many e-mails are pending")?;
        let content = EmailContent::new(&message.subject(), &message.text());
        let attempt = || self.send_once(&message.to, &content, None);
        Ok(self.deliver(slot, attempt).await?)
    }
}

impl MailerBuilder {
    /// Sets the sender's display name, such as the product name. Defaults to none.
    pub fn name(self, name: &str) -> Self {
        Self(Inner { name: header_text(name), ..self.0 })
    }

    /// Sets the maximum number of attempts per message. Defaults to 5; 0 is treated as 1.
    pub fn max_attempts(self, attempts: u32) -> Self {
        Self(Inner { max_attempts: attempts.max(1), ..self.0 })
    }

    /// Sets the delay before the second attempt. Defaults to 5 seconds. It grows fourfold, up to ten minutes.
    pub fn retry_delay(self, delay: Duration) -> Self {
        Self(Inner { retry_delay: delay, ..self.0 })
    }

    /// Sets the timeout of one attempt. Defaults to 30 seconds.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self(Inner { attempt_timeout: timeout, ..self.0 })
    }

    /// Sets the maximum number of pending messages: 1 to 1,000,000, by default 1,000. Others count as dropped.
    pub fn max_pending(self, messages: u32) -> Self {
        Self(Inner { max_pending: messages.clamp(1, 1_000_000), ..self.0 })
    }

    /// Builds the mailer. It connects when it sends the first message.
    pub fn build(self) -> Mailer {
        self.0.free_slots.add_permits(self.0.max_pending as usize);
        Mailer { inner: Arc::new(self.0) }
    }
}

debug_only!(Inner { from, stats });

/// The place of one pending message. A message whose slot is dropped before it was sent counts as dropped.
pub(super) struct PendingSlot {
    inner: Arc<Inner>,
    delivered: bool,
    _permit: OwnedSemaphorePermit,
}

/// Runs also when the runtime shuts down and drops the task.
impl Drop for PendingSlot {
    fn drop(&mut self) {
        if !self.delivered {
            lock(&self.inner.stats).dropped += 1;
        }
    }
}

/// The reason why an attempt failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) enum SendError {
    Temporary(HostError),
    /// A retry would fail in the same way.
    Permanent(HostError),
}

/// Returns the text as a single line that contains no encoded word (RFC 2047). ASCII text is sent without
/// encoding, so a mail program would otherwise decode line breaks hidden in such a word.
fn header_text(text: &str) -> String {
    one_line(text).replace("=?", "= ?")
}

/// Returns whether the connection is encrypted, or does not leave this machine.
fn is_encrypted_or_local(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("smtp://") else { return url.starts_with("smtps://") };
    // A URL parser may read these characters differently than the code below.
    if rest.contains(|c: char| !c.is_ascii_graphic() || "\\#".contains(c)) {
        return false;
    }
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let host = authority.split('/').next().unwrap_or("");
    let host = host.rsplit('@').next().unwrap_or("");
    let host = host.strip_prefix("[::1]").map_or_else(|| host.split(':').next(), |_| Some("::1"));
    query == "tls=required" || matches!(host, Some("localhost" | "127.0.0.1" | "::1"))
}

fn domain(address: &EmailAddress) -> &str {
    // Every `EmailAddress` contains an @.
    address.as_str().split_once('@').map_or("", |(_, domain)| domain)
}

const MAX_SUBJECT_LEN: usize = 200;
/// The number of connections to the mail server.
const MAX_CONCURRENT_ATTEMPTS: usize = 4;
const MAX_RETRY_DELAY: Duration = Duration::from_secs(600);
