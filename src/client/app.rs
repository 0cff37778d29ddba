use std::{
    env,
    path::{Path, PathBuf},
};

use super::{
    credentials::{CredentialsFile, Profile},
    error::{ClientError, ClientErrorKind},
};
use crate::secret::{Formats, Malformed, Secret};

/// A product as its client program sees it: name, key format, and where a key may be stored.
///
/// # Examples
/// ```
/// use keyward::{KeyFormat, client::App};
///
/// let app = App::new("lua", KeyFormat::builder("lk").build()?).credentials_dir(".lua-cli");
/// assert_eq!(app.env_var_name(), "LUA_API_KEY");
/// # Ok::<(), keyward::secret::FormatError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct App {
    name: String,
    formats: Formats,
    env_var: String,
    command: String,
    credentials_dir: CredentialsDir,
}

#[derive(Clone, Debug)]
enum CredentialsDir {
    InHome(String),
    InConfig(String),
}

impl App {
    /// Creates an app from the product's name, such as `lua`, and the format of its keys.
    ///
    /// For the name `lua`, the defaults are the environment variable `LUA_API_KEY`, the credentials file
    /// `~/.lua/credentials`, and the command `lua auth`.
    pub fn new(name: impl Into<String>, formats: impl Into<Formats>) -> Self {
        let name = name.into();
        let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        Self {
            env_var: format!("{}_API_KEY", name.chars().map(upper).collect::<String>()),
            command: format!("{name} auth"),
            credentials_dir: CredentialsDir::InHome(format!(".{name}")),
            formats: formats.into(),
            name,
        }
    }

    /// Sets the name of the environment variable that may hold the key.
    pub fn env_var(mut self, name: impl Into<String>) -> Self {
        self.env_var = name.into();
        self
    }

    /// Sets the directory of the credentials file, relative to the home directory: `.lua-cli`.
    pub fn credentials_dir(mut self, name: impl Into<String>) -> Self {
        self.credentials_dir = CredentialsDir::InHome(name.into());
        self
    }

    /// Sets the directory of the credentials file, relative to the platform's configuration directory.
    ///
    /// That is `$XDG_CONFIG_HOME` or `~/.config` on Unix, `~/Library/Application Support` on macOS, and
    /// `%APPDATA%` on Windows.
    pub fn config_dir(mut self, name: impl Into<String>) -> Self {
        self.credentials_dir = CredentialsDir::InConfig(name.into());
        self
    }

    /// Sets the command under which `cli::AuthCommand` is mounted, as messages show it: `lua auth`.
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.command = command.into();
        self
    }

    /// Returns the name of the product.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name of the environment variable that may hold the key.
    pub fn env_var_name(&self) -> &str {
        &self.env_var
    }

    /// Returns the command under which the authentication commands are mounted.
    pub fn command_name(&self) -> &str {
        &self.command
    }

    /// Returns the accepted key formats.
    pub fn formats(&self) -> &Formats {
        &self.formats
    }

    /// Parses a key of this product. White space around the key is ignored.
    ///
    /// `origin` names where the text came from, for the error message.
    ///
    /// # Errors
    /// [`ClientErrorKind::Malformed`] if the text is not a key of this product. The message names the cause
    /// and does not show the text.
    ///
    /// # Examples
    /// ```
    /// let app = keyward::client::App::new("lua", keyward::secret::KeyFormat::builder("lk").build()?);
    /// let error = app.parse("lk_tooshort", "LUA_API_KEY").unwrap_err();
    /// assert!(error.to_string().contains("copied the complete key"));
    /// # Ok::<(), keyward::secret::FormatError>(())
    /// ```
    pub fn parse(&self, text: &str, origin: &str) -> Result<Secret, ClientError> {
        let text = text.trim();
        match self.formats.parse(text) {
            Ok(parsed) => Ok(Secret::from(parsed.expose().to_owned())),
            Err(malformed) => Err(self.malformed(text, origin, malformed)),
        }
    }

    /// Returns the part of a key that may be shown.
    pub fn hint(&self, key: &Secret) -> String {
        self.formats.hint(key)
    }

    /// Returns the current user's credentials file.
    ///
    /// # Errors
    /// [`ClientErrorKind::Io`] if the home or configuration directory is unknown.
    pub fn credentials(&self) -> Result<CredentialsFile, ClientError> {
        let dir = match &self.credentials_dir {
            CredentialsDir::InHome(name) => home_dir()?.join(name),
            CredentialsDir::InConfig(name) => config_dir()?.join(name),
        };
        Ok(CredentialsFile::in_dir(dir))
    }

    /// Returns the error for a missing key, with the ways to provide one.
    pub(super) fn no_key(&self, profile: &Profile, file: Option<&Path>) -> ClientError {
        let option =
            if profile.is_default() { String::new() } else { format!(" --profile {profile}") };
        let file = file.map_or_else(String::new, |path| format!(" in {}", path.display()));
        let (command, env_var) = (&self.command, &self.env_var);
        let message = format!(
            "No API key found. Run `{command} configure{option}` to store a key{file}, set the environment \
             variable {env_var}, or add a line {env_var}=… to a .env file in this directory"
        );
        ClientError::new(ClientErrorKind::NotFound, message)
    }

    /// Describes a malformed key without showing the text: any part of it may be secret.
    fn malformed(&self, text: &str, origin: &str, malformed: Malformed) -> ClientError {
        let format = self.formats.current();
        let problem = if text.contains(char::is_whitespace) {
            "it contains a space or a line break: remove it".to_owned()
        } else if text.starts_with(['"', '\'']) {
            "it begins with a quotation mark: remove the quotation marks".to_owned()
        } else {
            let advice = "verify that you copied the complete key";
            match malformed {
                Malformed::Prefix | Malformed::Environment => {
                    format!("{malformed}, keys begin with {}: {advice}", format.secret_prefix())
                }
                Malformed::Length => format!(
                    "it has {} characters, but keys have {}: {advice}",
                    text.chars().count(),
                    format.total_len()
                ),
                other => format!("{other}: {advice}"),
            }
        };
        let message =
            format!("the text from {origin} is not an API key of {} ({problem})", self.name);
        ClientError::new(ClientErrorKind::Malformed, message)
    }
}

fn home_dir() -> Result<PathBuf, ClientError> {
    absolute(env::home_dir()).ok_or_else(|| unknown_dir("set HOME to an absolute path"))
}

fn config_dir() -> Result<PathBuf, ClientError> {
    if cfg!(windows) {
        return absolute(env_path("APPDATA"))
            .ok_or_else(|| unknown_dir("set APPDATA to an absolute path"));
    }
    if cfg!(target_os = "macos") {
        return Ok(home_dir()?.join("Library/Application Support"));
    }
    match absolute(env_path("XDG_CONFIG_HOME")) {
        Some(dir) => Ok(dir),
        None => Ok(home_dir()?.join(".config")),
    }
}

fn env_path(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from)
}

/// Rejects a relative path: the file, and so the user's identity, would depend on the working directory.
fn absolute(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| path.is_absolute())
}

fn unknown_dir(advice: &str) -> ClientError {
    let message = format!("cannot locate the credentials file: {advice}");
    ClientError::new(ClientErrorKind::Io, message)
}
