use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use async_trait::async_trait;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor, message::Mailbox,
    transport::smtp::extension::ClientId,
};

use super::{
    letter::{Envelope, compose, header_text},
    retries::{Failure, Patience, Retries, Sent},
    wording::EmailContent,
};
use crate::{
    enroll::{CodeMessage, CodeSender, EmailAddress, HostError},
    model::Invalid,
};

/// Brings letters to a mail server. Cheap to clone; clones share what waits.
///
/// It is also a [`CodeSender`], for the codes of an [`Enrollment`](crate::enroll::Enrollment).
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

/// Puts a [`Mailer`] together.
#[must_use = "a builder does nothing until `build` is called"]
pub struct MailerBuilder {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: EmailAddress,
    name: String,
    patience: Patience,
}

/// What became of the letters so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MailerStats {
    /// The mail server took them.
    pub sent: u64,
    /// They were given up: refused, tried often enough, or too many were waiting.
    pub dropped: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// They are on their way.
    pub pending: u64,
}

struct Inner {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: EmailAddress,
    name: String,
    retries: Retries,
}

impl Mailer {
    /// Begins with the mail server and the address that letters come from.
    ///
    /// `smtps://user:password@host` speaks TLS from the first byte, `smtp://…?tls=required` from
    /// `STARTTLS` on. Without TLS there is only this machine: `smtp://localhost:25`. The certificate
    /// is checked against the roots that the operating system trusts.
    ///
    /// # Errors
    /// If the URL is none of these.
    pub fn builder(url: &str, from: EmailAddress) -> Result<MailerBuilder, Invalid> {
        let invalid = |why| Invalid::new("mail server", why);
        if !is_private(url) {
            return Err(invalid(
                "without TLS, anyone could read along: say smtps://, or ?tls=required",
            ));
        }
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
            // What is wrong with it could repeat the password.
            .map_err(|_| invalid("it is not smtp://host or smtps://host, or TLS has no roots"))?
            .hello_name(ClientId::Domain(domain(&from).into()))
            .build();
        let patience = Patience {
            attempts: 5,
            pause: Duration::from_secs(5),
            attempt: Duration::from_secs(30),
            waiting: 1_000,
        };
        Ok(MailerBuilder { transport, from, name: String::new(), patience })
    }

    /// What became of the letters so far, for metrics and alarms.
    pub fn stats(&self) -> MailerStats {
        let Retries { counts, .. } = &self.inner.retries;
        let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        MailerStats {
            sent: read(&counts.sent),
            dropped: read(&counts.lost),
            retried: read(&counts.retried),
            pending: self.inner.retries.waiting() as u64,
        }
    }

    /// Waits until no letter waits any more, each of them sent or lost; a service calls it before it
    /// exits, within a deadline of its own.
    pub async fn flush(&self) {
        self.inner.retries.idle().await;
    }

    pub(super) fn retries(&self) -> &Retries {
        &self.inner.retries
    }

    /// One attempt.
    pub(super) async fn send(
        &self,
        to: &EmailAddress,
        words: &EmailContent,
        envelope: Envelope,
    ) -> Result<Sent, Failure> {
        let message = self.message(to, words, envelope)?;
        match self.inner.transport.send(message).await {
            Ok(_) => Ok(Sent::Sent),
            Err(error) if error.is_permanent() || error.is_client() => {
                Err(Failure::for_good(error))
            }
            Err(error) => Err(Failure::for_now(error)),
        }
    }

    fn message(
        &self,
        to: &EmailAddress,
        words: &EmailContent,
        envelope: Envelope,
    ) -> Result<Message, Failure> {
        let Inner { from, name, .. } = &*self.inner;
        let name = (!name.is_empty()).then(|| name.clone());
        let address = |address: &EmailAddress| address.as_str().parse().map_err(Failure::for_good);
        let (from, to) = (Mailbox::new(name, address(from)?), Mailbox::new(None, address(to)?));
        compose(from, to, words, envelope)
    }
}

/// Within the minute that enrollment gives it; nobody is told but the audit log.
#[async_trait]
impl CodeSender for Mailer {
    async fn send(&self, letter: &CodeMessage) -> Result<(), HostError> {
        let retries = self.retries();
        let place = retries.place().ok_or("too many letters wait")?;
        let words = EmailContent::new(&letter.subject(), &letter.text());
        let sent = retries.run(place, || self.send(&letter.to, &words, Envelope::new()));
        Ok(sent.await?)
    }
}

impl MailerBuilder {
    /// The name that letters come from: that of the product.
    pub fn name(mut self, name: &str) -> Self {
        self.name = header_text(name);
        self
    }

    /// How often a letter is tried before it is given up; 5 by default.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.patience.attempts = attempts.max(1);
        self
    }

    /// How long to wait before the second attempt; 5 seconds by default. Each later pause is four
    /// times as long, up to ten minutes.
    pub fn retry_delay(mut self, pause: Duration) -> Self {
        self.patience.pause = pause;
        self
    }

    /// How long one attempt may take; 30 seconds by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.patience.attempt = timeout;
        self
    }

    /// How many letters may wait at a time; 1,000 by default. What comes on top is lost, and counted.
    pub fn max_pending(mut self, letters: u32) -> Self {
        self.patience.waiting = letters.clamp(1, 1_000_000);
        self
    }

    /// Builds it. Nothing is connected by that.
    pub fn build(self) -> Mailer {
        let Self { transport, from, name, patience } = self;
        let retries = Retries::new(patience);
        Mailer { inner: Arc::new(Inner { transport, from, name, retries }) }
    }
}

impl std::fmt::Debug for Mailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Inner { from, retries, .. } = &*self.inner;
        f.debug_struct("Mailer")
            .field("from", from)
            .field("retries", retries)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for MailerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailerBuilder").field("from", &self.from).finish_non_exhaustive()
    }
}

/// Whether nobody on the way can read along.
fn is_private(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("smtp://") else { return url.starts_with("smtps://") };
    // What a URL's grammar may read in another way than this does.
    if rest.contains(|c: char| !c.is_ascii_graphic() || "\\#".contains(c)) {
        return false;
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let host = place.split('/').next().unwrap_or("");
    let host = host.rsplit('@').next().unwrap_or("");
    let host = host.strip_prefix("[::1]").map_or_else(|| host.split(':').next(), |_| Some("::1"));
    query == "tls=required" || matches!(host, Some("localhost" | "127.0.0.1" | "::1"))
}

fn domain(address: &EmailAddress) -> &str {
    // An address has one.
    address.as_str().split_once('@').map_or("", |(_, domain)| domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_this_machine_without_tls() {
        let build = |url| Mailer::builder(url, "a@example.com".parse().unwrap()).is_ok();
        let good = ["smtps://mail.example.com", "smtp://u:p@m.example.com:587?tls=required"];
        let here = [
            "smtp://localhost",
            "smtp://127.0.0.1:25",
            "smtp://[::1]:25",
            "smtp://u:p@localhost:1/",
        ];
        assert!(good.into_iter().chain(here).all(build));
        let bad = [
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
        for url in bad {
            assert!(!build(url), "{url}");
        }
    }
}
