use crate::{model::Timestamp, secret::SecretDigest};

/// What a store keeps of a one-time code, under the digest of the address that it was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneTimeCode {
    /// That of the code.
    pub digest: SecretDigest,
    /// From this instant on it is of no use.
    pub ends_at: Timestamp,
    /// How many wrong guesses are left.
    pub tries: u32,
}

/// An attempt to use a code.
#[derive(Clone, Copy, Debug)]
pub struct CodeAttempt {
    /// For which address.
    pub address: SecretDigest,
    /// That of the presented code.
    pub digest: SecretDigest,
    /// When.
    pub at: Timestamp,
}

/// What became of an attempt to use a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum CodeOutcome {
    /// It was the code, and is used up by that.
    Accepted,
    /// It was not; this took one of the tries.
    Wrong,
    /// It was the code, and its time is over. It stays.
    Expired,
    /// Nobody looked: there were no tries left.
    NoTriesLeft,
    /// There is no code for this address, or none any more.
    NotFound,
}

impl CodeAttempt {
    /// What becomes of this attempt. Of a code whose time is over, tries are counted as well: it
    /// does not serve to find out what it was.
    pub fn check(&self, stored: &OneTimeCode) -> CodeOutcome {
        if stored.tries == 0 {
            CodeOutcome::NoTriesLeft
        } else if stored.digest != self.digest {
            CodeOutcome::Wrong
        } else if stored.ends_at <= self.at {
            CodeOutcome::Expired
        } else {
            CodeOutcome::Accepted
        }
    }
}
