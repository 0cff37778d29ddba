//! What the processes of a cluster did, and when.
//!
//! Each process appends lines to a file of its own, as it happens. All times are microseconds of a clock that the
//! processes of a machine share.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use keyward::system::{Clock, SystemClock};
use serde::{Deserialize, Serialize};

/// A line of a history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Record {
    /// Written twice: when the change begins, and when it is answered.
    Change(Change),
    #[serde(rename = "U")]
    Use(Use),
    Fault(Fault),
    Stored(StoredKey),
    /// The number of audit events of a key, by kind.
    Events(u32, BTreeMap<String, u32>),
    /// A key or an event in the store that no call asked for.
    Stranger(String),
}

/// A call that changes keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// The process that made the call.
    pub process: u32,
    /// Unique in the history.
    pub number: u64,
    pub kind: ChangeKind,
    pub owner: String,
    /// `None` for a change of all keys of the owner.
    pub key: Option<u32>,
    pub invoked: u64,
    /// `None` if the process was killed before the answer.
    pub responded: Option<u64>,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    Issue {
        lifetime: Option<u64>,
        quota: Option<u64>,
    },
    Rename,
    /// Without overlap. The new secret has this generation; earlier ones end.
    Rotate {
        generation: u32,
    },
    Disable,
    Revoke,
    Delete,
    RevokeAll,
    /// The host suspends the account, then announces it.
    Suspend,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done,
    /// Nothing was changed: the store was unavailable.
    Unavailable,
    /// Not answered, or *outcome unknown*: the change was made or not.
    Unknown,
    /// Nothing was changed, for the reason that this `ErrorKind` names.
    Refused(String),
}

/// A verification.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Use {
    #[serde(rename = "p")]
    pub process: u32,
    #[serde(rename = "k")]
    pub key: u32,
    /// How often the key had been rotated when it got the presented secret.
    #[serde(rename = "g")]
    pub generation: u32,
    #[serde(rename = "i")]
    pub invoked: u64,
    /// When the call was last resumed: it was decided after this. A process that is stopped between the decision and
    /// the answer cannot notice it, so this counts and not the answer.
    #[serde(rename = "d")]
    pub decided: u64,
    #[serde(rename = "r")]
    pub responded: u64,
    #[serde(rename = "a")]
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    #[serde(rename = "ok")]
    Accepted,
    Denied(String),
    Limited,
    Unavailable,
}

/// A time in which verification may be unavailable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    pub name: String,
    /// The only process that it concerns, if it does not concern all.
    pub process: Option<u32>,
    pub from: u64,
    pub until: u64,
}

/// What the store has of a key after the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredKey {
    pub key: u32,
    pub owner: String,
    pub revoked: bool,
    pub disabled: bool,
    pub renamed: bool,
    pub revision: u64,
}

/// The limits of an owner's plan, by the first word of the owner's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub max_keys: Option<u32>,
    pub quota: Option<u64>,
}

impl Plan {
    pub fn of(owner: &str) -> Self {
        match owner.split('-').next() {
            Some("limited") => Self { max_keys: Some(5), ..Self::default() },
            Some("shared") => Self { quota: Some(40), ..Self::default() },
            _ => Self::default(),
        }
    }
}

impl ChangeKind {
    /// Whether this change ends a secret of the key.
    pub fn ends(self, generation: u32) -> bool {
        match self {
            Self::Issue { .. } | Self::Rename => false,
            Self::Rotate { generation: new } => generation < new,
            Self::Disable | Self::Revoke | Self::Delete | Self::RevokeAll | Self::Suspend => true,
        }
    }

    /// Whether the key counts no longer towards its owner's limit.
    pub fn frees(self) -> bool {
        matches!(self, Self::Revoke | Self::Delete | Self::RevokeAll)
    }
}

impl Change {
    /// When it was acknowledged.
    pub fn acknowledged(&self) -> Option<u64> {
        self.responded.filter(|_| self.outcome == Outcome::Done)
    }

    /// Whether it was made, or may have been.
    pub fn may_have_happened(&self) -> bool {
        // The host's account is suspended, whether the announcement failed or not.
        matches!(self.outcome, Outcome::Done | Outcome::Unknown) || self.kind == ChangeKind::Suspend
    }
}

#[derive(Clone, Debug, Default)]
pub struct History {
    pub changes: Vec<Change>,
    pub uses: Vec<Use>,
    pub faults: Vec<Fault>,
    pub stored: Vec<StoredKey>,
    pub events: HashMap<u32, BTreeMap<String, u32>>,
    pub strangers: Vec<String>,
}

impl History {
    /// Reads the files of all processes.
    pub fn read(folder: &Path) -> Self {
        let (mut history, mut changes) = (Self::default(), HashMap::new());
        for entry in fs::read_dir(folder).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            // A killed process may leave a part of a line.
            for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                match serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")) {
                    Record::Change(change) => {
                        changes.insert(change.number, change);
                    }
                    Record::Use(verification) => history.uses.push(verification),
                    Record::Fault(fault) => history.faults.push(fault),
                    Record::Stored(key) => history.stored.push(key),
                    Record::Events(key, events) => _ = history.events.insert(key, events),
                    Record::Stranger(text) => history.strangers.push(text),
                }
            }
        }
        history.changes = changes.into_values().collect();
        history.changes.sort_by_key(|change| change.invoked);
        history
    }
}

/// Appends to the history of a process. Each record is written before anything else happens, so a killed process has
/// recorded all that it answered.
pub struct Recorder(File);

impl Recorder {
    pub fn new(folder: &Path, process: u32) -> Self {
        let path: PathBuf = folder.join(format!("{process:03}.jsonl"));
        Self(File::options().create_new(true).append(true).open(path).unwrap())
    }

    pub fn write(&self, record: &Record) {
        let mut line = serde_json::to_vec(record).unwrap();
        line.push(b'\n');
        (&self.0).write_all(&line).unwrap();
    }
}

/// Microseconds of a clock that all processes share, and that counts suspensions.
pub fn now() -> u64 {
    SystemClock.reading().monotonic.as_micros() as u64
}
