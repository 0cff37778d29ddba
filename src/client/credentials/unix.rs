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

use crate::client::Error;

/// A folder that nobody else can write to. It is opened once, and everything happens inside of what was
/// opened: whoever swaps the path afterwards swaps nothing here.
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// What stood in a file, and how it stood there.
pub(super) struct Read {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) mode: Option<u32>,
    /// The permissions that the file had, if others could read it.
    pub(super) was: Option<u32>,
}

/// Until it is dropped, other writers wait.
pub(super) struct Lock(#[allow(dead_code, reason = "held, not looked at")] Option<OwnedFd>);

impl Folder {
    /// Opens a folder, if it exists.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Error> {
        let (parent_path, name) = split(path)?;
        let parent = match open_parent(parent_path) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(Error::io("open", parent_path, error)),
        };
        let fd = match rustix::fs::openat(&parent, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => {
                let advice = "put a folder of your own there";
                return Err(Error::refused(path, "is no folder but a link or a file", advice));
            }
            Err(error) => return Err(Error::io("open", path, error)),
        };
        check_parent(parent_path, &stat(&parent, parent_path)?)?;
        check_folder(path, &stat(&fd, path)?)?;
        Ok(Some(Self { fd, path: path.to_owned() }))
    }

    /// Opens a folder, and makes it if it does not exist.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        if let Some(folder) = Self::open(path)? {
            return Ok(folder);
        }
        let (parent_path, name) = split(path)?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent_path);
        made.map_err(|error| Error::io("make", parent_path, error))?;
        let parent =
            open_parent(parent_path).map_err(|error| Error::io("open", parent_path, error))?;
        check_parent(parent_path, &stat(&parent, parent_path)?)?;
        let made = match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) => sync(&parent, parent_path).map(|()| true)?,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(Error::io("make", path, error)),
        };
        let gone = || Error::io("open", path, Errno::NOENT);
        let folder = Self::open(path)?.ok_or_else(gone)?;
        if made {
            // The umask may have taken away what the owner needs.
            let usable = rustix::fs::fchmod(&folder.fd, Mode::RWXU);
            usable.map_err(|error| Error::io("make", path, error))?;
        }
        Ok(folder)
    }

    /// Waits until no other writer is in the folder, and sweeps up what killed ones left.
    pub(super) fn lock(&self) -> Result<Lock, Error> {
        let failed = |error| Error::io("lock", &self.path, error);
        // An open file of its own: a lock belongs to that, and goes when it is closed.
        let fd = rustix::fs::openat(&self.fd, c".", FOLDER, Mode::empty()).map_err(failed)?;
        loop {
            match rustix::fs::flock(&fd, FlockOperation::LockExclusive) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                // A file system without locks: the rename still leaves a whole file.
                Err(_) => return Ok(Lock(None)),
            }
        }
        self.sweep()?;
        Ok(Lock(Some(fd)))
    }

    /// What stands in a file of this folder, if it exists. If others can read it, they no longer can.
    pub(super) fn read(&self, name: &str) -> Result<Option<Read>, Error> {
        let path = self.path.join(name);
        // Non-blocking, or a pipe in place of the file would be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::MLINK) => {
                let advice = "replace the link by a file of your own";
                return Err(Error::refused(&path, "is a symbolic link", advice));
            }
            Err(error) => return Err(Error::io("open", &path, error)),
        };
        let found = stat(&fd, &path)?;
        check_file(&path, &found)?;
        let mode = permissions(&found);
        let open = mode & OTHERS_ANY != 0;
        if open {
            let closed = rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR);
            closed.map_err(|error| Error::io("close to others", &path, error))?;
        }
        // The full capacity at once: a growing buffer would leave parts of the keys behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 1));
        let read = File::from(fd).take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| Error::io("read", &path, error))?;
        if bytes.len() > MAX_BYTES {
            let advice = "move it away and store the key again";
            return Err(Error::refused(&path, "is too long for a file of keys", advice));
        }
        let mode_now = if open { 0o600 } else { mode };
        Ok(Some(Read { bytes, mode: Some(mode_now), was: open.then_some(mode) }))
    }

    /// Puts a whole file in the place of what stands there.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path.join(name);
        let temporary = self.temporary(name, bytes)?;
        // A rename replaces a link; it never follows one.
        if let Err(error) = rustix::fs::renameat(&self.fd, &*temporary, &self.fd, name) {
            let _ = rustix::fs::unlinkat(&self.fd, &*temporary, AtFlags::empty());
            return Err(Error::io("replace", &path, error));
        }
        sync(&self.fd, &self.path)
    }

    /// Whether `replace` has what it needs.
    pub(super) fn try_out(&self, name: &str) -> Result<(), Error> {
        let temporary = self.temporary(name, &[])?;
        let gone = rustix::fs::unlinkat(&self.fd, &*temporary, AtFlags::empty());
        gone.map_err(|error| Error::io("write to", &self.path, error))
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => sync(&self.fd, &self.path),
            Err(error) => Err(Error::io("remove", &self.path.join(name), error)),
        }
    }

    /// A new file, private from its first byte, whole on the disk.
    fn temporary(&self, name: &str, bytes: &[u8]) -> Result<String, Error> {
        let mut random = [0; 8];
        let made = crate::system::random::fill(&mut random);
        made.map_err(|error| {
            Error::io("name a file in", &self.path, std::io::Error::other(error))
        })?;
        let temporary = format!(".{name}.{:016x}{TEMPORARY}", u64::from_ne_bytes(random));
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = || {
            let private = Mode::RUSR | Mode::WUSR;
            let fd = rustix::fs::openat(&self.fd, &*temporary, flags, private)?;
            // As with the folder.
            rustix::fs::fchmod(&fd, private)?;
            let mut file = File::from(fd);
            file.write_all(bytes)?;
            file.sync_all()
        };
        if let Err(error) = write() {
            let _ = rustix::fs::unlinkat(&self.fd, &*temporary, AtFlags::empty());
            return Err(Error::io("write to", &self.path, error));
        }
        Ok(temporary)
    }

    /// Only under the lock, where no living writer has a temporary file.
    fn sweep(&self) -> Result<(), Error> {
        let failed = |error| Error::io("look into", &self.path, error);
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name.starts_with(b".credentials.") && name.ends_with(TEMPORARY.as_bytes()) {
                let _ = rustix::fs::unlinkat(&self.fd, entry.file_name(), AtFlags::empty());
            }
        }
        Ok(())
    }
}

fn split(path: &Path) -> Result<(&Path, &std::ffi::OsStr), Error> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent.as_os_str().is_empty() => Ok((Path::new("."), name)),
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(Error::refused(path, "cannot hold credentials", "name a folder within another")),
    }
}

/// Links on the way there are followed: home folders stand behind such.
fn open_parent(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, FOLDER, Mode::empty())
}

fn check_parent(path: &Path, found: &Stat) -> Result<(), Error> {
    if found.st_uid != 0 && found.st_uid != me() {
        let advice = "set HOME to your own, or use the environment variable for the key";
        return Err(Error::refused(path, "belongs to somebody else", advice));
    }
    // In a sticky folder such as /tmp, others cannot move what is ours.
    if permissions(found) & OTHERS_WRITE != 0 && found.st_mode as RawMode & STICKY == 0 {
        return Err(writable(path));
    }
    Ok(())
}

fn check_folder(path: &Path, found: &Stat) -> Result<(), Error> {
    if found.st_uid != me() {
        return Err(foreign(path));
    }
    if permissions(found) & OTHERS_WRITE != 0 {
        return Err(writable(path));
    }
    Ok(())
}

fn check_file(path: &Path, found: &Stat) -> Result<(), Error> {
    if FileType::from_raw_mode(found.st_mode as RawMode) != FileType::RegularFile {
        return Err(Error::refused(path, "is no file", "move it away"));
    }
    if found.st_uid != me() {
        return Err(foreign(path));
    }
    // Who could write may have put a key of his own there.
    if permissions(found) & OTHERS_WRITE != 0 {
        return Err(writable(path));
    }
    Ok(())
}

fn foreign(path: &Path) -> Error {
    let advice = "it may hold somebody else's key; move it away, or take it over with chown";
    Error::refused(path, "belongs to somebody else", advice)
}

fn writable(path: &Path) -> Error {
    let advice = format!("see what is in it, then `chmod go-w {}`", path.display());
    Error::refused(path, "can be written to by others", &advice)
}

fn stat(fd: impl AsFd, path: &Path) -> Result<Stat, Error> {
    rustix::fs::fstat(fd).map_err(|error| Error::io("look at", path, error))
}

fn sync(fd: impl AsFd, path: &Path) -> Result<(), Error> {
    match rustix::fs::fsync(fd) {
        // Some file systems cannot sync a folder.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(Error::io("write to", path, error)),
    }
}

fn permissions(found: &Stat) -> u32 {
    u32::from(found.st_mode as u16) & 0o777
}

fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);
const OTHERS_ANY: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o022;
const STICKY: RawMode = 0o1000;
const TEMPORARY: &str = ".tmp";
const MAX_BYTES: usize = 64 * 1024;
