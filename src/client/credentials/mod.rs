#[cfg(not(unix))]
mod portable;
#[cfg(unix)]
mod unix;

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use zeroize::Zeroizing;

#[cfg(not(unix))]
use self::portable::{FileContents, PrivateDir};
#[cfg(unix)]
use self::unix::{FileContents, PrivateDir};
use super::error::{ClientError, Warning};
use crate::secret::Secret;

/// The file that stores the user's keys, one per profile.
///
/// [The module](super) lists its guarantees. The file is plain text and may be edited by hand: lines
/// `api_key = …` below a line `[profile]`. A file that consists of only a key is the default profile's key.
/// Other lines are kept.
///
/// # Examples
/// ```
/// use keyward::{KeyFormat, client::{CredentialsFile, Profile}};
///
/// let home = tempfile::tempdir()?;
/// let file = CredentialsFile::in_dir(home.path().join(".lua-cli"));
/// let key = KeyFormat::builder("lk").build()?.generate()?;
/// file.save(&Profile::default(), &key)?;
///
/// let stored = file.load(&Profile::default())?.expect("the key was saved");
/// assert_eq!(stored.text.as_str(), key.expose());
/// assert!(file.remove(&Profile::default())?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CredentialsFile {
    dir: PathBuf,
    path: PathBuf,
}

/// The entry of a profile in the credentials file.
#[derive(Clone)]
#[non_exhaustive]
pub struct StoredCredential {
    /// The path of the file.
    pub path: PathBuf,
    /// The stored text. It may be malformed. It is zeroized on drop.
    pub text: Zeroizing<String>,
    /// The permissions of the file, if the platform has them.
    pub mode: Option<u32>,
    /// Set if other users could read the file until now.
    pub warning: Option<Warning>,
}

impl CredentialsFile {
    /// Returns the file `credentials` in a directory. Neither needs to exist yet.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self { path: dir.join(FILE_NAME), dir }
    }

    /// Returns the path of the file. The file may not exist.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Loads the entry of a profile. Returns `None` if the file or the entry does not exist.
    ///
    /// If other users can read the file, its mode is first set to 0600.
    ///
    /// # Errors
    /// [`Unsafe`](super::ClientErrorKind::Unsafe) if the file or its directory is a symbolic link, belongs to
    /// another user, or is writable by others; [`Io`](super::ClientErrorKind::Io) if it cannot be read.
    pub fn load(&self, profile: &Profile) -> Result<Option<StoredCredential>, ClientError> {
        let Some(dir) = PrivateDir::open(&self.dir)? else { return Ok(None) };
        let Some(file) = dir.read(FILE_NAME)? else { return Ok(None) };
        let warning = self.warning(&file);
        let text = CredentialsText::parse(&file.bytes).get(profile);
        let path = self.path.clone();
        Ok(text.map(|text| StoredCredential { path, text, mode: file.mode, warning }))
    }

    /// Stores a key for a profile. Returns a warning if other users could read the file until now.
    ///
    /// # Errors
    /// The same as [`load`](Self::load). The file is then unchanged.
    pub fn save(&self, profile: &Profile, key: &Secret) -> Result<Option<Warning>, ClientError> {
        let dir = PrivateDir::create(&self.dir)?;
        let _lock = dir.lock()?;
        let file = dir.read(FILE_NAME)?;
        let old = file.as_ref().map_or(&[][..], |file| &file.bytes);
        dir.replace(FILE_NAME, CredentialsText::parse(old).set(profile, key).as_bytes())?;
        Ok(file.and_then(|file| self.warning(&file)))
    }

    /// Removes the key of a profile, and the file if no other profile has a key. Returns whether the profile
    /// had a key.
    ///
    /// # Errors
    /// The same as [`load`](Self::load).
    pub fn remove(&self, profile: &Profile) -> Result<bool, ClientError> {
        let Some(dir) = PrivateDir::open(&self.dir)? else { return Ok(false) };
        let _lock = dir.lock()?;
        let Some(file) = dir.read(FILE_NAME)? else { return Ok(false) };
        let text = CredentialsText::parse(&file.bytes);
        let existed = text.get(profile).is_some();
        match text.without(profile) {
            Some(rest) if existed => dir.replace(FILE_NAME, rest.as_bytes())?,
            Some(_) => {}
            None => dir.remove(FILE_NAME)?,
        }
        Ok(existed)
    }

    /// Checks that a key can be saved, and creates the directory if it does not exist.
    ///
    /// Call it before requesting a new key that would be lost if it could not be stored.
    ///
    /// # Errors
    /// The same as [`save`](Self::save).
    pub fn check_writable(&self) -> Result<(), ClientError> {
        let dir = PrivateDir::create(&self.dir)?;
        let _lock = dir.lock()?;
        dir.read(FILE_NAME)?;
        dir.check_writable(FILE_NAME)
    }

    fn warning(&self, file: &FileContents) -> Option<Warning> {
        file.unsafe_mode.map(|mode| Warning::WasReadable { path: self.path.clone(), mode })
    }
}

impl fmt::Debug for StoredCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredCredential")
            .field("path", &self.path)
            .field("mode", &self.mode)
            .field("warning", &self.warning)
            .finish_non_exhaustive()
    }
}

/// The name of an entry in the credentials file. Defaults to `default`.
///
/// # Examples
/// ```
/// use keyward::client::Profile;
///
/// let work: Profile = "work".parse()?;
/// assert!(!work.is_default() && Profile::default().is_default());
/// assert!("a]b".parse::<Profile>().is_err());
/// # Ok::<(), keyward::client::InvalidProfile>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Profile(String);

/// The text is not a valid profile name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid profile name: use 1 to {MAX_PROFILE_LEN} letters, digits, `-`, `_` and `.`")]
#[non_exhaustive]
pub struct InvalidProfile;

impl Profile {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether this is the profile `default`.
    pub fn is_default(&self) -> bool {
        self.0 == DEFAULT_PROFILE
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self(DEFAULT_PROFILE.to_owned())
    }
}

impl FromStr for Profile {
    type Err = InvalidProfile;

    fn from_str(name: &str) -> Result<Self, InvalidProfile> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let valid = (1..=MAX_PROFILE_LEN).contains(&name.len()) && name.bytes().all(allowed);
        valid.then(|| Self(name.to_owned())).ok_or(InvalidProfile)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The parsed text of the credentials file: each line with its profile.
struct CredentialsText<'a> {
    lines: Vec<Line<'a>>,
}

struct Line<'a> {
    text: &'a [u8],
    profile: &'a str,
    kind: LineKind<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LineKind<'a> {
    Header,
    Key(&'a str),
    Other,
}

impl<'a> CredentialsText<'a> {
    fn parse(bytes: &'a [u8]) -> Self {
        let mut profile = DEFAULT_PROFILE;
        let mut seen_header = false;
        let mut lines = Vec::new();
        for text in bytes.split_inclusive(|&byte| byte == b'\n') {
            let line = std::str::from_utf8(text).unwrap_or_default().trim();
            let kind = match header_name(line) {
                Some(name) => {
                    (profile, seen_header) = (name, true);
                    LineKind::Header
                }
                None => key_value(line, seen_header).map_or(LineKind::Other, LineKind::Key),
            };
            lines.push(Line { text, profile, kind });
        }
        Self { lines }
    }

    fn get(&self, profile: &Profile) -> Option<Zeroizing<String>> {
        let lines = self.lines.iter().filter(|line| line.profile == profile.as_str());
        lines.rev().find_map(|line| match line.kind {
            LineKind::Key(text) => Some(Zeroizing::new(text.to_owned())),
            LineKind::Header | LineKind::Other => None,
        })
    }

    /// Returns the whole text with the key of one profile replaced.
    fn set(&self, profile: &Profile, key: &Secret) -> Zeroizing<String> {
        let line = Zeroizing::new(format!("api_key = {}\n", key.expose()));
        let mut new =
            TextWriter::with_capacity_for(&self.lines, line.len() + profile.as_str().len());
        let mut written = false;
        for old in &self.lines {
            let matches = old.profile == profile.as_str();
            if !(matches && matches!(old.kind, LineKind::Key(_))) {
                new.line(old.text);
            }
            if matches && old.kind == LineKind::Header && !written {
                new.line(line.as_bytes());
                written = true;
            }
        }
        if !written {
            new.line(format!("[{profile}]\n").as_bytes());
            new.line(line.as_bytes());
        }
        new.0
    }

    /// Returns the text without a profile, or `None` if no other profile has a key.
    fn without(&self, profile: &Profile) -> Option<Zeroizing<String>> {
        let kept = || self.lines.iter().filter(|line| line.profile != profile.as_str());
        if !kept().any(|line| matches!(line.kind, LineKind::Key(_))) {
            return None;
        }
        let mut new = TextWriter::with_capacity_for(&self.lines, 0);
        kept().for_each(|line| new.line(line.text));
        Some(new.0)
    }
}

fn header_name(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.strip_suffix(']').map(str::trim)
}

fn key_value(line: &str, seen_header: bool) -> Option<&str> {
    if line.is_empty() || line.starts_with(['#', ';']) {
        return None;
    }
    let value = match line.split_once('=') {
        Some((name, value)) => (name.trim() == "api_key").then(|| value.trim()),
        // The file may consist of only a key, pasted by hand or written by another program.
        None => (!seen_header).then_some(line),
    };
    value.filter(|value| !value.is_empty())
}

/// Reserves its full capacity up front: a string that reallocates leaves copies of keys in freed memory.
struct TextWriter(Zeroizing<String>);

impl TextWriter {
    fn with_capacity_for(lines: &[Line<'_>], extra: usize) -> Self {
        // Each byte that is not UTF-8 is replaced by a character of three bytes. The 8 bytes are for the
        // brackets and line breaks that `set` adds.
        let len = lines.iter().map(|line| 3 * line.text.len()).sum::<usize>();
        Self(Zeroizing::new(String::with_capacity(len + extra + 8)))
    }

    fn line(&mut self, text: &[u8]) {
        if !self.0.is_empty() && !self.0.ends_with('\n') {
            self.0.push('\n');
        }
        self.0.push_str(&String::from_utf8_lossy(text));
    }
}

const FILE_NAME: &str = "credentials";
const DEFAULT_PROFILE: &str = "default";
const MAX_PROFILE_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str) -> Profile {
        name.parse().unwrap()
    }

    fn get(text: &str, name: &str) -> Option<String> {
        CredentialsText::parse(text.as_bytes()).get(&profile(name)).map(|text| text.to_string())
    }

    #[test]
    fn a_key_belongs_to_the_profile_header_above_it() {
        let text = "# mine\n[default]\napi_key = lk_1\n\n[work]\nother=3\n api_key=lk_2 \r\n[empty]\napi_key=\n";
        assert_eq!(get(text, "default").as_deref(), Some("lk_1"));
        assert_eq!(get(text, "work").as_deref(), Some("lk_2"));
        assert_eq!(get(text, "empty"), None);
        assert_eq!(get(text, "absent"), None);
        assert_eq!(get("lk_3\n", "default").as_deref(), Some("lk_3"));
        assert_eq!(get("lk_3", "work"), None);
        assert_eq!(get("", "default"), None);
    }

    #[test]
    fn setting_a_key_keeps_all_other_lines() {
        let set = |text: &str, name: &str| {
            CredentialsText::parse(text.as_bytes())
                .set(&profile(name), &Secret::from("NEW".to_owned()))
                .to_string()
        };
        assert_eq!(set("", "default"), "[default]\napi_key = NEW\n");
        assert_eq!(set("old", "default"), "[default]\napi_key = NEW\n");
        assert_eq!(set("old", "work"), "old\n[work]\napi_key = NEW\n");
        assert_eq!(
            set("# a\n[default]\napi_key=old\nb=1\n[work]\napi_key = kept", "default"),
            "# a\n[default]\napi_key = NEW\nb=1\n[work]\napi_key = kept"
        );
        assert_eq!(
            set("[a]\napi_key=1\n[b]\n[a]\napi_key=2\n", "a"),
            "[a]\napi_key = NEW\n[b]\n[a]\n"
        );
    }

    #[test]
    fn removing_a_profile_keeps_the_others() {
        let without = |text: &str, name: &str| {
            CredentialsText::parse(text.as_bytes())
                .without(&profile(name))
                .map(|text| text.to_string())
        };
        let two = "[default]\napi_key = 1\n[work]\napi_key = 2\n";
        assert_eq!(without(two, "default").as_deref(), Some("[work]\napi_key = 2\n"));
        assert_eq!(without("old\n[work]\napi_key = 2\n", "work").as_deref(), Some("old\n"));
        assert_eq!(without("# only this\n[default]\napi_key = 1\n", "default"), None);
    }
}
