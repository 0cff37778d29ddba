use std::time::SystemTime;

use lettre::{
    Message,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{Header, HeaderName, HeaderValue},
    },
};

use super::{retries::Failure, wording::EmailContent};
use crate::model::one_line;

/// What a letter is known by, the same in each attempt.
#[derive(Clone, Default)]
pub(super) struct Envelope {
    /// What stands before the `@` of its `Message-ID`; a mail server that was tried twice knows it
    /// again by that.
    pub(super) id: Option<String>,
    pub(super) at: Option<SystemTime>,
}

impl Envelope {
    pub(super) fn new() -> Self {
        Self::default()
    }
}

/// The letter as it is sent. Subjects are one harmless line, whoever wrote them.
pub(super) fn compose(
    from: Mailbox,
    to: Mailbox,
    words: &EmailContent,
    envelope: Envelope,
) -> Result<Message, Failure> {
    let domain = from.email.domain().to_owned();
    let subject: String = header_text(&words.subject).chars().take(MAX_SUBJECT).collect();
    let id = envelope.id.map(|id| format!("<{id}@{domain}>"));
    let mut builder =
        Message::builder().from(from).to(to).subject(subject).message_id(id).header(AutoSubmitted);
    if let Some(at) = envelope.at {
        builder = builder.date(at);
    }
    let text = SinglePart::plain(words.text.clone());
    let message = match &words.html {
        None => builder.singlepart(text),
        Some(html) => builder.multipart(
            MultiPart::alternative().singlepart(text).singlepart(SinglePart::html(html.clone())),
        ),
    };
    message.map_err(Failure::for_good)
}

/// As one harmless line, and not as an encoded word: what is ASCII already goes out as it is, and a
/// mail program would decode line ends that nobody has seen.
pub(super) fn header_text(text: &str) -> String {
    one_line(text).replace("=?", "= ?")
}

/// So that no absence note answers.
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

const MAX_SUBJECT: usize = 200;
