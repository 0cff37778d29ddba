use std::io::{self, IsTerminal, Read};

use serde_json::json;
use zeroize::Zeroizing;

use super::{
    Common, Console, Server, ServerError,
    console::{Answer, Failure},
    terminal::{self, Typed},
};
use crate::{
    client::{App, CredentialsFile},
    secret::Secret,
};

/// Set up authentication: store an API key.
#[derive(Clone, Debug, clap::Args)]
pub struct Configure {
    /// Store this key; prefer --api-key-stdin, because arguments are visible to others
    #[arg(long, value_name = "KEY", conflicts_with_all = ["api_key_stdin", "stdin", "email"])]
    api_key: Option<Secret>,
    /// Read the key from standard input
    #[arg(long, conflicts_with_all = ["stdin", "email"])]
    api_key_stdin: bool,
    /// `-` reads the key from standard input
    #[arg(value_name = "-", conflicts_with = "email")]
    stdin: Option<Secret>,
    /// Have a one-time code sent to this address; with --otp, the address it was sent to
    #[arg(long, value_name = "EMAIL")]
    email: Option<String>,
    /// Turn the one-time code from the email into a key, and store it
    #[arg(long, value_name = "CODE", requires = "email")]
    otp: Option<Secret>,
    #[command(flatten)]
    pub(super) common: Common,
}

impl Configure {
    pub(super) fn run(
        &self,
        app: &App,
        server: &dyn Server,
        console: &Console,
    ) -> Result<Answer, Failure> {
        let file = app.credentials()?;
        if let Some((source, _)) = app.in_variable() {
            console.note(format!(
                "The {source} is set, and wins over what is stored: unset it to use the stored key"
            ));
        }
        let work = Work { app, server, console, file: &file, command: self };
        match (&self.email, &self.otp) {
            (Some(email), None) => {
                work.request_code(email)?;
                let command = app.command_name();
                let text = format!(
                    "Check your email for a 6-digit code. Then run `{command} configure --email {email} --otp CODE`.\n\
                     It may take a few minutes; look into the spam folder, too"
                );
                Ok(Answer::new(text, json!({ "code_sent": true, "stored": false })))
            }
            (Some(email), Some(code)) => work.verify_code(email, code),
            (None, _) => match self.given(app, console)? {
                Some(key) => work.check_and_store(&key),
                None => work.ask(),
            },
        }
    }

    /// The key that came with the call, if one did.
    fn given(&self, app: &App, console: &Console) -> Result<Option<Secret>, Failure> {
        if let Some(argument) = &self.stdin {
            if argument.expose() != "-" {
                return Err(Failure::usage(
                    "the only argument without a name is `-`, which reads the key from standard input",
                ));
            }
            return from_stdin(app).map(Some);
        }
        match &self.api_key {
            _ if self.api_key_stdin => from_stdin(app).map(Some),
            Some(key) if key.expose() == "-" => from_stdin(app).map(Some),
            Some(key) => {
                console.note(
                    "Arguments are visible to others on this machine, and stay in the shell's history: \
                     prefer --api-key-stdin",
                );
                Ok(Some(app.parse(key.expose(), "--api-key")?))
            }
            None => Ok(None),
        }
    }
}

struct Work<'a> {
    app: &'a App,
    server: &'a dyn Server,
    console: &'a Console,
    file: &'a CredentialsFile,
    command: &'a Configure,
}

impl Work<'_> {
    fn ask(&self) -> Result<Answer, Failure> {
        if !terminal::can_ask() {
            return Err(Failure::no_terminal(&format!(
                "pass the key with --api-key-stdin, or set the environment variable {}",
                self.app.variable_name()
            )));
        }
        let question = "? Your API key (it is not shown; leave it empty to sign in by email):";
        let key = terminal::ask(question, Typed::Hidden)?;
        if !key.trim().is_empty() {
            return self.check_and_store(&self.app.parse(&key, "the terminal")?);
        }
        let email = terminal::ask("? Your email address:", Typed::Shown)?;
        let email = email.trim();
        self.request_code(email)?;
        let code = terminal::ask(
            "? Check your email for a 6-digit code, and type it here:",
            Typed::Shown,
        )?;
        self.verify_code(email, &Secret::from(code.trim().to_owned()))
    }

    fn request_code(&self, email: &str) -> Result<(), Failure> {
        let email = address(email)?;
        self.server
            .request_code(email)
            .map_err(|error| Failure::server(error, self.app, Some(email)))
    }

    fn verify_code(&self, email: &str, code: &Secret) -> Result<Answer, Failure> {
        let email = address(email)?;
        let code = Secret::from(code.expose().trim().to_owned());
        if code.expose().is_empty() {
            return Err(Failure::usage("the code is empty: type the one from the email"));
        }
        // A code makes one key: it is not spent on one that could not be kept.
        self.file.prepare()?;
        let made = self.server.verify_code(email, &code);
        let key = made.map_err(|error| Failure::server(error, self.app, Some(email)))?;
        let kept = self
            .app
            .parse(key.expose(), "the server")
            .map_err(Failure::from)
            .and_then(|key| self.store(&key));
        if kept.is_err() && self.server.revoke_key(&key).is_err() {
            self.console.note(
                "A new key was made, and could be neither stored nor revoked: revoke it on the product's web pages",
            );
        }
        kept
    }

    fn check_and_store(&self, key: &Secret) -> Result<Answer, Failure> {
        match self.server.check_key(key) {
            Ok(()) | Err(ServerError::Unsupported) => {}
            Err(error @ ServerError::Rejected) => {
                return Err(Failure::server(error, self.app, None));
            }
            Err(error) => self.console.note(format!(
                "The key is stored unchecked ({error}): see `{} status --check`",
                self.app.command_name()
            )),
        }
        self.store(key)
    }

    fn store(&self, key: &Secret) -> Result<Answer, Failure> {
        let profile = &self.command.common.profile;
        if let Some(warning) = self.file.save(profile, key)? {
            self.console.note(warning);
        }
        let (hint, path) = (self.app.hint(key), self.file.path());
        let text = format!("API key {hint}******** stored in {}", path.display());
        let (path, profile) = (path.to_string_lossy(), profile.as_str());
        let json = json!({ "stored": true, "hint": hint, "path": path, "profile": profile });
        Ok(Answer::new(text, json))
    }
}

fn from_stdin(app: &App) -> Result<Secret, Failure> {
    if io::stdin().is_terminal() {
        let key = terminal::ask("? Your API key (it is not shown):", Typed::Hidden)?;
        return Ok(app.parse(&key, "the terminal")?);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_STDIN));
    let read = io::stdin().lock().take(MAX_STDIN as u64).read_to_end(&mut bytes);
    read.map_err(|error| Failure::error(format!("standard input cannot be read: {error}")))?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    if text.trim().is_empty() {
        return Err(Failure::usage(
            "standard input has no key: pipe it in, as in `… configure - < key.txt`",
        ));
    }
    Ok(app.parse(text, "standard input")?)
}

/// As much as keeps a mistake, and a terminal's command characters, out of the mail.
fn address(text: &str) -> Result<&str, Failure> {
    let text = text.trim();
    let odd = |c: char| c.is_whitespace() || c.is_control();
    if text.contains('@') && !text.contains(odd) {
        Ok(text)
    } else {
        Err(Failure::usage("this is no email address: write it as in ada@example.com"))
    }
}

const MAX_STDIN: usize = 64 * 1024;
