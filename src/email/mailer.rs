use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{Header, HeaderName, HeaderValue},
    },
    transport::smtp::extension::ClientId,
};

use super::{
    messages::EmailContent,
    retry::{Delivery, RetryPolicy, RetryQueue, SendError},
};
use crate::{
    enroll::{CodeMessage, CodeSender, EmailAddress, HostError},
    model::{Invalid, one_line},
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
#[derive(Clone)]
pub struct Mailer {
    inner: Arc<Inner>,
}

/// Builds a [`Mailer`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct MailerBuilder {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: EmailAddress,
    name: String,
    policy: RetryPolicy,
}

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
    queue: RetryQueue,
}

/// Headers that stay the same for all attempts to send a message.
#[derive(Clone, Default)]
pub(super) struct MessageHeaders {
    /// The part of the `Message-ID` before the `@`. It lets a mail server recognize a repeated message.
    pub(super) id: Option<String>,
    pub(super) date: Option<SystemTime>,
}

impl Mailer {
    /// Starts a mailer with the URL of the mail server and the sender's address.
    ///
    /// `smtps://user:password@host` uses TLS from the first byte, `smtp://…?tls=required` uses `STARTTLS`.
    /// Without TLS, only a server on this machine is accepted: `smtp://localhost:25`. Certificates are
    /// checked against the operating system's trusted roots.
    ///
    /// # Errors
    /// If the URL is not one of these, or the operating system has no trusted roots.
    pub fn builder(url: &str, from: EmailAddress) -> Result<MailerBuilder, Invalid> {
        let invalid = |why| Invalid::new("mail server URL", why);
        if !is_encrypted_or_local(url) {
            return Err(invalid(
                "it does not require TLS: use smtps://host, or smtp://host?tls=required",
            ));
        }
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
            // The cause is left out: it could contain the password.
            .map_err(|_| {
                invalid(
                    "expected smtp://host or smtps://host, and trusted TLS roots on this machine",
                )
            })?
            .hello_name(ClientId::Domain(domain(&from).into()))
            .build();
        let policy = RetryPolicy {
            max_attempts: 5,
            delay: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(30),
            max_pending: 1_000,
        };
        Ok(MailerBuilder { transport, from, name: String::new(), policy })
    }

    /// Returns the numbers of messages sent, dropped, retried and pending, for metrics and alerts.
    pub fn stats(&self) -> MailerStats {
        let RetryQueue { counters, .. } = &self.inner.queue;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        MailerStats {
            sent: read(&counters.sent),
            dropped: read(&counters.dropped),
            retried: read(&counters.retried),
            pending: self.inner.queue.pending() as u64,
        }
    }

    /// Waits until no message is pending: each was sent or dropped. A service calls this before it exits,
    /// with a timeout of its own.
    pub async fn flush(&self) {
        self.inner.queue.flush().await;
    }

    pub(super) fn queue(&self) -> &RetryQueue {
        &self.inner.queue
    }

    /// Makes one attempt to send a message.
    pub(super) async fn send_once(
        &self,
        to: &EmailAddress,
        content: &EmailContent,
        headers: MessageHeaders,
    ) -> Result<Delivery, SendError> {
        let message = self.message(to, content, headers)?;
        match self.inner.transport.send(message).await {
            Ok(_) => Ok(Delivery::Sent),
            Err(error) if error.is_permanent() || error.is_client() => {
                Err(SendError::permanent(error))
            }
            Err(error) => Err(SendError::temporary(error)),
        }
    }

    fn message(
        &self,
        to: &EmailAddress,
        content: &EmailContent,
        headers: MessageHeaders,
    ) -> Result<Message, SendError> {
        let Inner { from, name, .. } = &*self.inner;
        let name = (!name.is_empty()).then(|| name.clone());
        let address =
            |address: &EmailAddress| address.as_str().parse().map_err(SendError::permanent);
        let sender = Mailbox::new(name, address(from)?);
        let subject: String = header_text(&content.subject).chars().take(MAX_SUBJECT_LEN).collect();
        let id = headers.id.map(|id| format!("<{id}@{}>", domain(from)));
        let mut builder = Message::builder()
            .from(sender)
            .to(Mailbox::new(None, address(to)?))
            .subject(subject)
            .message_id(id)
            .header(AutoSubmitted);
        if let Some(date) = headers.date {
            builder = builder.date(date);
        }
        let text = SinglePart::plain(content.text.clone());
        let message = match &content.html {
            None => builder.singlepart(text),
            Some(html) => {
                let html = SinglePart::html(html.clone());
                builder.multipart(MultiPart::alternative().singlepart(text).singlepart(html))
            }
        };
        message.map_err(SendError::permanent)
    }
}

/// Retries until the minute that enrollment allows is over. A failure appears in the audit log only.
#[async_trait]
impl CodeSender for Mailer {
    async fn send(&self, message: &CodeMessage) -> Result<(), HostError> {
        let slot = self.queue().reserve().ok_or("too many e-mails are pending")?;
        let content = EmailContent::new(&message.subject(), &message.text());
        let attempt = || self.send_once(&message.to, &content, MessageHeaders::default());
        Ok(self.queue().run(slot, attempt).await?)
    }
}

impl MailerBuilder {
    /// Sets the sender's display name, such as the product name. Defaults to none.
    pub fn name(mut self, name: &str) -> Self {
        self.name = header_text(name);
        self
    }

    /// Sets the maximum number of attempts per message. Defaults to 5; 0 is treated as 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.policy.max_attempts = attempts.max(1);
        self
    }

    /// Sets the delay before the second attempt. Defaults to 5 seconds. Each further delay is four times
    /// as long, up to ten minutes.
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.policy.delay = delay;
        self
    }

    /// Sets the timeout of one attempt. Defaults to 30 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.policy.attempt_timeout = timeout;
        self
    }

    /// Sets the maximum number of pending messages, between 1 and 1,000,000. Defaults to 1,000. Further
    /// messages are dropped and counted.
    pub fn max_pending(mut self, messages: u32) -> Self {
        self.policy.max_pending = messages.clamp(1, 1_000_000);
        self
    }

    /// Builds the mailer. It connects when it sends the first message.
    pub fn build(self) -> Mailer {
        let Self { transport, from, name, policy } = self;
        let queue = RetryQueue::new(policy);
        Mailer { inner: Arc::new(Inner { transport, from, name, queue }) }
    }
}

impl std::fmt::Debug for Mailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Inner { from, queue, .. } = &*self.inner;
        f.debug_struct("Mailer").field("from", from).field("queue", queue).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for MailerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailerBuilder").field("from", &self.from).finish_non_exhaustive()
    }
}

/// Marks the message as machine-generated, so that no vacation responder answers it (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".into())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_without_tls_are_rejected_unless_the_server_is_local() {
        let accepts = |url| Mailer::builder(url, "a@example.com".parse().unwrap()).is_ok();
        let encrypted = ["smtps://mail.example.com", "smtp://u:p@m.example.com:587?tls=required"];
        let local = [
            "smtp://localhost",
            "smtp://127.0.0.1:25",
            "smtp://[::1]:25",
            "smtp://u:p@localhost:1/",
        ];
        assert!(encrypted.into_iter().chain(local).all(accepts));
        let rejected = [
            "smtp://mail.example.com",
            "smtp://m.example.com?tls=opportunistic",
            "http://localhost",
            "",
            "smtp://localhost@m.example.com",
            "smtp://m.example.com/?x=@localhost",
            "smtp://",
            "smtps://",
            "smtp://localhost:x@m.example.com:25/",
            "smtp://m.example.com#@localhost",
            "smtp://m.example.com\\@localhost",
            "SMTP://m.example.com",
            "smtp://m.example.com?a&tls=required",
        ];
        for url in rejected {
            assert!(!accepts(url), "{url}");
        }
    }
}
