use std::sync::Arc;

use super::fence::{Place, Token};
use crate::{
    key::{Bearer, Timestamp},
    limits::Meter,
    usage::UseCell,
};

/// A key as it was read, and until when it may be believed.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) bearer: Arc<Bearer>,
    /// When the secret it was found by stops working.
    pub(crate) ends_at: Option<Timestamp>,
    pub(crate) meter: Meter,
    pub(crate) usage: Arc<UseCell>,
    pub(super) read: Read,
    /// Where the key's invalidations are noted, and its owner's.
    pub(super) places: [Place; 2],
    /// When the host was asked for the account.
    pub(super) account_at: u64,
}

/// When a read began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(super) token: Token,
    pub(super) at: u64,
}
