use std::{any::Any, fmt};

/// What a run of the suite found.
#[derive(Clone, Debug, Default)]
#[must_use]
#[non_exhaustive]
pub struct Report {
    /// The checks that the store passed.
    pub passed: Vec<&'static str>,
    /// The checks that it failed, and how.
    pub failed: Vec<Failure>,
}

/// A check that a store failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The name of the check: the fact that does not hold.
    pub check: &'static str,
    /// What was seen instead.
    pub message: String,
}

impl Report {
    /// Whether this check was run and failed.
    pub fn caught(&self, check: &str) -> bool {
        self.failed.iter().any(|failure| failure.check == check)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, all) = (self.failed.len(), self.failed.len() + self.passed.len());
        write!(f, "{failed} of {all} conformance checks failed")?;
        for Failure { check, message } in &self.failed {
            write!(f, "\n\n{check}\n    {}", message.replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

/// What a panic said.
pub(super) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    text.unwrap_or_else(|| "it panicked".into())
}
