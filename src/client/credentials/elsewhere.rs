//! Where there are no Unix permissions. The file stands in the person's profile folder, and inherits that
//! only this person, and administrators, can reach it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::client::Error;

pub(super) struct Folder {
    path: PathBuf,
}

pub(super) struct Read {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) mode: Option<u32>,
    pub(super) was: Option<u32>,
}

/// Until it is dropped, other writers wait.
pub(super) struct Lock(#[allow(dead_code, reason = "held, not looked at")] File);

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Error> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => Ok(Some(Self { path: path.to_owned() })),
            Ok(_) => {
                let advice = "put a folder of your own there";
                Err(Error::refused(path, "is no folder but a link or a file", advice))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", path, error)),
        }
    }

    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(|error| Error::io("make", path, error))?;
        Self::open(path)?.ok_or_else(|| Error::io("open", path, io::ErrorKind::NotFound))
    }

    pub(super) fn lock(&self) -> Result<Lock, Error> {
        let path = self.path.join(".lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let locked = opened.and_then(|file| file.lock().map(|()| file));
        let lock = locked.map(Lock).map_err(|error| Error::io("lock", &path, error))?;
        self.sweep();
        Ok(lock)
    }

    /// Only under the lock, where no living writer has a temporary file.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".credentials.") && name.ends_with(".tmp") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Read>, Error> {
        let path = self.path.join(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => return Err(Error::refused(&path, "is a link or no file", "move it away")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("look at", &path, error)),
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
        let opened = File::open(&path);
        let read = opened.and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
        read.map_err(|error| Error::io("read", &path, error))?;
        if bytes.len() > MAX_BYTES {
            let advice = "move it away and store the key again";
            return Err(Error::refused(&path, "is too long for a file of keys", advice));
        }
        Ok(Some(Read { bytes, mode: None, was: None }))
    }

    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path.join(name);
        let temporary = self.temporary(name, bytes)?;
        fs::rename(&temporary, &path).map_err(|error| {
            let _ = fs::remove_file(&temporary);
            Error::io("replace", &path, error)
        })
    }

    pub(super) fn try_out(&self, name: &str) -> Result<(), Error> {
        let temporary = self.temporary(name, &[])?;
        fs::remove_file(&temporary).map_err(|error| Error::io("write to", &self.path, error))
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", &self.path.join(name), error))
            }
            _ => Ok(()),
        }
    }

    fn temporary(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Error> {
        let mut random = [0; 8];
        let made = crate::system::random::fill(&mut random);
        made.map_err(|error| Error::io("name a file in", &self.path, io::Error::other(error)))?;
        let path = self.path.join(format!(".{name}.{:016x}.tmp", u64::from_ne_bytes(random)));
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        match write() {
            Ok(()) => Ok(path),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(Error::io("write to", &self.path, error))
            }
        }
    }
}

const MAX_BYTES: usize = 64 * 1024;
