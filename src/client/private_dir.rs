use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

pub(super) use self::platform::PrivateDir;
use super::{ClientError, Warning};
use crate::system::fill_random;

/// A file that exists, its mode if the platform has modes, and a warning if others could read it until now.
type Opened<T> = Result<Option<(T, Option<u32>, Option<Warning>)>, ClientError>;

impl PrivateDir {
    /// Locks out other writers until the result is dropped, and removes temporary files of killed writers.
    pub(super) fn lock(&self) -> Result<Option<File>, ClientError> {
        let lock = self.lock_exclusive()?;
        // Only under the lock: no other writer has a temporary file then.
        if lock.is_some() {
            for name in self.file_names().map_err(ClientError::io("list", &self.path))? {
                let text = name.to_string_lossy();
                if text.starts_with(TEMPORARY_PREFIX) && text.ends_with(TEMPORARY_SUFFIX) {
                    let _ = self.remove_file(&name);
                }
            }
        }
        Ok(lock)
    }

    /// Reads the file, if it exists. If others can read it, its mode is first set to 0600.
    pub(super) fn read(&self) -> Opened<Zeroizing<Vec<u8>>> {
        let path = self.path.join(FILE_NAME);
        let Some((file, mode, warning)) = self.open_file(&path)? else { return Ok(None) };
        // Full capacity up front: a buffer that reallocates leaves copies of keys in freed memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_LEN + 1));
        let read = file.take(MAX_FILE_LEN as u64 + 1).read_to_end(&mut bytes);
        read.map_err(ClientError::io("read", &path))?;
        if bytes.len() > MAX_FILE_LEN {
            let problem = "is too long for a credentials file";
            let advice = "move it away and store the key again";
            return Err(ClientError::unsafe_path(&path, problem, advice));
        }
        Ok(Some((bytes, mode, warning)))
    }

    /// Atomically replaces the file with new contents.
    pub(super) fn replace(&self, bytes: &[u8]) -> Result<(), ClientError> {
        let temporary = self.write_temporary(bytes)?;
        if let Err(error) = self.rename(&temporary, FILE_NAME) {
            let _ = self.remove_file(temporary.as_ref());
            return Err(ClientError::io("replace", &self.path.join(FILE_NAME))(error));
        }
        self.sync()
    }

    /// Checks that [`replace`](Self::replace) can create a file here.
    pub(super) fn check_writable(&self) -> Result<(), ClientError> {
        let temporary = self.write_temporary(&[])?;
        self.remove_file(temporary.as_ref()).map_err(ClientError::io("write to", &self.path))
    }

    pub(super) fn remove(&self) -> Result<(), ClientError> {
        match self.remove_file(FILE_NAME.as_ref()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ClientError::io("remove", &self.path.join(FILE_NAME))(error))
            }
            _ => self.sync(),
        }
    }

    /// Writes and syncs a new file with mode 0600, and returns its name.
    fn write_temporary(&self, bytes: &[u8]) -> Result<String, ClientError> {
        let mut suffix = [0; 8];
        let filled = fill_random(&mut suffix).map_err(io::Error::other);
        filled.map_err(ClientError::io("create a file name in", &self.path))?;
        let suffix = u64::from_ne_bytes(suffix);
        let temporary = format!("{TEMPORARY_PREFIX}{suffix:016x}{TEMPORARY_SUFFIX}");
        let written = self.create_file(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        if let Err(error) = written {
            let _ = self.remove_file(temporary.as_ref());
            return Err(ClientError::io("write to", &self.path)(error));
        }
        Ok(temporary)
    }
}

pub(super) const FILE_NAME: &str = "credentials";
const TEMPORARY_PREFIX: &str = ".credentials.";
const TEMPORARY_SUFFIX: &str = ".tmp";
const MAX_FILE_LEN: usize = 64 * 1024;
const NOT_A_DIRECTORY: &str = "is not a directory but a link or a file";
const USE_OWN_DIRECTORY: &str = "replace it with a directory of your own";
const NOT_A_FILE: &str = "is not a regular file";

/// All operations are relative to the handle of the opened directory.
#[cfg(unix)]
mod platform {
    use std::{
        fs::{DirBuilder, Metadata, Permissions},
        os::unix::{
            ffi::OsStrExt as _,
            fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
        },
    };

    use rustix::{
        fs::{AtFlags, Dir, DirEntry, FlockOperation, Mode, OFlags, openat},
        io::Errno,
    };

    use super::*;

    /// A directory that only the current user can write to, opened once: replacing the path later has no effect.
    pub(crate) struct PrivateDir {
        handle: File,
        pub(super) path: PathBuf,
    }

    impl PrivateDir {
        /// Opens a directory. Returns `None` if it does not exist.
        pub(crate) fn open(path: &Path) -> Result<Option<Self>, ClientError> {
            let (parent_path, name) = split(path)?;
            let parent = match open_parent(parent_path) {
                Ok(parent) => parent,
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(error) => return Err(ClientError::io("open", parent_path)(error)),
            };
            let handle = match openat(&parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(fd) => File::from(fd),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => {
                    return Err(ClientError::unsafe_path(path, NOT_A_DIRECTORY, USE_OWN_DIRECTORY));
                }
                Err(error) => return Err(ClientError::io("open", path)(error)),
            };
            check_access(parent_path, &parent, true)?;
            check_access(path, &handle, false)?;
            Ok(Some(Self { handle, path: path.to_owned() }))
        }

        /// Opens a directory, and creates it with mode 0700 if it does not exist.
        pub(crate) fn create(path: &Path) -> Result<Self, ClientError> {
            let (parent_path, name) = split(path)?;
            let created = DirBuilder::new().recursive(true).mode(0o700).create(parent_path);
            created.map_err(ClientError::io("create", parent_path))?;
            let parent = open_parent(parent_path).map_err(ClientError::io("open", parent_path))?;
            check_access(parent_path, &parent, true)?;
            let created = match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) => sync(&parent, parent_path).map(|()| true)?,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(ClientError::io("create", path)(error)),
            };
            let dir = Self::open(path)?;
            let dir = dir.ok_or(Errno::NOENT).map_err(ClientError::io("open", path))?;
            if created {
                // The umask may have removed the owner's permissions.
                let changed = dir.handle.set_permissions(Permissions::from_mode(0o700));
                changed.map_err(ClientError::io("create", path))?;
            }
            Ok(dir)
        }

        /// Returns `None` if the file system has no locks. The atomic rename still keeps the file whole.
        pub(super) fn lock_exclusive(&self) -> Result<Option<File>, ClientError> {
            // `flock` belongs to the open file description, so each lock opens the directory again.
            let fd = openat(&self.handle, c".", DIRECTORY, Mode::empty())
                .map_err(ClientError::io("lock", &self.path))?;
            loop {
                match rustix::fs::flock(&fd, FlockOperation::LockExclusive) {
                    Ok(()) => return Ok(Some(File::from(fd))),
                    Err(Errno::INTR) => {}
                    Err(_) => return Ok(None),
                }
            }
        }

        /// Opens a file that only the current user can write to, and restricts its mode.
        pub(super) fn open_file(&self, path: &Path) -> Opened<File> {
            // Non-blocking: opening a named pipe would otherwise block.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = match openat(&self.handle, FILE_NAME, flags, Mode::empty()) {
                Ok(fd) => File::from(fd),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::LOOP | Errno::MLINK) => {
                    let advice = "replace the link with a file of your own";
                    return Err(ClientError::unsafe_path(path, "is a symbolic link", advice));
                }
                Err(error) => return Err(ClientError::io("open", path)(error)),
            };
            let metadata = check_access(path, &file, false)?;
            if !metadata.is_file() {
                return Err(ClientError::unsafe_path(path, NOT_A_FILE, "move it away"));
            }
            let mode = metadata.mode() & 0o777;
            if mode & OTHERS_ANY == 0 {
                return Ok(Some((file, Some(mode), None)));
            }
            let restricted = file.set_permissions(Permissions::from_mode(0o600));
            restricted.map_err(ClientError::io("restrict access to", path))?;
            let warning = Warning::WasReadable { path: path.to_owned(), mode };
            Ok(Some((file, Some(0o600), Some(warning))))
        }

        pub(super) fn create_file(&self, name: &str) -> io::Result<File> {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(openat(&self.handle, name, flags, Mode::RUSR | Mode::WUSR)?);
            // The umask may have removed the owner's permissions.
            file.set_permissions(Permissions::from_mode(0o600))?;
            Ok(file)
        }

        /// Replaces a symbolic link, and does not follow it.
        pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            Ok(rustix::fs::renameat(&self.handle, from, &self.handle, to)?)
        }

        pub(super) fn remove_file(&self, name: &OsStr) -> io::Result<()> {
            Ok(rustix::fs::unlinkat(&self.handle, name, AtFlags::empty())?)
        }

        pub(super) fn file_names(&self) -> io::Result<Vec<OsString>> {
            let entries = Dir::read_from(&self.handle)?;
            let name = |entry: DirEntry| OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            Ok(entries.map(|entry| entry.map(name)).collect::<Result<_, _>>()?)
        }

        pub(super) fn sync(&self) -> Result<(), ClientError> {
            sync(&self.handle, &self.path)
        }
    }

    fn split(path: &Path) -> Result<(&Path, &OsStr), ClientError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            let advice = "use a directory below another";
            return Err(ClientError::unsafe_path(path, "cannot hold credentials", advice));
        };
        Ok((if parent.as_os_str().is_empty() { Path::new(".") } else { parent }, name))
    }

    /// Follows symbolic links: home directories are often behind one.
    fn open_parent(path: &Path) -> Result<File, Errno> {
        rustix::fs::open(path, DIRECTORY, Mode::empty()).map(File::from)
    }

    /// Checks the owner, and that others cannot write: a user with write access may have replaced the key.
    fn check_access(path: &Path, file: &File, is_parent: bool) -> Result<Metadata, ClientError> {
        let metadata = file.metadata().map_err(ClientError::io("inspect", path))?;
        let by_root = is_parent && metadata.uid() == 0;
        if !by_root && metadata.uid() != rustix::process::geteuid().as_raw() {
            let advice = if is_parent {
                "set HOME to your own home directory, or set the key's environment variable"
            } else {
                "it may contain another user's key; move it away, or take ownership with chown"
            };
            return Err(ClientError::unsafe_path(path, "belongs to another user", advice));
        }
        // In a sticky directory such as /tmp, other users cannot rename or remove our directory.
        let is_sticky = is_parent && metadata.mode() & STICKY != 0;
        if !is_sticky && metadata.mode() & OTHERS_WRITE != 0 {
            let advice = format!("check its contents, then run `chmod go-w {}`", path.display());
            return Err(ClientError::unsafe_path(path, "is writable by other users", &advice));
        }
        Ok(metadata)
    }

    fn sync(dir: &File, path: &Path) -> Result<(), ClientError> {
        match rustix::fs::fsync(dir) {
            // Some file systems cannot sync a directory.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(error) => Err(ClientError::io("write to", path)(error)),
        }
    }

    const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);
    const OTHERS_ANY: u32 = 0o077;
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
}

/// The file inherits the access rules of the user's profile directory, which is private.
#[cfg(not(unix))]
mod platform {
    use std::fs::{self, OpenOptions};

    use super::*;

    pub(crate) struct PrivateDir {
        pub(super) path: PathBuf,
    }

    impl PrivateDir {
        pub(crate) fn open(path: &Path) -> Result<Option<Self>, ClientError> {
            match fs::symlink_metadata(path) {
                Ok(metadata) if metadata.is_dir() => Ok(Some(Self { path: path.to_owned() })),
                Ok(_) => Err(ClientError::unsafe_path(path, NOT_A_DIRECTORY, USE_OWN_DIRECTORY)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(ClientError::io("open", path)(error)),
            }
        }

        pub(crate) fn create(path: &Path) -> Result<Self, ClientError> {
            fs::create_dir_all(path).map_err(ClientError::io("create", path))?;
            let dir = Self::open(path)?.ok_or(io::ErrorKind::NotFound);
            dir.map_err(ClientError::io("open", path))
        }

        pub(super) fn lock_exclusive(&self) -> Result<Option<File>, ClientError> {
            let path = self.path.join(".lock");
            let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let locked = opened.and_then(|file| file.lock().map(|()| file));
            locked.map(Some).map_err(ClientError::io("lock", &path))
        }

        pub(super) fn open_file(&self, path: &Path) -> Opened<File> {
            match fs::symlink_metadata(path) {
                Ok(metadata) if metadata.is_file() => {}
                Ok(_) => return Err(ClientError::unsafe_path(path, NOT_A_FILE, "move it away")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(ClientError::io("inspect", path)(error)),
            }
            let file = File::open(path).map_err(ClientError::io("read", path))?;
            Ok(Some((file, None, None)))
        }

        pub(super) fn create_file(&self, name: &str) -> io::Result<File> {
            OpenOptions::new().write(true).create_new(true).open(self.path.join(name))
        }

        pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            fs::rename(self.path.join(from), self.path.join(to))
        }

        pub(super) fn remove_file(&self, name: &OsStr) -> io::Result<()> {
            fs::remove_file(self.path.join(name))
        }

        /// Entries that cannot be read are left out.
        pub(super) fn file_names(&self) -> io::Result<Vec<OsString>> {
            let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
            Ok(entries.map(|entry| entry.file_name()).collect())
        }

        pub(super) fn sync(&self) -> Result<(), ClientError> {
            Ok(())
        }
    }
}
