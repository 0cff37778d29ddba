use std::{
    env, fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    ClientError, ClientErrorKind, Warning,
    credentials::{CredentialsFile, Profile, StoredCredential},
};
use crate::secret::{Formats, Malformed, Secret};

/// A product as its client program sees it: name, key format, and where a key may be stored.
///
/// # Examples
/// ```no_run
/// use keyward::{KeyFormat, client::{App, Profile}};
///
/// let app = App::new("lua", KeyFormat::builder("lk").build()?).credentials_dir(".lua-cli");
/// let resolved = app.resolve(&Profile::default())?;
/// println!("{} from {}", resolved.masked(), resolved.source);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct App {
    name: String,
    formats: Formats,
    env_var: String,
    command: String,
    /// The directory that `credentials_dir` is relative to.
    base_dir: fn() -> Result<PathBuf, ClientError>,
    credentials_dir: String,
}

impl App {
    /// Creates an app from the product's name and the format of its keys. For the name `lua`, the defaults are the
    /// environment variable `LUA_API_KEY`, the credentials file `~/.lua/credentials`, and the command `lua auth`.
    pub fn new(name: impl Into<String>, formats: impl Into<Formats>) -> Self {
        let name = name.into();
        let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        Self {
            env_var: format!("{}_API_KEY", name.chars().map(upper).collect::<String>()),
            command: format!("{name} auth"),
            base_dir: home_dir,
            credentials_dir: format!(".{name}"),
            formats: formats.into(),
            name,
        }
    }

    /// Sets the name of the environment variable that may hold the key.
    pub fn env_var(self, name: impl Into<String>) -> Self {
        Self { env_var: name.into(), ..self }
    }

    /// Sets the directory of the credentials file, relative to the home directory: `.lua-cli`.
    pub fn credentials_dir(self, name: impl Into<String>) -> Self {
        Self { base_dir: home_dir, credentials_dir: name.into(), ..self }
    }

    /// Sets the directory of the credentials file, relative to the platform's configuration directory:
    /// `$XDG_CONFIG_HOME` or `~/.config` on Unix, `~/Library/Application Support` on macOS, `%APPDATA%` on Windows.
    pub fn config_dir(self, name: impl Into<String>) -> Self {
        Self { base_dir: config_dir, credentials_dir: name.into(), ..self }
    }

    /// Sets the command under which `cli::AuthCommand` is mounted, as messages show it: `lua auth`.
    pub fn command(self, command: impl Into<String>) -> Self {
        Self { command: command.into(), ..self }
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

    /// Parses a key of this product, trimmed of white space. Error messages name `origin`, where the text came from.
    ///
    /// # Errors
    /// [`ClientErrorKind::Malformed`] if the text is not a key of this product. The message does not show it.
    pub fn parse(&self, text: &str, origin: &str) -> Result<Secret, ClientError> {
        let text = text.trim();
        let parsed = self.formats.parse(text);
        let key = parsed.map(|parsed| Secret::from(parsed.expose().to_owned()));
        key.map_err(|malformed| self.malformed(text, origin, malformed))
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
        Ok(CredentialsFile::in_dir((self.base_dir)()?.join(&self.credentials_dir)))
    }

    /// Finds the key in the environment variable, the credentials file, or `.env` in the working directory.
    ///
    /// The `.env` file comes last, so that a cloned repository cannot replace the user's own key. A blank variable
    /// counts as absent. The first source with a text decides: if the text is malformed, later sources are not tried.
    /// The environment of the process is not modified.
    ///
    /// # Errors
    /// - [`NotFound`](ClientErrorKind::NotFound) if no source has a key.
    /// - [`Malformed`](ClientErrorKind::Malformed) if the first text is not a key.
    /// - The errors of [`CredentialsFile::load`], and [`Io`](ClientErrorKind::Io) if the `.env` file cannot be read.
    ///   If a source with higher precedence has a text, these are returned as [`Warning`]s instead.
    pub fn resolve(&self, profile: &Profile) -> Result<ResolvedKey, ClientError> {
        let (mut mode, mut warnings) = (None, Vec::new());
        // A container without a home directory has no credentials file.
        let file = self.credentials().map_or(Ok(None), |file| file.load(profile));
        let file = file.map(|stored| {
            let StoredCredential { path, text, mode: file_mode, warning } = stored?;
            mode = file_mode;
            warnings.extend(warning);
            Some((KeySource::File { path, profile: profile.clone() }, text))
        });
        let mut candidates = Vec::new();
        for candidate in [Ok(self.env_var_candidate()), file, self.dotenv_candidate()] {
            match candidate {
                Ok(found) => candidates.extend(found),
                Err(error) if candidates.is_empty() => return Err(error),
                Err(error) => warnings.push(Warning::SourceSkipped { message: error.to_string() }),
            }
        }
        let mut candidates = candidates.into_iter();
        let Some((source, text)) = candidates.next() else { return Err(self.no_key(profile)) };
        let key = self.parse(&text, &source.to_string())?;
        Ok(ResolvedKey {
            hint: self.hint(&key),
            mode: mode.filter(|_| matches!(source, KeySource::File { .. })),
            shadowed: candidates.map(|(source, _)| source).collect(),
            key,
            source,
            warnings,
        })
    }

    pub(super) fn env_var_candidate(&self) -> Option<Candidate> {
        let name = self.env_var.clone();
        let text = Zeroizing::new(env::var_os(&name)?.to_string_lossy().into_owned());
        (!text.trim().is_empty()).then_some((KeySource::EnvVar { name }, text))
    }

    pub(super) fn dotenv_candidate(&self) -> Result<Option<Candidate>, ClientError> {
        let path = env::current_dir().unwrap_or_default().join(".env");
        // Python virtual environments are directories of this name, and reading a named pipe would block.
        if !fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            return Ok(None);
        }
        let mut bytes = Zeroizing::new(Vec::new());
        fs::File::open(&path)
            .and_then(|file| file.take(MAX_DOTENV_LEN).read_to_end(&mut bytes))
            .map_err(ClientError::io("read", &path))?;
        let name = self.env_var.clone();
        let text = dotenv_value(&name, &bytes).map(Zeroizing::new);
        Ok(text.map(|text| (KeySource::DotEnv { path, name }, text)))
    }

    /// Returns the error for a missing key, with the ways to provide one.
    pub(super) fn no_key(&self, profile: &Profile) -> ClientError {
        let option =
            if profile.is_default() { String::new() } else { format!(" --profile {profile}") };
        let file = self.credentials().map(|file| format!(" in {}", file.path().display()));
        let file = file.unwrap_or_default();
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
        let (prefix, expected) = (format.secret_prefix(), format.total_len());
        let advice = "verify that you copied the complete key";
        let problem = match malformed {
            _ if text.contains(char::is_whitespace) => {
                "it contains a space or a line break: remove it".to_owned()
            }
            _ if text.starts_with(['"', '\'']) => {
                "it begins with a quotation mark: remove the quotation marks".to_owned()
            }
            Malformed::Prefix | Malformed::Environment => {
                format!("{malformed}, keys begin with {prefix}: {advice}")
            }
            Malformed::Length => {
                let len = text.chars().count();
                format!("it has {len} characters, but keys have {expected}: {advice}")
            }
            other => format!("{other}: {advice}"),
        };
        let message =
            format!("the text from {origin} is not an API key of {} ({problem})", self.name);
        ClientError::new(ClientErrorKind::Malformed, message)
    }
}

/// A key, the source it came from, and the sources that it shadows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ResolvedKey {
    /// The key.
    pub key: Secret,
    /// The part of the key that may be shown.
    pub hint: String,
    /// The source of the key.
    pub source: KeySource,
    /// The sources that also have a key but are ignored, in order of precedence.
    pub shadowed: Vec<KeySource>,
    /// The permissions of the credentials file, if the key came from it and the platform has permissions.
    pub mode: Option<u32>,
    /// Problems to report to the user.
    pub warnings: Vec<Warning>,
}

impl ResolvedKey {
    /// Returns the hint, followed by eight stars whatever the key's length.
    pub fn masked(&self) -> String {
        format!("{}********", self.hint)
    }
}

/// A place where a key can be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySource {
    /// An environment variable.
    #[non_exhaustive]
    EnvVar {
        /// The name of the variable.
        name: String,
    },
    /// The credentials file.
    #[non_exhaustive]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The profile within the file.
        profile: Profile,
    },
    /// A line of the `.env` file in the working directory.
    #[non_exhaustive]
    DotEnv {
        /// The path of the file.
        path: PathBuf,
        /// The variable that the line sets.
        name: String,
    },
}

impl KeySource {
    /// Returns `variable`, `file` or `dotenv`, for machine-readable output.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::EnvVar { .. } => "variable",
            Self::File { .. } => "file",
            Self::DotEnv { .. } => "dotenv",
        }
    }

    /// Returns the path of the credentials file or of the `.env` file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::EnvVar { .. } => None,
            Self::File { path, .. } | Self::DotEnv { path, .. } => Some(path),
        }
    }
}

/// A source and the text that it has for the key.
type Candidate = (KeySource, Zeroizing<String>);

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EnvVar { name } => write!(f, "environment variable {name}"),
            Self::File { path, profile } if profile.is_default() => write!(f, "{}", path.display()),
            Self::File { path, profile } => write!(f, "{} (profile {profile})", path.display()),
            Self::DotEnv { path, name } => write!(f, "{name} in {}", path.display()),
        }
    }
}

fn home_dir() -> Result<PathBuf, ClientError> {
    absolute(env::home_dir(), "HOME")
}

fn config_dir() -> Result<PathBuf, ClientError> {
    let variable = |name| absolute(env::var_os(name).map(PathBuf::from), name);
    if cfg!(windows) {
        variable("APPDATA")
    } else if cfg!(target_os = "macos") {
        Ok(home_dir()?.join("Library/Application Support"))
    } else {
        variable("XDG_CONFIG_HOME").or_else(|_| Ok(home_dir()?.join(".config")))
    }
}

/// Rejects a relative path: the file, and so the user's identity, would depend on the working directory.
fn absolute(path: Option<PathBuf>, variable: &str) -> Result<PathBuf, ClientError> {
    path.filter(|path| path.is_absolute()).ok_or_else(|| {
        let message =
            format!("cannot locate the credentials file: set {variable} to an absolute path");
        ClientError::new(ClientErrorKind::Io, message)
    })
}

/// Returns the value that a `.env` file gives to a variable.
///
/// As in a shell, the last line that sets the variable wins, and a blank value counts as absent.
// Not the crate `dotenvy`: it expands `$` within values, and stops at the first line that it cannot parse,
// so an unrelated malformed line would hide the key.
fn dotenv_value(name: &str, file: &[u8]) -> Option<String> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let mut lines = file.rsplit(|&byte| byte == b'\n');
    let value = lines.find_map(|line| dotenv_line_value(name, std::str::from_utf8(line).ok()?))?;
    (!value.is_empty()).then(|| value.to_owned())
}

fn dotenv_line_value<'a>(name: &str, line: &'a str) -> Option<&'a str> {
    let line = line.trim();
    let exported = line.strip_prefix("export").filter(|rest| rest.starts_with(char::is_whitespace));
    let line = exported.map_or(line, str::trim_start);
    let value = line.strip_prefix(name)?.trim_start().strip_prefix('=')?.trim_start();
    let quoted = |quote| Some(value.strip_prefix(quote)?.split_once(quote)?.0.trim());
    let unquoted = || {
        let is_comment = |at: &usize| *at == 0 || value[..*at].ends_with(char::is_whitespace);
        value[..value.find('#').filter(is_comment).unwrap_or(value.len())].trim_end()
    };
    Some(quoted('"').or_else(|| quoted('\'')).unwrap_or_else(unquoted))
}

/// Only the first MiB of a `.env` file is read.
const MAX_DOTENV_LEN: u64 = 1 << 20;
