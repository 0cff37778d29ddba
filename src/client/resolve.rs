use std::{
    env, fmt, fs,
    io::Read,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    app::App,
    credentials::{CredentialsFile, Profile, StoredCredential},
    error::{ClientError, Warning},
};
use crate::secret::Secret;

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
    /// Returns the hint and eight stars. The number of stars does not depend on the key's length.
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

    /// Returns the path of the file, if the source is a file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::EnvVar { .. } => None,
            Self::File { path, .. } | Self::DotEnv { path, .. } => Some(path),
        }
    }
}

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

impl App {
    /// Finds the key in the environment variable, the credentials file, or the `.env` file of the working
    /// directory, in this order.
    ///
    /// The `.env` file comes last, so that a cloned repository cannot replace the user's own key. A blank
    /// variable counts as absent. The first source with a text decides: if the text is malformed, later
    /// sources are not tried. The environment of the process is not modified.
    ///
    /// # Errors
    /// - [`NotFound`](super::ClientErrorKind::NotFound) if no source has a key.
    /// - [`Malformed`](super::ClientErrorKind::Malformed) if the first text is not a key.
    /// - The errors of [`CredentialsFile::load`](super::CredentialsFile::load), and
    ///   [`Io`](super::ClientErrorKind::Io) if the `.env` file cannot be read. If a source with higher
    ///   precedence has a text, these are returned as [`Warning`]s instead.
    ///
    /// # Examples
    /// ```no_run
    /// # let app = keyward::client::App::new("lua", keyward::secret::KeyFormat::builder("lk").build()?);
    /// let resolved = app.resolve(&Default::default())?;
    /// println!("{} from {}", resolved.masked(), resolved.source);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resolve(&self, profile: &Profile) -> Result<ResolvedKey, ClientError> {
        let mut candidates = Vec::new();
        let mut warnings = Vec::new();
        candidates.extend(self.env_var_candidate());
        let mut mode = None;
        match self.file_candidate(profile) {
            Ok(None) => {}
            Ok(Some(stored)) => {
                let path = stored.path.clone();
                warnings.extend(stored.warning);
                mode = stored.mode;
                let source = KeySource::File { path, profile: profile.clone() };
                candidates.push((source, stored.text));
            }
            Err(error) if candidates.is_empty() => return Err(error),
            Err(error) => warnings.push(Warning::SourceSkipped { message: error.to_string() }),
        }
        match self.dotenv_candidate() {
            Ok(found) => candidates.extend(found),
            Err(error) if candidates.is_empty() => return Err(error),
            Err(error) => warnings.push(Warning::SourceSkipped { message: error.to_string() }),
        }
        let mut candidates = candidates.into_iter();
        let Some((source, text)) = candidates.next() else {
            let file = self.credentials().ok();
            return Err(self.no_key(profile, file.as_ref().map(CredentialsFile::path)));
        };
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

    pub(super) fn env_var_candidate(&self) -> Option<(KeySource, Zeroizing<String>)> {
        let name = self.env_var_name();
        let text = Zeroizing::new(env::var_os(name)?.to_string_lossy().into_owned());
        let source = KeySource::EnvVar { name: name.to_owned() };
        (!text.trim().is_empty()).then_some((source, text))
    }

    fn file_candidate(&self, profile: &Profile) -> Result<Option<StoredCredential>, ClientError> {
        match self.credentials() {
            Ok(file) => file.load(profile),
            // A container without a home directory has no credentials file.
            Err(_) => Ok(None),
        }
    }

    pub(super) fn dotenv_candidate(
        &self,
    ) -> Result<Option<(KeySource, Zeroizing<String>)>, ClientError> {
        let path =
            env::current_dir().map_or_else(|_| PathBuf::from(".env"), |dir| dir.join(".env"));
        // Python virtual environments are directories of this name, and reading a named pipe would block.
        if !fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            return Ok(None);
        }
        let mut bytes = Zeroizing::new(Vec::new());
        let file = fs::File::open(&path).map_err(|error| ClientError::io("read", &path, error))?;
        let read = file.take(MAX_DOTENV_LEN).read_to_end(&mut bytes);
        read.map_err(|error| ClientError::io("read", &path, error))?;
        let name = self.env_var_name().to_owned();
        let text = dotenv_value(&name, &bytes).map(Zeroizing::new);
        Ok(text.map(|text| (KeySource::DotEnv { path, name }, text)))
    }
}

/// Returns the value that a `.env` file gives to a variable.
///
/// As in a shell, the last line that sets the variable wins, and a blank value counts as absent.
// Not the crate `dotenvy`: it expands `$` within values, and stops at the first line that it cannot parse,
// so an unrelated malformed line would hide the key.
fn dotenv_value(name: &str, file: &[u8]) -> Option<String> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let lines = file.split(|&byte| byte == b'\n');
    let value = lines
        .filter_map(|line| dotenv_line_value(name, std::str::from_utf8(line).ok()?))
        .next_back()?;
    (!value.is_empty()).then(|| value.to_owned())
}

fn dotenv_line_value<'a>(name: &str, line: &'a str) -> Option<&'a str> {
    let line = line.trim();
    let line = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with(char::is_whitespace) => rest.trim_start(),
        _ => line,
    };
    let value = line.strip_prefix(name)?.trim_start().strip_prefix('=')?.trim_start();
    for quote in ['"', '\''] {
        if let Some((inside, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote))
        {
            return Some(inside.trim());
        }
    }
    let comment =
        value.find('#').filter(|&at| at == 0 || value[..at].ends_with(char::is_whitespace));
    Some(value[..comment.unwrap_or(value.len())].trim_end())
}

/// Only the first MiB of a `.env` file is read.
const MAX_DOTENV_LEN: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::dotenv_value;

    #[test]
    fn dotenv_lines_are_read_like_a_shell() {
        for (file, value) in [
            ("KEY=lk_1", Some("lk_1")),
            ("KEY=lk_1\n", Some("lk_1")),
            ("KEY=lk_1\r\nOTHER=2\r\n", Some("lk_1")),
            ("\u{feff}KEY=lk_1", Some("lk_1")),
            ("export KEY=lk_1", Some("lk_1")),
            ("export\tKEY = lk_1 ", Some("lk_1")),
            ("KEY=\"lk_1\" # mine", Some("lk_1")),
            ("KEY=' lk_1 '", Some("lk_1")),
            ("KEY=lk_1 # mine", Some("lk_1")),
            ("KEY=lk_1#2", Some("lk_1#2")),
            ("KEY=l$HOME", Some("l$HOME")),
            ("KEY=\"unclosed", Some("\"unclosed")),
            ("KEY=lk_1\nKEY=lk_2", Some("lk_2")),
            ("= nonsense ${\n'\nKEY=lk_1\n\"", Some("lk_1")),
            ("KEY=lk_1\nKEY=", None),
            ("KEY=", None),
            ("KEY=  ", None),
            ("KEY=\"\"", None),
            ("KEY= # none", None),
            ("#KEY=lk_1", None),
            ("MYKEY=lk_1", None),
            ("KEYS=lk_1", None),
            ("exportKEY=lk_1", None),
            ("KEY", None),
            ("", None),
        ] {
            assert_eq!(dotenv_value("KEY", file.as_bytes()).as_deref(), value, "{file:?}");
        }
        assert_eq!(dotenv_value("KEY", b"A=\xff\xfe\nKEY=lk_1\n").as_deref(), Some("lk_1"));
    }
}
