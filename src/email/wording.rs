use std::fmt::Write as _;

use super::device::device;
use crate::{
    audit::{AuditEvent, EventKind},
    enroll::EmailAddress,
    model::{Key, Owner, one_line},
};

/// What a letter says.
///
/// A subject that holds controls or line ends is written as one harmless line. Whoever makes HTML
/// escapes in it what comes from outside.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct EmailContent {
    /// One line.
    pub subject: String,
    /// Plain lines.
    pub text: String,
    /// The same as a page, if there is one.
    pub html: Option<String>,
}

/// What an owner is told of, for whoever writes words of his own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Notice {
    /// What happened.
    pub event: AuditEvent,
    /// Whose key it is.
    pub owner: Owner,
    /// To whom the letter goes.
    pub to: EmailAddress,
    /// The key as it is stored now; `None` if it is gone.
    pub key: Option<Key>,
    /// The product, in the words of [`EmailSinkBuilder::product`](super::EmailSinkBuilder::product).
    pub product: String,
    /// Where owners manage their keys, if the host says so.
    pub manage_url: Option<String>,
}

impl EmailContent {
    /// Of plain lines.
    pub fn new(subject: &str, text: &str) -> Self {
        Self { subject: subject.into(), text: text.into(), html: None }
    }

    /// The same as a page.
    pub fn html(mut self, html: &str) -> Self {
        self.html = Some(html.into());
        self
    }
}

/// A letter may hold a code: it belongs into no log.
impl std::fmt::Debug for EmailContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmailContent").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl Notice {
    /// The letter that is sent unless the host writes another: in English, as text and as a page.
    pub fn default_content(&self) -> EmailContent {
        let (subject, advice) = (self.subject(), self.advice());
        let facts = self.facts();
        let mut text = format!("{}\n\n", self.headline());
        let mut html = format!("<p>{}</p>\n<table>\n", escaped(&self.headline()));
        // Writing to a String cannot fail.
        for (name, fact) in &facts {
            let label = format!("{name}:");
            let _ = writeln!(text, "{label:<10}{fact}");
            let _ = writeln!(html, "<tr><td>{name}</td><td>{}</td></tr>", escaped(fact));
        }
        let _ = write!(text, "\n{advice}\n");
        let _ = write!(html, "</table>\n<p>{}</p>\n", escaped(advice));
        if let Some(place) = &self.manage_url {
            let place = one_line(place);
            let _ = writeln!(text, "{place}");
            let _ = writeln!(html, "<p><a href=\"{0}\">{0}</a></p>", escaped(&place));
        }
        EmailContent::new(&subject, &text).html(&html)
    }

    /// The key by its name, or by its id where the name is not known.
    pub fn key_name(&self) -> String {
        match (&self.key, self.event.key_id) {
            (Some(key), _) => one_line(key.name.as_str()).into_owned(),
            (None, Some(id)) => id.to_string(),
            (None, None) => String::new(),
        }
    }

    /// The device that acted, in words: "Firefox on Linux".
    pub fn device(&self) -> Option<String> {
        self.event.user_agent.as_deref().map(device)
    }

    fn subject(&self) -> String {
        let headline = format!("{}: {}", self.short(), self.key_name());
        match self.product.as_str() {
            "" => headline,
            product => format!("[{}] {headline}", one_line(product)),
        }
    }

    fn short(&self) -> &'static str {
        match self.event.kind {
            EventKind::Created => "New API key",
            EventKind::Imported => "API key taken over",
            EventKind::Rotated => "API key rotated",
            EventKind::Revoked => "API key revoked",
            EventKind::Expiring => "API key expires soon",
            EventKind::RotationDue => "API key should be rotated",
            EventKind::Unused => "API key not used for long",
            _ => "API key",
        }
    }

    fn headline(&self) -> String {
        let what = match self.event.kind {
            EventKind::Created => "An API key was created for your account.",
            EventKind::Imported => "An API key was taken over for your account.",
            EventKind::Rotated => "An API key of your account got a new secret.",
            EventKind::Revoked => {
                "An API key of your account was revoked. It does not work any more."
            }
            EventKind::Expiring => "An API key of your account will stop working soon.",
            EventKind::RotationDue => {
                "An API key of your account has had the same secret for long."
            }
            EventKind::Unused => "An API key of your account has not been used for long.",
            kind => return format!("Something happened to an API key of your account: {kind}."),
        };
        what.into()
    }

    fn advice(&self) -> &'static str {
        match self.event.kind {
            EventKind::Expiring => "If you still need it, create another one in time.",
            EventKind::RotationDue => "Rotate it, so that a secret that got lost is of no use.",
            EventKind::Unused => "If you do not need it any more, revoke it.",
            EventKind::Revoked => "If you did not expect this, look at the keys of your account.",
            _ => "If this was not you, revoke the key and look at the keys of your account.",
        }
    }

    /// Each of them one harmless line.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let event = &self.event;
        let hint = self.key.as_ref().map(|key| format!(" ({}…)", one_line(&key.hint)));
        let mut facts = vec![
            ("Key", self.key_name() + hint.as_deref().unwrap_or_default()),
            ("Time", event.at.to_string()),
        ];
        // The service itself reminds: from nowhere, on no device.
        if !is_reminder(event.kind) {
            facts.push(("By", one_line(&event.actor).into_owned()));
            facts.push(("IP", event.ip.map_or("unknown".into(), |ip| ip.to_string())));
            facts.push(("Device", self.device().unwrap_or_else(|| "unknown".into())));
        }
        let reason =
            event.reason.as_deref().map(|reason| ("Reason", one_line(reason).into_owned()));
        facts.extend(reason);
        facts
    }
}

fn is_reminder(kind: EventKind) -> bool {
    matches!(kind, EventKind::Expiring | EventKind::RotationDue | EventKind::Unused)
}

/// As text in HTML, also within an attribute in quotes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
