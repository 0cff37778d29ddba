use std::{
    env,
    path::{Path, PathBuf},
};

use super::{CredentialsFile, Error, ErrorKind, Profile};
use crate::secret::{Formats, Malformed, Secret};

/// A product whose keys a program holds: its name, the form of its keys, and where they may stand.
///
/// # Examples
/// ```
/// use keyward::{KeyFormat, client::App};
///
/// let app = App::new("lua", KeyFormat::builder("lk").build()?).folder(".lua-cli");
/// assert_eq!(app.variable_name(), "LUA_API_KEY");
/// # Ok::<(), keyward::secret::FormatError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct App {
    name: String,
    formats: Formats,
    variable: String,
    command: String,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Home(String),
    Config(String),
}

impl App {
    /// A product by its name, such as `lua`, and the form of its keys.
    ///
    /// Unless told otherwise the variable is `LUA_API_KEY`, the file `~/.lua/credentials`, and the
    /// commands are mounted as `lua auth`.
    pub fn new(name: impl Into<String>, formats: impl Into<Formats>) -> Self {
        let name = name.into();
        let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        Self {
            variable: format!("{}_API_KEY", name.chars().map(upper).collect::<String>()),
            command: format!("{name} auth"),
            place: Place::Home(format!(".{name}")),
            formats: formats.into(),
            name,
        }
    }

    /// The environment variable that may hold the key.
    pub fn variable(mut self, name: impl Into<String>) -> Self {
        self.variable = name.into();
        self
    }

    /// The folder of the credentials file within the home folder, as in `.lua-cli`.
    pub fn folder(mut self, name: impl Into<String>) -> Self {
        self.place = Place::Home(name.into());
        self
    }

    /// Puts the credentials file into the platform's folder for configurations instead: on Unix
    /// `$XDG_CONFIG_HOME` or `~/.config`, on macOS `~/Library/Application Support`, on Windows `%APPDATA%`.
    pub fn config_folder(mut self, name: impl Into<String>) -> Self {
        self.place = Place::Config(name.into());
        self
    }

    /// How the commands are reached, for messages that name them: `lua auth`.
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.command = command.into();
        self
    }

    /// The name of the product.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The environment variable that may hold the key.
    pub fn variable_name(&self) -> &str {
        &self.variable
    }

    /// How the commands are reached.
    pub fn command_name(&self) -> &str {
        &self.command
    }

    /// Which texts are keys of this product.
    pub fn formats(&self) -> &Formats {
        &self.formats
    }

    /// Takes a text for a key of this product, without the white space around it.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`], saying what is wrong with the text `from` there.
    ///
    /// # Examples
    /// ```
    /// let app = keyward::client::App::new("lua", keyward::secret::KeyFormat::builder("lk").build()?);
    /// let refused = app.parse("lk_tooshort", "LUA_API_KEY").unwrap_err();
    /// assert!(refused.to_string().contains("copied the complete key"));
    /// # Ok::<(), keyward::secret::FormatError>(())
    /// ```
    pub fn parse(&self, text: &str, from: &str) -> Result<Secret, Error> {
        let text = text.trim();
        match self.formats.parse(text) {
            Ok(parsed) => Ok(Secret::from(parsed.expose().to_owned())),
            Err(malformed) => Err(self.malformed(text, from, malformed)),
        }
    }

    /// What may be shown of a key.
    pub fn hint(&self, key: &Secret) -> String {
        self.formats.hint(key)
    }

    /// The credentials file of the person who runs this program.
    ///
    /// # Errors
    /// If there is no home folder to put it into.
    pub fn credentials(&self) -> Result<CredentialsFile, Error> {
        let folder = match &self.place {
            Place::Home(name) => home()?.join(name),
            Place::Config(name) => config()?.join(name),
        };
        Ok(CredentialsFile::in_folder(folder))
    }

    /// That there is no key, and what to do about it.
    pub(crate) fn no_key(&self, profile: &Profile, file: Option<&Path>) -> Error {
        let of = if profile.is_default() { String::new() } else { format!(" --profile {profile}") };
        let file = file.map_or_else(String::new, |path| format!(" ({})", path.display()));
        let (command, variable) = (&self.command, &self.variable);
        let message = format!(
            "No API key found. Run `{command} configure{of}` to store one{file}, set the environment \
             variable {variable}, or put a line {variable}=… into a .env file here"
        );
        Error::new(ErrorKind::NotFound, message)
    }

    /// Shows nothing of the text: where it is not a key, no part of it is known to be harmless.
    fn malformed(&self, text: &str, from: &str, malformed: Malformed) -> Error {
        let format = self.formats.current();
        let what = if text.contains(char::is_whitespace) {
            "there is a space or a line break inside: remove it".to_owned()
        } else if text.starts_with(['"', '\'']) {
            "it begins with a quotation mark: remove the quotation marks".to_owned()
        } else {
            let advice = "verify that you copied the complete key";
            match malformed {
                Malformed::Prefix | Malformed::Environment => {
                    format!("{malformed}, keys begin with {}: {advice}", format.secret_prefix())
                }
                Malformed::Length => format!(
                    "it has {} characters and keys have {}: {advice}",
                    text.chars().count(),
                    format.total_len()
                ),
                other => format!("{other}: {advice}"),
            }
        };
        let message = format!("the text from {from} is no API key of {} ({what})", self.name);
        Error::new(ErrorKind::Malformed, message)
    }
}

fn home() -> Result<PathBuf, Error> {
    absolute(env::home_dir()).ok_or_else(|| no_folder("HOME is not set to a folder"))
}

fn config() -> Result<PathBuf, Error> {
    if cfg!(windows) {
        return absolute(variable("APPDATA")).ok_or_else(|| no_folder("APPDATA is not set"));
    }
    if cfg!(target_os = "macos") {
        return Ok(home()?.join("Library/Application Support"));
    }
    match absolute(variable("XDG_CONFIG_HOME")) {
        Some(folder) => Ok(folder),
        None => Ok(home()?.join(".config")),
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from)
}

/// A relative folder would depend on where the program was started, and so would the identity.
fn absolute(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| path.is_absolute())
}

fn no_folder(why: &str) -> Error {
    let message = format!("there is no place for the credentials file: {why}");
    Error::new(ErrorKind::Io, message)
}
