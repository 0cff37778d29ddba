use std::{
    error::Error as _,
    fmt,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process,
};

use clap::builder::styling::{AnsiColor, Style};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ServerError;
use crate::client::{App, ClientError, ClientErrorKind, KeySource};

/// The outcome of a command. Its number is the exit status, which is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[must_use = "the process should end with this status"]
pub enum Exit {
    /// The command succeeded.
    Success = 0,
    /// The file cannot be used, or the server cannot be reached.
    Error = 1,
    /// A usage error, or cancelled: nothing was changed.
    Usage = 2,
    /// No key, an invalid key, or a wrong or expired code.
    NotAuthenticated = 4,
}

impl Exit {
    /// Returns the exit status.
    pub fn status(self) -> u8 {
        self as u8
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

/// Prints the result of a command, as text or as JSON with these notes.
pub(super) fn finish(result: CommandResult, as_json: bool, notes: Vec<String>) -> Exit {
    let (exit, text, mut json) = match result {
        Ok(output) => (output.exit, output.text, output.json),
        Err(error) if as_json => {
            let json = json!({ "kind": error.kind, "message": error.message });
            (error.exit, String::new(), json!({ "error": json }))
        }
        Err(error) => {
            print_labelled("Error:", AnsiColor::Red, &error.message);
            return error.exit;
        }
    };
    if !notes.is_empty() {
        json["notes"] = notes.into();
    }
    let text = if as_json { json.to_string() } else { text };
    // If the output is lost, a script must not take it for an empty result.
    match writeln!(anstream::stdout(), "{text}") {
        Ok(()) => exit,
        Err(_) => Exit::Error,
    }
}

pub(super) type CommandResult = Result<CommandOutput, CommandError>;

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
    pub(super) fn usage(message: &str) -> Self {
        Self { exit: Exit::Usage, kind: "usage", message: message.into() }
    }

    pub(super) fn read(source: &str, error: impl fmt::Display) -> Self {
        let message = format!("cannot read {source}: {error}");
        Self { exit: Exit::Error, kind: "error", message }
    }

    fn cancelled() -> Self {
        let message = "Cancelled; nothing was changed".into();
        Self { exit: Exit::Usage, kind: "cancelled", message }
    }

    pub(super) fn server(error: ServerError, app: &App, email: Option<&str>) -> Self {
        use ServerError as E;
        let (exit, kind) = match error {
            E::InvalidCode => (Exit::NotAuthenticated, "invalid_code"),
            E::ExpiredCode => (Exit::NotAuthenticated, "expired_code"),
            E::KeyRejected => (Exit::NotAuthenticated, "rejected"),
            E::RateLimited { .. } => (Exit::Error, "rate_limited"),
            E::Refused { .. } => (Exit::Error, "refused"),
            E::Unavailable(_) => (Exit::Error, "unavailable"),
            E::Unsupported => (Exit::Error, "unsupported"),
        };
        let (name, command) = (app.name(), app.command_name());
        let retry = format!("{command} configure --email {}", email.unwrap_or("YOU@EXAMPLE.COM"));
        let message = match error {
            E::InvalidCode => format!(
                "❌ Invalid OTP code. Double-check the code from the email, or request a new one: `{retry}`"
            ),
            E::ExpiredCode => {
                format!("❌ Expired OTP code. Request a new one, and use it soon: `{retry}`")
            }
            E::KeyRejected => format!(
                "❌ Authentication failed: the server does not accept the key. Verify that you copied the \
                 complete key, with no extra spaces, and that it has not been revoked. Then store it, or a \
                 new one, with `{command} configure`"
            ),
            E::RateLimited { retry_after } => {
                let wait = retry_after.map(|wait| format!("{} s", wait.as_secs().max(1)));
                let wait = wait.as_deref().unwrap_or("a while");
                format!("Too many attempts. Wait {wait}, then try again")
            }
            E::Refused { message } => {
                // Without control characters, the message cannot move the cursor.
                let printable = message.chars().filter(|c| !c.is_control());
                let reason: String = printable.take(MAX_SERVER_MESSAGE_CHARS).collect();
                format!("The server refused the request: {reason}")
            }
            // For an e-mail address, there is no key yet.
            E::Unavailable(source) if email.is_some() => {
                format!("The server is unavailable ({source}). Try again later")
            }
            E::Unavailable(source) => format!(
                "The server is unavailable ({source}). The key may still be valid: try again later"
            ),
            E::Unsupported => {
                format!("{name} does not support this on the command line: use its website")
            }
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
    let (kind, path) = (source.as_str(), source.path().map(Path::to_string_lossy));
    match source {
        KeySource::EnvVar { name } => json!({ "kind": kind, "variable": name }),
        KeySource::File { profile, .. } => {
            json!({ "kind": kind, "path": path, "profile": profile.as_str() })
        }
        KeySource::DotEnv { name, .. } => json!({ "kind": kind, "path": path, "variable": name }),
    }
}

pub(super) fn print_labelled(label: &str, color: AnsiColor, message: &str) {
    let style = Style::new().bold().fg_color(Some(color.into()));
    let _ = writeln!(anstream::stderr(), "{style}{label}{style:#} {message}");
}

/// Whether the terminal shows what the user types.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Echo {
    On,
    Off,
}

/// Checks that prompts are possible. `advice` names the alternative.
pub(super) fn require_terminal(advice: &str) -> Result<(), CommandError> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    let message = format!("cannot prompt because standard input is not a terminal: {advice}");
    Err(CommandError { exit: Exit::Usage, kind: "no_terminal", message })
}

/// Prompts on standard error, so that standard output has only the result, and reads one line.
pub(super) fn prompt(question: &str, echo: Echo) -> Result<Zeroizing<String>, CommandError> {
    let line = platform::read_line(question, echo);
    let line = line.map_err(|error| CommandError::read("from the terminal", error))?;
    line.ok_or_else(|| {
        let _ = writeln!(io::stderr());
        CommandError::cancelled()
    })
}

/// Any other answer than `y` or `yes` cancels the command. `advice` is shown if there is no terminal.
pub(super) fn confirm(question: &str, advice: &str) -> Result<(), CommandError> {
    require_terminal(advice)?;
    let answer = prompt(&format!("? {question} (y/N)"), Echo::On)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CommandError::cancelled()),
    }
}

#[cfg(not(unix))]
mod platform {
    use super::*;

    /// Prompts and reads a line from the console. Returns `None` at the end of input.
    pub(super) fn read_line(question: &str, echo: Echo) -> io::Result<Option<Zeroizing<String>>> {
        write!(io::stderr(), "{question} ")?;
        if echo == Echo::Off {
            return rpassword::read_password().map(|line| Some(Zeroizing::new(line)));
        }
        let mut line = Zeroizing::new(String::new());
        let read = io::stdin().read_line(&mut line)?;
        Ok((read > 0).then_some(line))
    }
}

#[cfg(unix)]
mod platform {
    use std::io::Read as _;

    use rustix::termios::{
        LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
    };

    use super::*;

    /// Prompts and reads a line from standard input. Returns `None` if it was cancelled by Ctrl-C or Ctrl-D.
    // Not the crate `rpassword`: with it, Ctrl-C ends the process and leaves the terminal's echo disabled.
    pub(super) fn read_line(question: &str, echo: Echo) -> io::Result<Option<Zeroizing<String>>> {
        // Entered before the prompt is printed, so that a key pasted immediately is not echoed.
        let _mode = PromptMode::enter(echo)?;
        write!(io::stderr(), "{question} ")?;
        // `bytes` retries a read that a signal interrupted.
        let mut bytes = io::stdin().lock().bytes();
        let mut next = || bytes.next().transpose();
        // Full capacity up front: a buffer that reallocates leaves copies of the key in freed memory.
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE_LEN));
        while let Some(byte) = next()? {
            match byte {
                b'\n' => {
                    let text = std::str::from_utf8(&line).map_err(io::Error::other)?;
                    return Ok(Some(Zeroizing::new(text.to_owned())));
                }
                CTRL_C => return Ok(None),
                // Skip the escape sequence of a key such as an arrow.
                ESCAPE if next()? == Some(b'[') => {
                    while next()?.is_some_and(|byte| !(0x40..=0x7e).contains(&byte)) {}
                }
                0x20.. if line.len() < MAX_LINE_LEN => line.push(byte),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Lets the terminal edit a line in which Ctrl-C is an end of line and not a signal, until it is dropped.
    struct PromptMode(Termios);

    impl PromptMode {
        fn enter(echo: Echo) -> io::Result<Self> {
            let before = tcgetattr(io::stdin())?;
            let mut prompt = before.clone();
            prompt.local_modes.insert(LocalModes::ICANON | LocalModes::ECHONL);
            prompt.local_modes.remove(LocalModes::ISIG | LocalModes::IEXTEN);
            prompt.local_modes.set(LocalModes::ECHO, echo == Echo::On);
            prompt.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
            tcsetattr(io::stdin(), OptionalActions::Now, &prompt)?;
            Ok(Self(before))
        }
    }

    impl Drop for PromptMode {
        fn drop(&mut self) {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
        }
    }

    const CTRL_C: u8 = 0x03;
    const ESCAPE: u8 = 0x1b;
    /// Longer than any key or email address.
    const MAX_LINE_LEN: usize = 1024;
}

const MAX_SERVER_MESSAGE_CHARS: usize = 300;
