use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use zeroize::Zeroizing;

use super::{
    ClientError, Warning,
    private_dir::{FILE_NAME, PrivateDir},
};
use crate::secret::Secret;

/// The file that stores the user's keys, one per profile.
///
/// [The module](super) lists its guarantees. The file is plain text and may be edited by hand: lines `api_key = …`
/// below a line `[profile]`. A file that consists of only a key is the default profile's key. Other lines are kept.
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

    /// Loads the entry of a profile. Returns `None` if the file or the entry does not exist. If other users can read
    /// the file, its mode is first set to 0600.
    ///
    /// # Errors
    /// [`Unsafe`](super::ClientErrorKind::Unsafe) if the file or its directory is a symbolic link, belongs to
    /// another user, or is writable by others; [`Io`](super::ClientErrorKind::Io) if it cannot be read.
    pub fn load(&self, profile: &Profile) -> Result<Option<StoredCredential>, ClientError> {
        let Some(dir) = PrivateDir::open(&self.dir)? else { return Ok(None) };
        let Some((bytes, mode, warning)) = dir.read()? else { return Ok(None) };
        let Some(text) = CredentialsText::parse(&bytes).get(profile) else { return Ok(None) };
        let (path, text) = (self.path.clone(), Zeroizing::new(text.to_owned()));
        Ok(Some(StoredCredential { path, text, mode, warning }))
    }

    /// Stores a key for a profile. Returns a warning if other users could read the file until now.
    ///
    /// # Errors
    /// The same as [`load`](Self::load). The file is then unchanged.
    pub fn save(&self, profile: &Profile, key: &Secret) -> Result<Option<Warning>, ClientError> {
        let dir = PrivateDir::create(&self.dir)?;
        let _lock = dir.lock()?;
        let (old, _, warning) = dir.read()?.unwrap_or_default();
        dir.replace(CredentialsText::parse(&old).set(profile, key).as_bytes())?;
        Ok(warning)
    }

    /// Removes the key of a profile, and the file if no key is left. Returns whether the profile had a key.
    ///
    /// # Errors
    /// The same as [`load`](Self::load).
    pub fn remove(&self, profile: &Profile) -> Result<bool, ClientError> {
        let Some(dir) = PrivateDir::open(&self.dir)? else { return Ok(false) };
        let _lock = dir.lock()?;
        let Some((bytes, ..)) = dir.read()? else { return Ok(false) };
        let text = CredentialsText::parse(&bytes);
        let existed = text.get(profile).is_some();
        match text.without(profile) {
            Some(rest) if existed => dir.replace(rest.as_bytes())?,
            Some(_) => {}
            None => dir.remove()?,
        }
        Ok(existed)
    }

    /// Checks that a key can be saved, and creates the directory if it does not exist. Call it before requesting a new
    /// key that would be lost if it could not be stored.
    ///
    /// # Errors
    /// The same as [`save`](Self::save).
    pub fn check_writable(&self) -> Result<(), ClientError> {
        let dir = PrivateDir::create(&self.dir)?;
        let _lock = dir.lock()?;
        dir.read()?;
        dir.check_writable()
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

/// The parsed lines of the credentials file.
struct CredentialsText<'a>(Vec<Line<'a>>);

struct Line<'a> {
    text: &'a [u8],
    profile: &'a str,
    is_header: bool,
    key: Option<&'a str>,
}

impl<'a> CredentialsText<'a> {
    fn parse(bytes: &'a [u8]) -> Self {
        let mut header = None;
        let lines = bytes.split_inclusive(|&byte| byte == b'\n').map(|text| {
            let line = std::str::from_utf8(text).unwrap_or_default().trim();
            let name =
                line.strip_prefix('[').and_then(|line| line.strip_suffix(']')).map(str::trim);
            header = name.or(header);
            let key = if name.is_none() { key_value(line, header.is_some()) } else { None };
            let profile = header.unwrap_or(DEFAULT_PROFILE);
            Line { text, profile, is_header: name.is_some(), key }
        });
        Self(lines.collect())
    }

    fn get(&self, profile: &Profile) -> Option<&'a str> {
        let lines = self.0.iter().filter(|line| line.profile == profile.as_str());
        lines.rev().find_map(|line| line.key)
    }

    /// Returns the whole text with the key of one profile replaced.
    fn set(&self, profile: &Profile, key: &Secret) -> Zeroizing<String> {
        let line = Zeroizing::new(format!("api_key = {}\n", key.expose()));
        let mut new = self.new_text(line.len() + profile.as_str().len());
        let mut written = false;
        for old in &self.0 {
            let matches = old.profile == profile.as_str();
            if !(matches && old.key.is_some()) {
                push_line(&mut new, old.text);
            }
            if matches && old.is_header && !written {
                push_line(&mut new, line.as_bytes());
                written = true;
            }
        }
        if !written {
            push_line(&mut new, format!("[{profile}]\n").as_bytes());
            push_line(&mut new, line.as_bytes());
        }
        new
    }

    /// Returns the text without a profile, or `None` if no other profile has a key.
    fn without(&self, profile: &Profile) -> Option<Zeroizing<String>> {
        let kept = || self.0.iter().filter(|line| line.profile != profile.as_str());
        kept().any(|line| line.key.is_some()).then(|| {
            let mut new = self.new_text(0);
            kept().for_each(|line| push_line(&mut new, line.text));
            new
        })
    }

    /// Reserves the full capacity up front: a string that reallocates leaves copies of keys in freed memory.
    fn new_text(&self, extra: usize) -> Zeroizing<String> {
        // A byte that is not UTF-8 becomes a character of three bytes. The 8 bytes are for what `set` adds.
        let len = self.0.iter().map(|line| 3 * line.text.len()).sum::<usize>();
        Zeroizing::new(String::with_capacity(len + extra + 8))
    }
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

/// Appends a line; a text that does not end in a line break gets one first.
fn push_line(text: &mut String, line: &[u8]) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&String::from_utf8_lossy(line));
}

const DEFAULT_PROFILE: &str = "default";
const MAX_PROFILE_LEN: usize = 64;
