use std::path::{Path, PathBuf};

use super::Profile;

/// A place where a key may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// An environment variable.
    #[non_exhaustive]
    Variable {
        /// Its name.
        name: String,
    },
    /// The credentials file.
    #[non_exhaustive]
    File {
        /// Where it is.
        path: PathBuf,
        /// Which of its keys.
        profile: Profile,
    },
    /// A line of the `.env` file in the working directory.
    #[non_exhaustive]
    DotEnv {
        /// Where it is.
        path: PathBuf,
        /// The variable that the line sets.
        name: String,
    },
}

impl Source {
    /// `variable`, `file` or `dotenv`: for programs that read the answer.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Variable { .. } => "variable",
            Self::File { .. } => "file",
            Self::DotEnv { .. } => "dotenv",
        }
    }

    /// The file, if the key stands in one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Variable { .. } => None,
            Self::File { path, .. } | Self::DotEnv { path, .. } => Some(path),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Variable { name } => write!(f, "environment variable {name}"),
            Self::File { path, profile } if profile.is_default() => write!(f, "{}", path.display()),
            Self::File { path, profile } => write!(f, "{} (profile {profile})", path.display()),
            Self::DotEnv { path, name } => write!(f, "{name} in {}", path.display()),
        }
    }
}

/// Something that went well but that the person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The credentials file could be read by others until now.
    #[non_exhaustive]
    WasReadable {
        /// Where it is.
        path: PathBuf,
        /// The permissions that it had.
        mode: u32,
    },
    /// A place that comes later, and so was not needed, could not be looked at.
    #[non_exhaustive]
    NotLookedAt {
        /// Why not.
        message: String,
    },
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WasReadable { path, mode } => write!(
                f,
                "{} could be read by others (mode {mode:04o}); it is closed to them now (0600). \
                 If anyone else uses this machine, replace the key",
                path.display()
            ),
            Self::NotLookedAt { message } => write!(f, "not looked at, and not needed: {message}"),
        }
    }
}
