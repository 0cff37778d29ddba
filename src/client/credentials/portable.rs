//! Platforms without Unix permissions. The file inherits the access rules of the user's profile directory:
//! only the user and administrators can access it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::client::error::ClientError;

pub(super) struct PrivateDir {
    path: PathBuf,
}

pub(super) struct FileContents {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) mode: Option<u32>,
    pub(super) unsafe_mode: Option<u32>,
}

/// Blocks other writers until it is dropped.
pub(super) struct DirLock(#[allow(dead_code, reason = "holds the lock")] File);

impl PrivateDir {
    pub(super) fn open(path: &Path) -> Result<Option<Self>, ClientError> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(Some(Self { path: path.to_owned() })),
            Ok(_) => {
                let advice = "replace it with a directory of your own";
                Err(ClientError::unsafe_path(
                    path,
                    "is not a directory but a link or a file",
                    advice,
                ))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ClientError::io("open", path, error)),
        }
    }

    pub(super) fn create(path: &Path) -> Result<Self, ClientError> {
        fs::create_dir_all(path).map_err(|error| ClientError::io("create", path, error))?;
        Self::open(path)?.ok_or_else(|| ClientError::io("open", path, io::ErrorKind::NotFound))
    }

    pub(super) fn lock(&self) -> Result<DirLock, ClientError> {
        let path = self.path.join(".lock");
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let locked = opened.and_then(|file| file.lock().map(|()| file));
        let lock = locked.map(DirLock).map_err(|error| ClientError::io("lock", &path, error))?;
        self.remove_stale_temporaries();
        Ok(lock)
    }

    /// Removes temporary files of killed writers. Call it only under the lock: no other writer has one then.
    fn remove_stale_temporaries(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".credentials.") && name.ends_with(".tmp") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<FileContents>, ClientError> {
        let path = self.path.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => {
                return Err(ClientError::unsafe_path(
                    &path,
                    "is not a regular file",
                    "move it away",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ClientError::io("inspect", &path, error)),
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_LEN + 1));
        let opened = File::open(&path);
        let read =
            opened.and_then(|file| file.take(MAX_FILE_LEN as u64 + 1).read_to_end(&mut bytes));
        read.map_err(|error| ClientError::io("read", &path, error))?;
        if bytes.len() > MAX_FILE_LEN {
            let advice = "move it away and store the key again";
            return Err(ClientError::unsafe_path(
                &path,
                "is too long for a credentials file",
                advice,
            ));
        }
        Ok(Some(FileContents { bytes, mode: None, unsafe_mode: None }))
    }

    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), ClientError> {
        let path = self.path.join(name);
        let temporary = self.write_temporary(name, bytes)?;
        fs::rename(&temporary, &path).map_err(|error| {
            let _ = fs::remove_file(&temporary);
            ClientError::io("replace", &path, error)
        })
    }

    pub(super) fn check_writable(&self, name: &str) -> Result<(), ClientError> {
        let temporary = self.write_temporary(name, &[])?;
        fs::remove_file(&temporary).map_err(|error| ClientError::io("write to", &self.path, error))
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), ClientError> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ClientError::io("remove", &self.path.join(name), error))
            }
            _ => Ok(()),
        }
    }

    fn write_temporary(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, ClientError> {
        let mut random = [0; 8];
        let filled = crate::system::fill_random(&mut random);
        filled.map_err(|error| {
            ClientError::io("create a file name in", &self.path, io::Error::other(error))
        })?;
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
                Err(ClientError::io("write to", &self.path, error))
            }
        }
    }
}

const MAX_FILE_LEN: usize = 64 * 1024;
