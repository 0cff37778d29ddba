/// How a command ended; the exit statuses are promised.
///
/// | status | meaning |
/// |---|---|
/// | 0 | done |
/// | 1 | an error: the file cannot be used, the server cannot be reached |
/// | 2 | used wrongly, or cancelled: nothing was changed |
/// | 4 | not authenticated: no key, no valid key, or a wrong or expired code |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[must_use = "the process should end with this status"]
pub enum Exit {
    /// Done.
    Done,
    /// An error.
    Error,
    /// Used wrongly, or cancelled.
    Usage,
    /// Not authenticated.
    NotAuthenticated,
}

impl Exit {
    /// The exit status.
    pub fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::NotAuthenticated => 4,
        }
    }

    /// Ends the process with the exit status.
    pub fn exit(self) -> ! {
        std::process::exit(self.status().into())
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}
