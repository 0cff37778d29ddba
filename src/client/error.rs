use std::{error::Error as StdError, io, path::Path};

/// Why a key could not be found, kept or dropped.
///
/// `Display` says what is wrong and what to do, and shows of a key no more than its lead;
/// [`kind`](Error::kind) is for code.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<io::Error>,
}

/// The kinds of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no key anywhere.
    NotFound,
    /// There is a text, and it cannot be a key of this product.
    Malformed,
    /// A file or folder that somebody else can reach, or that is not what it should be.
    Unsafe,
    /// The file system failed.
    Io,
}

impl Error {
    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn refused(path: &Path, why: &str, advice: &str) -> Self {
        Self::new(ErrorKind::Unsafe, format!("{} {why}: {advice}", path.display()))
    }

    pub(crate) fn io(doing: &str, path: &Path, source: impl Into<io::Error>) -> Self {
        let message = format!("cannot {doing} {}", path.display());
        Self { source: Some(source.into()), ..Self::new(ErrorKind::Io, message) }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
