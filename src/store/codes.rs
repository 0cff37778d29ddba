use crate::{model::Timestamp, secret::Digest};

/// What a store keeps of a one-time code, under the digest of the address that it was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// That of the code.
    pub digest: Digest,
    /// From this instant on it is of no use.
    pub ends_at: Timestamp,
    /// How many wrong guesses are left.
    pub tries: u32,
}

/// An attempt to use a code.
#[derive(Clone, Copy, Debug)]
pub struct Guess {
    /// For which address.
    pub address: Digest,
    /// That of the presented code.
    pub digest: Digest,
    /// When.
    pub at: Timestamp,
}

/// What became of an attempt to use a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Guessed {
    /// It was the code, and is used up by that.
    Right,
    /// It was not; this took one of the tries.
    Wrong,
    /// It was the code, and its time is over. It stays.
    Late,
    /// Nobody looked: there were no tries left.
    Spent,
    /// There is no code for this address, or none any more.
    Nothing,
}

impl Guess {
    /// What becomes of this attempt. Of a code whose time is over, tries are counted as well: it
    /// does not serve to find out what it was.
    pub fn check(&self, stored: &Code) -> Guessed {
        if stored.tries == 0 {
            Guessed::Spent
        } else if stored.digest != self.digest {
            Guessed::Wrong
        } else if stored.ends_at <= self.at {
            Guessed::Late
        } else {
            Guessed::Right
        }
    }
}
