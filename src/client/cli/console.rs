use std::{cell::RefCell, error::Error as _, fmt, io::Write, process};

use clap::builder::styling::{AnsiColor, Style};
use serde_json::{Value, json};

use super::server::ServerError;
use crate::client::{
    app::App,
    error::{ClientError, ClientErrorKind},
    resolve::KeySource,
};

/// The outcome of a command. The exit statuses are stable.
///
/// | status | meaning |
/// |---|---|
/// | 0 | success |
/// | 1 | error: the file cannot be used, or the server cannot be reached |
/// | 2 | usage error, or cancelled: nothing was changed |
/// | 4 | not authenticated: no key, an invalid key, or a wrong or expired code |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[must_use = "the process should end with this status"]
pub enum Exit {
    /// Success.
    Success,
    /// An error.
    Error,
    /// A usage error, or cancelled.
    Usage,
    /// Not authenticated.
    NotAuthenticated,
}

impl Exit {
    /// Returns the exit status.
    pub fn status(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::NotAuthenticated => 4,
        }
    }

    /// Ends the process with this status.
    pub fn exit(self) -> ! {
        process::exit(self.status().into())
    }
}

impl From<Exit> for process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

/// Prints the result and the notes of a command, as text or as JSON.
pub(super) struct Console {
    json: bool,
    notes: RefCell<Vec<String>>,
}

impl Console {
    pub(super) fn new(json: bool) -> Self {
        Self { json, notes: RefCell::default() }
    }

    /// Prints a note to standard error, or adds it to the JSON object.
    pub(super) fn note(&self, note: impl fmt::Display) {
        if self.json {
            self.notes.borrow_mut().push(note.to_string());
        } else {
            print_labelled("Note:", AnsiColor::Yellow, &note.to_string());
        }
    }

    /// Prints a caption to standard error, so that a pipe receives only the result.
    pub(super) fn caption(&self, caption: &str) {
        if !self.json {
            let _ = writeln!(anstream::stderr(), "{caption}");
        }
    }

    pub(super) fn finish(self, result: Result<CommandOutput, CommandError>) -> Exit {
        let (exit, text, mut json) = match result {
            Ok(output) => (output.exit, output.text, output.json),
            Err(error) if self.json => {
                let json = json!({ "kind": error.kind, "message": error.message });
                (error.exit, String::new(), json!({ "error": json }))
            }
            Err(error) => {
                print_labelled("Error:", AnsiColor::Red, &error.message);
                return error.exit;
            }
        };
        let notes = self.notes.into_inner();
        if !notes.is_empty() {
            json["notes"] = notes.into();
        }
        let text = if self.json { json.to_string() } else { text };
        // If the output is lost, a script must not take it for an empty result.
        match writeln!(anstream::stdout(), "{text}") {
            Ok(()) => exit,
            Err(_) => Exit::Error,
        }
    }
}

/// The result of a command, as text and as JSON.
pub(super) struct CommandOutput {
    pub(super) exit: Exit,
    pub(super) text: String,
    pub(super) json: Value,
}

impl CommandOutput {
    pub(super) fn new(text: impl Into<String>, json: Value) -> Self {
        Self { exit: Exit::Success, text: text.into(), json }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(super) struct CommandError {
    exit: Exit,
    kind: &'static str,
    message: String,
}

impl CommandError {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, kind: "usage", message: message.into() }
    }

    pub(super) fn cancelled() -> Self {
        let message = "Cancelled; nothing was changed".into();
        Self { exit: Exit::Usage, kind: "cancelled", message }
    }

    pub(super) fn no_terminal(advice: &str) -> Self {
        let message = format!("cannot prompt because standard input is not a terminal: {advice}");
        Self { exit: Exit::Usage, kind: "no_terminal", message }
    }

    pub(super) fn other(message: impl Into<String>) -> Self {
        Self { exit: Exit::Error, kind: "error", message: message.into() }
    }

    pub(super) fn server(error: ServerError, app: &App, email: Option<&str>) -> Self {
        use ServerError as E;
        let command = app.command_name();
        let retry = format!("{command} configure --email {}", email.unwrap_or("YOU@EXAMPLE.COM"));
        let (exit, kind, message) = match error {
            E::InvalidCode => (
                Exit::NotAuthenticated,
                "invalid_code",
                format!(
                    "❌ Invalid OTP code. Double-check the code from the email, or request a new one: `{retry}`"
                ),
            ),
            E::ExpiredCode => (
                Exit::NotAuthenticated,
                "expired_code",
                format!("❌ Expired OTP code. Request a new one, and use it soon: `{retry}`"),
            ),
            E::KeyRejected => (
                Exit::NotAuthenticated,
                "rejected",
                format!(
                    "❌ Authentication failed: the server does not accept the key. Verify that you copied the \
                     complete key, with no extra spaces, and that it has not been revoked. Then store it, or a \
                     new one, with `{command} configure`"
                ),
            ),
            E::RateLimited { retry_after } => {
                let wait = retry_after.map_or_else(
                    || "a while".to_owned(),
                    |wait| format!("{} s", wait.as_secs().max(1)),
                );
                (
                    Exit::Error,
                    "rate_limited",
                    format!("Too many attempts. Wait {wait}, then try again"),
                )
            }
            E::Refused { message } => (
                Exit::Error,
                "refused",
                format!("The server refused the request: {}", printable(&message)),
            ),
            E::Unavailable(source) => (
                Exit::Error,
                "unavailable",
                format!(
                    "The server is unavailable ({source}). The key may still be valid: try again later"
                ),
            ),
            E::Unsupported => (
                Exit::Error,
                "unsupported",
                format!(
                    "{} does not support this on the command line: use its website",
                    app.name()
                ),
            ),
        };
        Self { exit, kind, message }
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let (exit, kind) = match error.kind() {
            ClientErrorKind::NotFound => (Exit::NotAuthenticated, "no_key"),
            ClientErrorKind::Malformed => (Exit::NotAuthenticated, "malformed"),
            ClientErrorKind::Unsafe => (Exit::Error, "unsafe"),
            ClientErrorKind::Io => (Exit::Error, "io"),
        };
        let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
        Self { exit, kind, message: format!("{error}{cause}") }
    }
}

pub(super) fn source_json(source: &KeySource) -> Value {
    let mut json = json!({ "kind": source.as_str() });
    if let Some(path) = source.path() {
        json["path"] = path.to_string_lossy().into();
    }
    match source {
        KeySource::EnvVar { name } | KeySource::DotEnv { name, .. } => {
            json["variable"] = name.as_str().into();
        }
        KeySource::File { profile, .. } => json["profile"] = profile.as_str().into(),
    }
    json
}

/// Removes control characters from a server's message, so that it cannot move the cursor, and truncates it.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SERVER_MESSAGE_CHARS).collect()
}

fn print_labelled(label: &str, color: AnsiColor, message: &str) {
    let style = Style::new().bold().fg_color(Some(color.into()));
    let _ = writeln!(anstream::stderr(), "{style}{label}{style:#} {message}");
}

const MAX_SERVER_MESSAGE_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_characters_are_removed_from_server_messages() {
        assert_eq!(printable("no\u{1b}[2J\r\n: \u{9b}1mbecause"), "no[2J: 1mbecause");
        assert_eq!(printable(&"é".repeat(1_000)).chars().count(), 300);
    }
}
