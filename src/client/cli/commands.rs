use std::{
    cell::RefCell,
    fmt::Display,
    io::{self, IsTerminal as _, Read as _, Write as _},
};

use clap::builder::styling::AnsiColor;
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    Server, ServerCall, ServerError,
    console::{
        CommandError, CommandOutput, CommandResult, Echo, Exit, confirm, finish, print_labelled,
        prompt, require_terminal, source_json,
    },
};
use crate::{
    client::{App, CredentialsFile, Profile, ResolvedKey},
    secret::Secret,
};

/// The commands `configure`, `key`, `status` and `logout`.
#[derive(Clone, Debug, clap::Subcommand)]
#[non_exhaustive]
pub enum AuthCommand {
    /// Set up authentication: store an API key
    Configure(Configure),
    /// Display the API key
    Key(ShowKey),
    /// Show which API key is used, and where it comes from
    Status(ShowStatus),
    /// Remove the stored API key
    Logout(Logout),
}

impl AuthCommand {
    /// Runs the command, prints its result, and returns the outcome.
    pub fn run(&self, app: &App, server: &dyn Server) -> Exit {
        let (common, command): (_, &dyn Fn(&Session<'_>) -> CommandResult) = match self {
            Self::Configure(command) => (&command.common, &|session| command.run(session)),
            Self::Key(command) => (&command.common, &|session| command.run(session)),
            Self::Status(command) => (&command.common, &|session| command.run(session)),
            Self::Logout(command) => (&command.common, &|session| command.run(session)),
        };
        let session = Session { app, server, common, notes: RefCell::default() };
        let result = command(&session);
        finish(result, common.json, session.notes.into_inner())
    }

    /// Hides the options that the server does not [support](Server::supports) from the help of these commands. `auth` is
    /// the command that has them as subcommands.
    ///
    /// # Examples
    /// ```
    /// use clap::{CommandFactory, Parser};
    /// use keyward::client::cli::{AuthCommand, NoServer};
    ///
    /// #[derive(Parser)]
    /// enum Lumio {
    ///     #[command(subcommand)]
    ///     Auth(AuthCommand),
    /// }
    ///
    /// let command = Lumio::command();
    /// let mut command = command.mut_subcommand("auth", |auth| AuthCommand::offer(auth, &NoServer));
    /// command.build();
    /// let logout = command.find_subcommand_mut("auth").unwrap().find_subcommand_mut("logout").unwrap();
    /// assert!(!logout.render_help().to_string().contains("--revoke"));
    /// ```
    pub fn offer(auth: clap::Command, server: &dyn Server) -> clap::Command {
        let options = [
            ("configure", "email", ServerCall::RequestCode),
            ("configure", "otp", ServerCall::RequestCode),
            ("status", "check", ServerCall::CheckKey),
            ("logout", "revoke", ServerCall::RevokeKey),
        ];
        let refused = options.into_iter().filter(|(.., call)| !server.supports(*call));
        refused.fold(auth, |auth, (command, option, _)| {
            auth.mut_subcommand(command, |command| {
                command.mut_arg(option, |option| option.hide(true))
            })
        })
    }
}

/// The options of all commands.
#[derive(Clone, Debug, clap::Args)]
struct CommonOptions {
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
    /// The profile in the credentials file
    #[arg(long, value_name = "NAME", default_value_t)]
    profile: Profile,
}

/// Set up authentication: store an API key.
#[derive(Clone, Debug, clap::Args)]
pub struct Configure {
    /// Store this key; prefer --api-key-stdin, because other users can see arguments
    #[arg(long, value_name = "KEY", conflicts_with_all = ["api_key_stdin", "stdin", "email"])]
    api_key: Option<Secret>,
    /// Read the key from standard input
    #[arg(long, conflicts_with_all = ["stdin", "email"])]
    api_key_stdin: bool,
    /// Read the key from standard input
    #[arg(value_name = "-", conflicts_with = "email")]
    stdin: Option<Secret>,
    /// Send a one-time code to this address; with --otp, the address that received the code
    #[arg(long, value_name = "EMAIL")]
    email: Option<String>,
    /// Exchange the one-time code from the email for a new key, and store it
    #[arg(long, value_name = "CODE", requires = "email")]
    otp: Option<Secret>,
    #[command(flatten)]
    common: CommonOptions,
}

impl Configure {
    fn run(&self, session: &Session<'_>) -> CommandResult {
        let file = session.app.credentials()?;
        if let Some((source, _)) = session.app.env_var_candidate() {
            session.note(format!(
                "The {source} is set and takes precedence over the stored key: unset it to use the stored key"
            ));
        }
        match (&self.email, &self.otp) {
            (Some(email), None) => {
                session.request_code(email)?;
                let command = session.app.command_name();
                let text = format!(
                    "Check your email for a 6-digit code. Then run `{command} configure --email {email} --otp CODE`.\n\
                     It may take a few minutes to arrive. Check the spam folder, too"
                );
                Ok(CommandOutput::new(text, json!({ "code_sent": true, "stored": false })))
            }
            (Some(email), Some(code)) => session.verify_code(&file, email, code),
            (None, _) => match self.provided_key(session)? {
                Some(key) => session.check_and_store(&file, &key),
                None => session.prompt_and_store(&file),
            },
        }
    }

    /// Returns the key from the arguments or standard input, if there is one.
    fn provided_key(&self, session: &Session<'_>) -> Result<Option<Secret>, CommandError> {
        match (&self.stdin, &self.api_key) {
            (Some(argument), _) if argument.expose() != "-" => Err(CommandError::usage(
                "unexpected argument: use `-` to read the key from standard input",
            )),
            (None, None) if !self.api_key_stdin => Ok(None),
            (None, Some(key)) if key.expose() != "-" => {
                session.note(
                    "Arguments are visible to other users of this machine and stay in the shell history: \
                     prefer --api-key-stdin",
                );
                Ok(Some(session.app.parse(key.expose(), "--api-key")?))
            }
            _ => session.read_key().map(Some),
        }
    }
}

/// Display the API key.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowKey {
    /// Skip the confirmation prompt
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: CommonOptions,
}

impl ShowKey {
    fn run(&self, session: &Session<'_>) -> CommandResult {
        let ResolvedKey { key, source, .. } = session.resolve()?;
        if !self.force {
            confirm(
                "This will display your API key. Are you sure you want to continue?",
                "add --force to display the key without confirmation",
            )?;
        }
        if !self.common.json {
            // To standard error, so that a pipe receives only the result.
            let _ = writeln!(anstream::stderr(), "🔑 Your API key:");
        }
        let json = json!({ "api_key": key.expose(), "source": source_json(&source) });
        Ok(CommandOutput::new(key.expose(), json))
    }
}

/// Show which API key is used, and where it comes from.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowStatus {
    /// Check whether the server accepts the key
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    common: CommonOptions,
}

impl ShowStatus {
    fn run(&self, session: &Session<'_>) -> CommandResult {
        let resolved = session.resolve()?;
        let mode = resolved.mode.map(|mode| format!("{mode:04o}"));
        let mut text = format!("Key      {}\nSource   {}", resolved.masked(), resolved.source);
        text.extend(mode.iter().map(|mode| format!("\nMode     {mode}")));
        text.extend(resolved.shadowed.iter().map(|source| format!("\nShadows  {source}")));
        let json = json!({
            "hint": resolved.hint,
            "source": source_json(&resolved.source),
            "mode": mode,
            "shadows": resolved.shadowed.iter().map(source_json).collect::<Vec<_>>(),
        });
        let mut output = CommandOutput::new(text, json);
        if !self.check {
            return Ok(output);
        }
        let accepted = match session.server.check_key(&resolved.key) {
            Ok(()) => true,
            Err(ServerError::KeyRejected) => false,
            Err(error) => return Err(CommandError::server(error, session.app, None)),
        };
        output.json["accepted"] = accepted.into();
        let answer = if accepted { "accepts the key" } else { "does not accept the key" };
        output.text.push_str(&format!("\nServer   {answer}"));
        if !accepted {
            output.exit = Exit::NotAuthenticated;
            let (command, name) = (session.app.command_name(), session.app.name());
            session.note(format!(
                "❌ Authentication failed: the key may have been revoked, or belong to another {name} server. \
                 Store a new one with `{command} configure`"
            ));
        }
        Ok(output)
    }
}

/// Remove the stored API key.
#[derive(Clone, Debug, clap::Args)]
pub struct Logout {
    /// Skip the confirmation prompt
    #[arg(long)]
    force: bool,
    /// Also revoke the key on the server, permanently
    #[arg(long)]
    revoke: bool,
    #[command(flatten)]
    common: CommonOptions,
}

impl Logout {
    fn run(&self, session: &Session<'_>) -> CommandResult {
        let &Session { app, server, common: CommonOptions { profile, .. }, .. } = session;
        let file = app.credentials()?;
        let Some(stored) = file.load(profile)? else {
            if self.revoke {
                return Err(app.no_key(profile).into());
            }
            // Also removes temporary files of killed writers.
            file.remove(profile)?;
            session.note_other_sources();
            let text = format!("No API key is stored in {}", file.path().display());
            return Ok(CommandOutput::new(text, json!({ "deleted": false, "revoked": false })));
        };
        stored.warning.iter().for_each(|warning| session.note(warning));
        if !self.force {
            confirm(
                "Are you sure you want to delete your API key? This action cannot be undone.",
                "add --force to delete the key without confirmation",
            )?;
        }
        let mut text = "API key deleted successfully.";
        if self.revoke {
            // Revoke before removing the file: if revoking fails, the user can try again.
            let key = app.parse(&stored.text, &file.path().display().to_string())?;
            match server.revoke_key(&key) {
                Ok(()) => text = "API key revoked on the server, and deleted successfully.",
                Err(ServerError::KeyRejected) => session
                    .note("The server no longer accepted the key; the local copy was deleted"),
                Err(error) => return Err(CommandError::server(error, app, None)),
            }
        }
        file.remove(profile)?;
        if !self.revoke {
            let offer = if server.supports(ServerCall::RevokeKey) {
                "; next time, `logout --revoke` does both"
            } else {
                ""
            };
            session.note(format!(
                "The key is still valid on the server. To end it, revoke it on the product's website{offer}"
            ));
        }
        session.note_other_sources();
        let path = file.path().to_string_lossy();
        let json = json!({ "deleted": true, "revoked": self.revoke, "path": path });
        Ok(CommandOutput::new(text, json))
    }
}

/// What every command runs with.
struct Session<'a> {
    app: &'a App,
    server: &'a dyn Server,
    common: &'a CommonOptions,
    notes: RefCell<Vec<String>>,
}

impl Session<'_> {
    /// Prints a note to standard error, or adds it to the JSON object.
    fn note(&self, note: impl Display) {
        if self.common.json {
            self.notes.borrow_mut().push(note.to_string());
        } else {
            print_labelled("Note:", AnsiColor::Yellow, &note.to_string());
        }
    }

    fn resolve(&self) -> Result<ResolvedKey, CommandError> {
        let resolved = self.app.resolve(&self.common.profile)?;
        resolved.warnings.iter().for_each(|warning| self.note(warning));
        Ok(resolved)
    }

    /// Notes that the program stays signed in by another source.
    fn note_other_sources(&self) {
        let dotenv = || self.app.dotenv_candidate().ok().flatten();
        if let Some((source, _)) = self.app.env_var_candidate().or_else(dotenv) {
            self.note(format!("{source} is still set and will be used: remove it to sign out"));
        }
    }

    // The steps of `Configure`.

    /// Reads a key from standard input, or from a hidden prompt if that is a terminal.
    fn read_key(&self) -> Result<Secret, CommandError> {
        if io::stdin().is_terminal() {
            let key = prompt("? Your API key (input is hidden):", Echo::Off)?;
            return Ok(self.app.parse(&key, "the terminal")?);
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_STDIN_LEN));
        let read = io::stdin().lock().take(MAX_STDIN_LEN as u64).read_to_end(&mut bytes);
        read.map_err(|error| CommandError::read("standard input", error))?;
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        if text.trim().is_empty() {
            return Err(CommandError::usage(
                "no key on standard input: provide one, as in `… configure - < key.txt`",
            ));
        }
        Ok(self.app.parse(text, "standard input")?)
    }

    fn prompt_and_store(&self, file: &CredentialsFile) -> CommandResult {
        let variable = self.app.env_var_name();
        require_terminal(&format!(
            "pass the key with --api-key-stdin, or set the environment variable {variable}"
        ))?;
        let by_email = self.server.supports(ServerCall::RequestCode);
        let offer = if by_email { "; leave empty to sign in by email" } else { "" };
        let key = prompt(&format!("? Your API key (input is hidden{offer}):"), Echo::Off)?;
        if !by_email || !key.trim().is_empty() {
            return self.check_and_store(file, &self.app.parse(&key, "the terminal")?);
        }
        let email = prompt("? Your email address:", Echo::On)?;
        self.request_code(&email)?;
        let code = prompt("? Check your email for a 6-digit code and enter it:", Echo::On)?;
        self.verify_code(file, &email, &Secret::from(code.as_str().to_owned()))
    }

    fn request_code(&self, email: &str) -> Result<(), CommandError> {
        let email = parse_address(email)?;
        let requested = self.server.request_code(email);
        requested.map_err(|error| CommandError::server(error, self.app, Some(email)))
    }

    fn verify_code(&self, file: &CredentialsFile, email: &str, code: &Secret) -> CommandResult {
        let email = parse_address(email)?;
        let code = Secret::from(code.expose().trim().to_owned());
        if code.expose().is_empty() {
            return Err(CommandError::usage("the code is empty: enter the code from the email"));
        }
        // A code yields one key. Check first that the key can be stored, or the code would be wasted.
        file.check_writable()?;
        let created = self.server.verify_code(email, &code);
        let key = created.map_err(|error| CommandError::server(error, self.app, Some(email)))?;
        let parsed = self.app.parse(key.expose(), "the server").map_err(CommandError::from);
        let stored = parsed.and_then(|key| self.store(file, &key));
        if stored.is_err() && self.server.revoke_key(&key).is_err() {
            self.note(
                "A new key was created, but it could be neither stored nor revoked: revoke it on the product's website",
            );
        }
        stored
    }

    fn check_and_store(&self, file: &CredentialsFile, key: &Secret) -> CommandResult {
        match self.server.check_key(key) {
            Ok(()) | Err(ServerError::Unsupported) => {}
            Err(error @ ServerError::KeyRejected) => {
                return Err(CommandError::server(error, self.app, None));
            }
            Err(error) => self.note(format!(
                "The key is stored without checking it ({error}): run `{} status --check` later",
                self.app.command_name()
            )),
        }
        self.store(file, key)
    }

    fn store(&self, file: &CredentialsFile, key: &Secret) -> CommandResult {
        if let Some(warning) = file.save(&self.common.profile, key)? {
            self.note(warning);
        }
        let (hint, path, profile) = (self.app.hint(key), file.path(), self.common.profile.as_str());
        let text = format!("API key {hint}******** stored in {}", path.display());
        let path = path.to_string_lossy();
        let json = json!({ "stored": true, "hint": hint, "path": path, "profile": profile });
        Ok(CommandOutput::new(text, json))
    }
}

/// Rejects obvious mistakes and control characters. The server validates the address.
fn parse_address(text: &str) -> Result<&str, CommandError> {
    let text = text.trim();
    let invalid = |c: char| c.is_whitespace() || c.is_control();
    if text.contains('@') && !text.contains(invalid) {
        Ok(text)
    } else {
        Err(CommandError::usage("invalid email address: use the form ada@example.com"))
    }
}

const MAX_STDIN_LEN: usize = 64 * 1024;
