use std::fmt::Write as _;

use crate::{
    audit::{AuditEvent, EventKind},
    enroll::EmailAddress,
    model::{Key, Owner, debug_only, one_line},
};

/// The content of an e-mail message.
///
/// Line breaks and control characters in the subject are escaped when the message is sent. HTML is sent
/// unchanged: code that builds it MUST escape untrusted text.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct EmailContent {
    /// The subject line.
    pub subject: String,
    /// The plain-text body.
    pub text: String,
    /// The HTML alternative, if any.
    pub html: Option<String>,
}

/// An event that a key's owner is notified of, for hosts that write their own messages.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Notice {
    /// The audit event.
    pub event: AuditEvent,
    /// The owner of the key.
    pub owner: Owner,
    /// The recipient of the message.
    pub to: EmailAddress,
    /// The key as it is stored now; `None` if it no longer exists, or if the sink has no store to [read names
    /// from](super::EmailSinkBuilder::names_from).
    pub key: Option<Key>,
    /// The product name set by [`EmailSinkBuilder::product`](super::EmailSinkBuilder::product).
    pub product: String,
    /// The URL set by [`EmailSinkBuilder::manage_url`](super::EmailSinkBuilder::manage_url).
    pub manage_url: Option<String>,
}

impl EmailContent {
    /// Creates a plain-text message.
    pub fn new(subject: &str, text: &str) -> Self {
        Self { subject: subject.into(), text: text.into(), html: None }
    }

    /// Adds an HTML alternative.
    pub fn html(self, html: &str) -> Self {
        Self { html: Some(html.into()), ..self }
    }
}

// A body may contain a one-time code, which must not be logged.
debug_only!(EmailContent { subject });

impl Notice {
    /// Returns the message that is sent by default: in English, as plain text and as HTML.
    pub fn default_content(&self) -> EmailContent {
        let (headline, summary, advice) = self.wording();
        let mut text = format!("{summary}\n\n");
        let mut html = format!("<p>{}</p>\n<table>\n", escape_html(&summary));
        // Writing to a String cannot fail.
        for (name, value) in self.details() {
            let label = format!("{name}:");
            let _ = writeln!(text, "{label:<10}{value}");
            let _ = writeln!(html, "<tr><td>{name}</td><td>{}</td></tr>", escape_html(&value));
        }
        let _ = write!(text, "\n{advice}\n");
        let _ = write!(html, "</table>\n<p>{}</p>\n", escape_html(advice));
        if let Some(url) = &self.manage_url {
            let url = one_line(url);
            let _ = writeln!(text, "{url}");
            let _ = writeln!(html, "<p><a href=\"{0}\">{0}</a></p>", escape_html(&url));
        }
        let product = one_line(&self.product);
        let product = if product.is_empty() { String::new() } else { format!("[{product}] ") };
        let subject = format!("{product}{headline}: {}", self.key_name());
        EmailContent::new(&subject, &text).html(&html)
    }

    /// Returns the name of the key, or its id if the name is unknown.
    pub fn key_name(&self) -> String {
        match (&self.key, self.event.key_id) {
            (Some(key), _) => one_line(key.name.as_str()).into_owned(),
            (None, Some(id)) => id.to_string(),
            (None, None) => String::new(),
        }
    }

    /// Returns a short description of the actor's device, such as "Firefox on Linux".
    pub fn device(&self) -> Option<String> {
        self.event.user_agent.as_deref().map(describe_device)
    }

    /// Returns the headline, the summary and the advice.
    fn wording(&self) -> (&'static str, String, &'static str) {
        use EventKind::{Created, Expiring, Imported, Revoked, Rotated, RotationDue, Unused};
        const CHECK: &str =
            "If this was not you, please revoke this key and check the API keys of your account.";
        let (headline, summary, advice) = match self.event.kind {
            Created => ("New API key", "A new API key was created for your account.", CHECK),
            Imported => ("API key imported", "An API key was imported into your account.", CHECK),
            Rotated => {
                ("API key rotated", "The secret of one of your API keys was replaced.", CHECK)
            }
            Revoked => (
                "API key revoked",
                "One of your API keys was revoked. It no longer works.",
                "If you did not expect this, please check the API keys of your account.",
            ),
            Expiring => (
                "API key expires soon",
                "One of your API keys will expire soon and stop working.",
                "If you still need this key, please create a new one before it expires.",
            ),
            RotationDue => (
                "API key should be rotated",
                "The secret of one of your API keys has not been changed for a long time.",
                "Please rotate this key, so that an old leaked secret stops working.",
            ),
            Unused => (
                "API key unused for a long time",
                "One of your API keys has not been used for a long time.",
                "If you no longer need this key, please revoke it.",
            ),
            kind => {
                let summary = format!("There was a change to one of your API keys: {kind}.");
                return ("API key", summary, CHECK);
            }
        };
        (headline, summary.into(), advice)
    }

    /// Labels and values; each value is a single line without control characters.
    fn details(&self) -> Vec<(&'static str, String)> {
        let event = &self.event;
        let hint = self.key.as_ref().map(|key| format!(" ({}…)", one_line(&key.hint)));
        let mut details = vec![
            ("Key", self.key_name() + hint.as_deref().unwrap_or_default()),
            ("Time", event.at.to_string()),
        ];
        // Reminders come from the service itself, which has no IP address and no device.
        if !matches!(event.kind, EventKind::Expiring | EventKind::RotationDue | EventKind::Unused) {
            details.push(("By", one_line(&event.actor).into_owned()));
            details.push(("IP", event.ip.map_or("unknown".into(), |ip| ip.to_string())));
            details.push(("Device", self.device().unwrap_or_else(|| "unknown".into())));
        }
        if let Some(reason) = &event.reason {
            details.push(("Reason", one_line(reason).into_owned()));
        }
        details
    }
}

/// Escapes text for HTML content and quoted attributes.
fn escape_html(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&#39;")
}

/// Describes an unknown program by the first word of its user agent, if that is plain ASCII: `curl`.
fn describe_device(user_agent: &str) -> String {
    let find = |known: &[(&str, &'static str)]| {
        known.iter().find(|(mark, _)| user_agent.contains(mark)).map(|(_, name)| *name)
    };
    let program = find(&BROWSERS).or_else(|| first_word(user_agent));
    match (program, find(&SYSTEMS)) {
        (Some(program), Some(system)) => format!("{program} on {system}"),
        (Some(program), None) => program.into(),
        (None, Some(system)) => format!("an unknown program on {system}"),
        (None, None) => "an unknown device".into(),
    }
}

fn first_word(user_agent: &str) -> Option<&str> {
    let word = user_agent.split(['/', ' ']).next()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let accepted = (1..=MAX_WORD_LEN).contains(&word.len()) && word.chars().all(is_plain);
    // The user agent of every browser begins with `Mozilla`.
    (accepted && word != "Mozilla").then_some(word)
}

/// The first match counts: a user agent also contains the names of older browsers.
const BROWSERS: [(&str, &str); 12] = [
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Vivaldi/", "Vivaldi"),
    ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chromium/", "Chromium"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
];
const SYSTEMS: [(&str, &str); 8] = [
    ("iPhone", "an iPhone"),
    ("iPad", "an iPad"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Macintosh", "a Mac"),
    ("Mac OS X", "a Mac"),
    ("Linux", "Linux"),
];
const MAX_WORD_LEN: usize = 40;
