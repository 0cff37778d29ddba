mod profile;
mod text;

#[cfg(unix)]
#[path = "unix.rs"]
mod folder;
#[cfg(not(unix))]
#[path = "elsewhere.rs"]
mod folder;

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub use self::profile::{InvalidProfile, Profile};
use self::{
    folder::{Folder, Read},
    text::Text,
};
use super::{Error, Warning};
use crate::secret::Secret;

/// The file in which a person's keys are kept, one for each profile.
///
/// What is promised of it stands at [the module](super). The file is text that can be read and written by
/// hand: lines `api_key = …` below lines `[profile]`; a key that stands alone is the default profile's.
/// Lines of others are kept.
///
/// # Examples
/// ```
/// use keyward::{KeyFormat, client::{CredentialsFile, Profile}};
///
/// let home = tempfile::tempdir()?;
/// let file = CredentialsFile::in_folder(home.path().join(".lua-cli"));
/// let key = KeyFormat::builder("lk").build()?.generate()?;
/// file.save(&Profile::default(), &key)?;
///
/// let stored = file.load(&Profile::default())?.expect("it was saved");
/// assert_eq!(stored.text.as_str(), key.expose());
/// assert!(file.remove(&Profile::default())?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CredentialsFile {
    folder: PathBuf,
    path: PathBuf,
}

/// What stands in the credentials file for a profile, as it stands there.
#[derive(Clone)]
#[non_exhaustive]
pub struct Stored {
    /// Which file it is.
    pub path: PathBuf,
    /// The text, which may or may not be a key. It is wiped when dropped.
    pub text: Zeroizing<String>,
    /// The permissions of the file, where the platform has them.
    pub mode: Option<u32>,
    /// That others could read the file until now.
    pub warning: Option<Warning>,
}

impl CredentialsFile {
    /// The file `credentials` in a folder, which need not exist yet; its parent should.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        Self { path: folder.join(NAME), folder }
    }

    /// Where it is, or will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is kept for a profile, if anything is.
    ///
    /// A file that others can read is closed to them first.
    ///
    /// # Errors
    /// [`Unsafe`](super::ErrorKind::Unsafe) if the file or its folder is a symbolic link, belongs to somebody
    /// else, or can be written to by others; [`Io`](super::ErrorKind::Io) if it cannot be read.
    pub fn load(&self, profile: &Profile) -> Result<Option<Stored>, Error> {
        let Some(folder) = Folder::open(&self.folder)? else { return Ok(None) };
        let Some(read) = folder.read(NAME)? else { return Ok(None) };
        let warning = self.warning(&read);
        let text = Text::parse(&read.bytes).get(profile);
        Ok(text.map(|text| Stored { path: self.path.clone(), text, mode: read.mode, warning }))
    }

    /// Keeps a key for a profile, and says if others could read the file until now.
    ///
    /// # Errors
    /// As [`load`](Self::load); the file is then what it was before.
    pub fn save(&self, profile: &Profile, key: &Secret) -> Result<Option<Warning>, Error> {
        let folder = Folder::create(&self.folder)?;
        let _lock = folder.lock()?;
        let read = folder.read(NAME)?;
        let old = read.as_ref().map_or(&[][..], |read| &read.bytes);
        folder.replace(NAME, Text::parse(old).set(profile, key).as_bytes())?;
        Ok(read.and_then(|read| self.warning(&read)))
    }

    /// Drops the key of a profile, and the whole file if it has no other; says whether there was one.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn remove(&self, profile: &Profile) -> Result<bool, Error> {
        let Some(folder) = Folder::open(&self.folder)? else { return Ok(false) };
        let _lock = folder.lock()?;
        let Some(read) = folder.read(NAME)? else { return Ok(false) };
        let text = Text::parse(&read.bytes);
        let had = text.get(profile).is_some();
        match text.without(profile) {
            Some(rest) if had => folder.replace(NAME, rest.as_bytes())?,
            Some(_) => {}
            None => folder.remove(NAME)?,
        }
        Ok(had)
    }

    /// Whether a key could be saved now; makes the folder. For asking before a key is made that then
    /// could not be kept.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn prepare(&self) -> Result<(), Error> {
        let folder = Folder::create(&self.folder)?;
        let _lock = folder.lock()?;
        folder.read(NAME)?;
        folder.try_out(NAME)
    }

    fn warning(&self, read: &Read) -> Option<Warning> {
        read.was.map(|mode| Warning::WasReadable { path: self.path.clone(), mode })
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut stored = f.debug_struct("Stored");
        stored.field("path", &self.path).field("mode", &self.mode).field("warning", &self.warning);
        stored.finish_non_exhaustive()
    }
}

const NAME: &str = "credentials";
