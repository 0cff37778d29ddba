use std::{
    fs::{DirBuilder, File},
    io::{Read as _, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RawMode, Stat},
    io::Errno,
};
use zeroize::Zeroizing;

use crate::client::error::ClientError;

/// A directory that only the current user can write to.
///
/// It is opened once, and all operations are relative to that handle: replacing the path afterwards has no
/// effect on them.
pub(super) struct PrivateDir {
    fd: OwnedFd,
    path: PathBuf,
}

/// The contents and permissions of a file.
pub(super) struct FileContents {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) mode: Option<u32>,
    /// The previous permissions, if others could read the file until now.
    pub(super) unsafe_mode: Option<u32>,
}

/// Blocks other writers until it is dropped.
pub(super) struct DirLock(#[allow(dead_code, reason = "holds the lock")] Option<OwnedFd>);

impl PrivateDir {
    /// Opens a directory. Returns `None` if it does not exist.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, ClientError> {
        let (parent_path, name) = split(path)?;
        let parent = match open_parent(parent_path) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(ClientError::io("open", parent_path, error)),
        };
        let fd =
            match rustix::fs::openat(&parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => {
                    let advice = "replace it with a directory of your own";
                    return Err(ClientError::unsafe_path(path, NOT_A_DIRECTORY, advice));
                }
                Err(error) => return Err(ClientError::io("open", path, error)),
            };
        check_parent(parent_path, &stat(&parent, parent_path)?)?;
        check_dir(path, &stat(&fd, path)?)?;
        Ok(Some(Self { fd, path: path.to_owned() }))
    }

    /// Opens a directory, and creates it with mode 0700 if it does not exist.
    pub(super) fn create(path: &Path) -> Result<Self, ClientError> {
        if let Some(dir) = Self::open(path)? {
            return Ok(dir);
        }
        let (parent_path, name) = split(path)?;
        let created = DirBuilder::new().recursive(true).mode(0o700).create(parent_path);
        created.map_err(|error| ClientError::io("create", parent_path, error))?;
        let parent = open_parent(parent_path)
            .map_err(|error| ClientError::io("open", parent_path, error))?;
        check_parent(parent_path, &stat(&parent, parent_path)?)?;
        let created = match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) => sync(&parent, parent_path).map(|()| true)?,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(ClientError::io("create", path, error)),
        };
        let missing = || ClientError::io("open", path, Errno::NOENT);
        let dir = Self::open(path)?.ok_or_else(missing)?;
        if created {
            // The umask may have removed the owner's permissions.
            let changed = rustix::fs::fchmod(&dir.fd, Mode::RWXU);
            changed.map_err(|error| ClientError::io("create", path, error))?;
        }
        Ok(dir)
    }

    /// Waits for the exclusive lock on the directory, then removes temporary files of killed writers.
    pub(super) fn lock(&self) -> Result<DirLock, ClientError> {
        let failed = |error| ClientError::io("lock", &self.path, error);
        // `flock` belongs to the open file description, so each lock opens the directory again.
        let fd = rustix::fs::openat(&self.fd, c".", DIRECTORY, Mode::empty()).map_err(failed)?;
        loop {
            match rustix::fs::flock(&fd, FlockOperation::LockExclusive) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                // The file system has no locks. The atomic rename still keeps the file whole.
                Err(_) => return Ok(DirLock(None)),
            }
        }
        self.remove_stale_temporaries()?;
        Ok(DirLock(Some(fd)))
    }

    /// Reads a file of this directory, if it exists. If others can read it, its mode is first set to 0600.
    pub(super) fn read(&self, name: &str) -> Result<Option<FileContents>, ClientError> {
        let path = self.path.join(name);
        // Non-blocking: opening a named pipe would otherwise block.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::MLINK) => {
                let advice = "replace the link with a file of your own";
                return Err(ClientError::unsafe_path(&path, "is a symbolic link", advice));
            }
            Err(error) => return Err(ClientError::io("open", &path, error)),
        };
        let metadata = stat(&fd, &path)?;
        check_file(&path, &metadata)?;
        let mode = permissions(&metadata);
        let accessible = mode & OTHERS_ANY != 0;
        if accessible {
            let restricted = rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR);
            restricted.map_err(|error| ClientError::io("restrict access to", &path, error))?;
        }
        // Full capacity up front: a buffer that reallocates leaves copies of keys in freed memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_LEN + 1));
        let read = File::from(fd).take(MAX_FILE_LEN as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| ClientError::io("read", &path, error))?;
        if bytes.len() > MAX_FILE_LEN {
            return Err(ClientError::unsafe_path(
                &path,
                TOO_LONG,
                "move it away and store the key again",
            ));
        }
        let (mode, unsafe_mode) = if accessible { (0o600, Some(mode)) } else { (mode, None) };
        Ok(Some(FileContents { bytes, mode: Some(mode), unsafe_mode }))
    }

    /// Atomically replaces a file with new contents.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), ClientError> {
        let path = self.path.join(name);
        let temporary = self.write_temporary(name, bytes)?;
        // A rename replaces a symbolic link and does not follow it.
        if let Err(error) = rustix::fs::renameat(&self.fd, &*temporary, &self.fd, name) {
            let _ = rustix::fs::unlinkat(&self.fd, &*temporary, AtFlags::empty());
            return Err(ClientError::io("replace", &path, error));
        }
        sync(&self.fd, &self.path)
    }

    /// Checks that [`replace`](Self::replace) can create a file here.
    pub(super) fn check_writable(&self, name: &str) -> Result<(), ClientError> {
        let temporary = self.write_temporary(name, &[])?;
        let removed = rustix::fs::unlinkat(&self.fd, &*temporary, AtFlags::empty());
        removed.map_err(|error| ClientError::io("write to", &self.path, error))
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), ClientError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => sync(&self.fd, &self.path),
            Err(error) => Err(ClientError::io("remove", &self.path.join(name), error)),
        }
    }

    /// Writes and syncs a new file with mode 0600, and returns its name.
    fn write_temporary(&self, name: &str, bytes: &[u8]) -> Result<String, ClientError> {
        let mut random = [0; 8];
        let filled = crate::system::fill_random(&mut random);
        filled.map_err(|error| {
            ClientError::io("create a file name in", &self.path, std::io::Error::other(error))
        })?;
        let temporary = format!(".{name}.{:016x}{TEMPORARY_SUFFIX}", u64::from_ne_bytes(random));
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = || {
            let private = Mode::RUSR | Mode::WUSR;
            let fd = rustix::fs::openat(&self.fd, &*temporary, flags, private)?;
            // The umask may have removed the owner's permissions.
            rustix::fs::fchmod(&fd, private)?;
            let mut file = File::from(fd);
            file.write_all(bytes)?;
            file.sync_all()
        };
        if let Err(error) = write() {
            let _ = rustix::fs::unlinkat(&self.fd, &*temporary, AtFlags::empty());
            return Err(ClientError::io("write to", &self.path, error));
        }
        Ok(temporary)
    }

    /// Removes temporary files of killed writers. Call it only under the lock: no other writer has one then.
    fn remove_stale_temporaries(&self) -> Result<(), ClientError> {
        let failed = |error| ClientError::io("list", &self.path, error);
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name.starts_with(b".credentials.") && name.ends_with(TEMPORARY_SUFFIX.as_bytes()) {
                let _ = rustix::fs::unlinkat(&self.fd, entry.file_name(), AtFlags::empty());
            }
        }
        Ok(())
    }
}

fn split(path: &Path) -> Result<(&Path, &std::ffi::OsStr), ClientError> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent.as_os_str().is_empty() => Ok((Path::new("."), name)),
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(ClientError::unsafe_path(
            path,
            "cannot hold credentials",
            "use a directory below another",
        )),
    }
}

/// Follows symbolic links: home directories are often behind one.
fn open_parent(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, DIRECTORY, Mode::empty())
}

fn check_parent(path: &Path, metadata: &Stat) -> Result<(), ClientError> {
    if metadata.st_uid != 0 && metadata.st_uid != effective_uid() {
        let advice = "set HOME to your own home directory, or set the key's environment variable";
        return Err(ClientError::unsafe_path(path, OTHER_OWNER, advice));
    }
    // In a sticky directory such as /tmp, other users cannot rename or remove our directory.
    if permissions(metadata) & OTHERS_WRITE != 0 && metadata.st_mode as RawMode & STICKY == 0 {
        return Err(writable(path));
    }
    Ok(())
}

fn check_dir(path: &Path, metadata: &Stat) -> Result<(), ClientError> {
    if metadata.st_uid != effective_uid() {
        return Err(other_owner(path));
    }
    if permissions(metadata) & OTHERS_WRITE != 0 {
        return Err(writable(path));
    }
    Ok(())
}

fn check_file(path: &Path, metadata: &Stat) -> Result<(), ClientError> {
    if FileType::from_raw_mode(metadata.st_mode as RawMode) != FileType::RegularFile {
        return Err(ClientError::unsafe_path(path, "is not a regular file", "move it away"));
    }
    if metadata.st_uid != effective_uid() {
        return Err(other_owner(path));
    }
    // A user with write access may have replaced the key.
    if permissions(metadata) & OTHERS_WRITE != 0 {
        return Err(writable(path));
    }
    Ok(())
}

fn other_owner(path: &Path) -> ClientError {
    let advice = "it may contain another user's key; move it away, or take ownership with chown";
    ClientError::unsafe_path(path, OTHER_OWNER, advice)
}

fn writable(path: &Path) -> ClientError {
    let advice = format!("check its contents, then run `chmod go-w {}`", path.display());
    ClientError::unsafe_path(path, "is writable by other users", &advice)
}

fn stat(fd: impl AsFd, path: &Path) -> Result<Stat, ClientError> {
    rustix::fs::fstat(fd).map_err(|error| ClientError::io("inspect", path, error))
}

fn sync(fd: impl AsFd, path: &Path) -> Result<(), ClientError> {
    match rustix::fs::fsync(fd) {
        // Some file systems cannot sync a directory.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(ClientError::io("write to", path, error)),
    }
}

fn permissions(metadata: &Stat) -> u32 {
    u32::from(metadata.st_mode as u16) & 0o777
}

fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);
const OTHERS_ANY: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;
const STICKY: RawMode = 0o1000;
const TEMPORARY_SUFFIX: &str = ".tmp";
const MAX_FILE_LEN: usize = 64 * 1024;
const NOT_A_DIRECTORY: &str = "is not a directory but a link or a file";
const OTHER_OWNER: &str = "belongs to another user";
const TOO_LONG: &str = "is too long for a credentials file";
