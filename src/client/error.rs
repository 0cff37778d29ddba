use std::{
    error::Error as StdError,
    fmt, io,
    path::{Path, PathBuf},
};

/// Why a key could not be found, stored or deleted.
///
/// `Display` names the cause and what to do. It shows nothing of a key but the prefix that all keys share.
/// Use [`kind`](ClientError::kind) to match on the cause.
#[derive(Debug)]
pub struct ClientError {
    kind: ClientErrorKind,
    message: String,
    source: Option<io::Error>,
}

/// The kind of a [`ClientError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientErrorKind {
    /// No key was found in any source.
    NotFound,
    /// A text was found, but it is not a key of this product.
    Malformed,
    /// Another user can modify the file or its directory, or the path is not a regular file or directory.
    Unsafe,
    /// The file system returned an error.
    Io,
}

impl ClientError {
    /// Returns the kind of the error.
    pub fn kind(&self) -> ClientErrorKind {
        self.kind
    }

    pub(super) fn new(kind: ClientErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(super) fn unsafe_path(path: &Path, problem: &str, advice: &str) -> Self {
        Self::new(ClientErrorKind::Unsafe, format!("{} {problem}: {advice}", path.display()))
    }

    pub(super) fn io(action: &str, path: &Path, source: impl Into<io::Error>) -> Self {
        let message = format!("cannot {action} {}", path.display());
        Self { source: Some(source.into()), ..Self::new(ClientErrorKind::Io, message) }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for ClientError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// A problem that did not stop the operation, but that the user should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Other users could read the credentials file until now.
    #[non_exhaustive]
    WasReadable {
        /// The path of the file.
        path: PathBuf,
        /// The permissions that the file had.
        mode: u32,
    },
    /// A source with lower precedence could not be read. Another source had the key, so it was not needed.
    #[non_exhaustive]
    SourceSkipped {
        /// The error.
        message: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WasReadable { path, mode } => write!(
                f,
                "{} was readable by other users (mode {mode:04o}). Its mode is now 0600. \
                 If other people use this machine, replace the key",
                path.display()
            ),
            Self::SourceSkipped { message } => {
                write!(f, "skipped a source that was not needed: {message}")
            }
        }
    }
}
