use std::{cell::RefCell, error::Error as _, io::Write};

use clap::builder::styling::{AnsiColor, Style};
use serde_json::{Value, json};

use super::{Exit, ServerError};
use crate::client::{App, Error, ErrorKind, Source};

/// Where a command talks to the person, or to the program that reads its JSON.
pub(super) struct Console {
    json: bool,
    notes: RefCell<Vec<String>>,
}

/// What was asked for: the same for people and for programs.
pub(super) struct Answer {
    pub(super) exit: Exit,
    pub(super) text: String,
    pub(super) json: Value,
}

/// Why a command ended without an answer.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    kind: &'static str,
    message: String,
}

impl Console {
    pub(super) fn new(json: bool) -> Self {
        Self { json, notes: RefCell::default() }
    }

    /// Something to know besides the answer.
    pub(super) fn note(&self, note: impl std::fmt::Display) {
        if self.json {
            self.notes.borrow_mut().push(note.to_string());
        } else {
            say("Note:", AnsiColor::Yellow, &note.to_string());
        }
    }

    /// A line that belongs to the answer, but not into a pipe that wants the answer alone.
    pub(super) fn caption(&self, caption: &str) {
        if !self.json {
            let _ = writeln!(anstream::stderr(), "{caption}");
        }
    }

    pub(super) fn finish(self, done: Result<Answer, Failure>) -> Exit {
        let (exit, text, mut json) = match done {
            Ok(answer) => (answer.exit, answer.text, answer.json),
            Err(failure) if self.json => {
                let error = json!({ "kind": failure.kind, "message": failure.message });
                (failure.exit, String::new(), json!({ "error": error }))
            }
            Err(failure) => {
                say("Error:", AnsiColor::Red, &failure.message);
                return failure.exit;
            }
        };
        let notes = self.notes.into_inner();
        if !notes.is_empty() {
            json["notes"] = notes.into();
        }
        let text = if self.json { json.to_string() } else { text };
        // The answer did not arrive: a script must not take it for an empty one.
        match writeln!(anstream::stdout(), "{text}") {
            Ok(()) => exit,
            Err(_) => Exit::Error,
        }
    }
}

impl Answer {
    pub(super) fn new(text: impl Into<String>, json: Value) -> Self {
        Self { exit: Exit::Done, text: text.into(), json }
    }
}

impl Failure {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, kind: "usage", message: message.into() }
    }

    pub(super) fn cancelled() -> Self {
        let message = "Cancelled; nothing was changed".into();
        Self { exit: Exit::Usage, kind: "cancelled", message }
    }

    pub(super) fn no_terminal(instead: &str) -> Self {
        let message =
            format!("standard input is no terminal, so there is nobody to ask: {instead}");
        Self { exit: Exit::Usage, kind: "no_terminal", message }
    }

    pub(super) fn error(message: impl Into<String>) -> Self {
        Self { exit: Exit::Error, kind: "error", message: message.into() }
    }

    /// What the server said, and what to do about it.
    pub(super) fn server(error: ServerError, app: &App, email: Option<&str>) -> Self {
        use ServerError as E;
        let command = app.command_name();
        let again = format!("{command} configure --email {}", email.unwrap_or("YOU@EXAMPLE.COM"));
        let (exit, kind, message) = match error {
            E::InvalidCode => (
                Exit::NotAuthenticated,
                "invalid_code",
                format!(
                    "❌ Invalid OTP code. Double-check the code from the email, or request a new one: `{again}`"
                ),
            ),
            E::ExpiredCode => (
                Exit::NotAuthenticated,
                "expired_code",
                format!("❌ Expired OTP code. Request a new one, and use it soon: `{again}`"),
            ),
            E::Rejected => (
                Exit::NotAuthenticated,
                "rejected",
                format!(
                    "❌ Authentication failed: the server does not accept the key. Verify that you copied the \
                     complete key, with no extra spaces, and that it has not been revoked; then store it, or a \
                     new one, with `{command} configure`"
                ),
            ),
            E::TooOften { retry_after } => {
                let wait = retry_after.map_or_else(
                    || "a while".to_owned(),
                    |wait| format!("{} s", wait.as_secs().max(1)),
                );
                (
                    Exit::Error,
                    "too_often",
                    format!("Too many attempts. Wait {wait}, then try again"),
                )
            }
            E::Refused { message } => (
                Exit::Error,
                "refused",
                format!("The server refuses this, and says: {}", harmless(&message)),
            ),
            E::Unavailable(source) => (
                Exit::Error,
                "unavailable",
                format!(
                    "The server cannot be asked now ({source}). The key may well be valid: try again later"
                ),
            ),
            E::Unsupported => (
                Exit::Error,
                "unsupported",
                format!(
                    "{} does not offer this on the command line: use its web pages",
                    app.name()
                ),
            ),
        };
        Self { exit, kind, message }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (exit, kind) = match error.kind() {
            ErrorKind::NotFound => (Exit::NotAuthenticated, "no_key"),
            ErrorKind::Malformed => (Exit::NotAuthenticated, "malformed"),
            ErrorKind::Unsafe => (Exit::Error, "unsafe"),
            ErrorKind::Io => (Exit::Error, "io"),
        };
        let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
        Self { exit, kind, message: format!("{error}{cause}") }
    }
}

/// A source as programs read it.
pub(super) fn source_json(source: &Source) -> Value {
    let mut json = json!({ "kind": source.as_str() });
    if let Some(path) = source.path() {
        json["path"] = path.to_string_lossy().into();
    }
    match source {
        Source::Variable { name } | Source::DotEnv { name, .. } => {
            json["variable"] = name.as_str().into();
        }
        Source::File { profile, .. } => json["profile"] = profile.as_str().into(),
    }
    json
}

/// What a server says, as one line that moves no cursor.
fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect()
}

fn say(label: &str, color: AnsiColor, message: &str) {
    let style = Style::new().bold().fg_color(Some(color.into()));
    let _ = writeln!(anstream::stderr(), "{style}{label}{style:#} {message}");
}

const MAX_WORDS: usize = 300;

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn what_a_server_says_moves_no_cursor() {
        assert_eq!(harmless("no\u{1b}[2J\r\n: \u{9b}1mbecause"), "no[2J: 1mbecause");
        assert_eq!(harmless(&"é".repeat(1_000)).chars().count(), 300);
    }
}
