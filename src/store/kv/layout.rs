//! The keys and values in the engine. A key is one byte for its kind, then its parts.
//!
//! | kind | parts | value |
//! |---|---|---|
//! | `k` | id of a key | its [`Row`] |
//! | `d` | digest of a secret | id of its key |
//! | `o` | tenant, account, id of a key | whether it is revoked, and when it expires |
//! | `t` | tenant, id of a key | |
//! | `x` | tenant, account, idempotency token, id of a key that was issued with it | when |
//! | `r` | when a key was revoked or expired, its id | |
//! | `e` | id of an event | its document |
//! | `a`, `b`, `c` | tenant; tenant and account; id of a key; then the id of an event | |
//! | `w` | instant of an event, its id | |
//! | `f` | number of an entry of the change feed | its instant, id of the key |
//! | `m` | `last` or `purged`: a position of the feed | its number |
//! | `q` | counter, period | start of the period, uses |
//! | `g` | start of the period, counter of an anonymous caller, period | |
//! | `u` | id of a key, hour | accepted, denied, limited |
//! | `h` | hour, id of a key | |
//! | `p` | digest of an address | digest of the code, its end, tries |
//! | `n` | end of a code, digest of its address | |
//!
//! Numbers and instants have eight bytes, the highest first, so that they sort. A text ends with bytes that no text
//! contains.

use serde::{Deserialize, Serialize};

use crate::{
    audit::AuditEvent,
    model::{EventId, Key, KeyId, Owner, Period, Timestamp},
    secret::SecretDigest,
    store::{CounterKey, EventDocument, KeyDocument, StoreError},
};

/// A key with the digests of its secrets.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) current: SecretDigest,
    pub(super) former: Option<SecretDigest>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowDocument {
    key: KeyDocument,
    current: String,
    former: String,
}

/// Joins the kind and the parts of a key.
pub(super) fn join(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(kind);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// Returns the first key after all keys with this prefix.
pub(super) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// Encodes a text so that texts sort as they do themselves, and none is the beginning of another one.
pub(super) fn text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 2);
    for byte in text.bytes() {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(u8::MAX);
        }
    }
    bytes.extend([0, 1]);
    bytes
}

/// Reads a text without NUL from the beginning of some bytes.
pub(super) fn read_text(bytes: &[u8]) -> Result<String, StoreError> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or_else(damaged)?;
    String::from_utf8(bytes[..end].into()).map_err(StoreError::corrupt)
}

pub(super) fn instant(at: Timestamp) -> [u8; 8] {
    at.as_unix_micros().to_be_bytes()
}

pub(super) fn read_instant(bytes: [u8; 8]) -> Result<Timestamp, StoreError> {
    let micros = i64::from_be_bytes(bytes);
    let instant = Timestamp::from_unix_micros(micros);
    (instant.as_unix_micros() == micros).then_some(instant).ok_or_else(damaged)
}

/// Takes the first `N` bytes.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], StoreError> {
    let (first, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
    *bytes = rest;
    Ok(*first)
}

/// Returns the last `N` bytes.
pub(super) fn last<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.last_chunk().copied().ok_or_else(damaged)
}

pub(super) fn number(bytes: &[u8]) -> Result<u64, StoreError> {
    Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| damaged())?))
}

pub(super) fn key(id: KeyId) -> Vec<u8> {
    join(b'k', &[id.as_bytes()])
}

pub(super) fn digest(digest: &SecretDigest) -> Vec<u8> {
    join(b'd', &[&digest.to_bytes()])
}

pub(super) fn event(id: EventId) -> Vec<u8> {
    join(b'e', &[id.as_bytes()])
}

/// Returns the prefix of an owner's entries of one kind.
pub(super) fn of_owner(kind: u8, owner: &Owner) -> Vec<u8> {
    of_account(kind, owner.tenant(), owner.account())
}

pub(super) fn of_account(kind: u8, tenant: &str, account: &str) -> Vec<u8> {
    join(kind, &[&text(tenant), &text(account)])
}

pub(super) fn of_tenant(kind: u8, tenant: &str) -> Vec<u8> {
    join(kind, &[&text(tenant)])
}

pub(super) fn with_id(prefix: &[u8], id: &[u8; 16]) -> Vec<u8> {
    [prefix, id].concat()
}

/// Returns a counter without its kind.
pub(super) fn counter(counter: &CounterKey<'_>, period: Period) -> Vec<u8> {
    let bytes = counter.to_bytes();
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[..], &bytes, period.as_str().as_bytes()].concat()
}

impl Row {
    /// Returns all entries of the key.
    pub(super) fn entries(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let Self { key: stored, current, former } = self;
        let id = stored.id.as_bytes();
        let expires = stored.expires_at.map_or([u8::MAX; 8], instant);
        let state = [&[u8::from(stored.revoked.is_some())], &expires[..]].concat();
        let mut entries = vec![
            (key(stored.id), self.document()),
            (digest(current), id.to_vec()),
            (with_id(&of_owner(b'o', &stored.owner), id), state),
            (with_id(&of_tenant(b't', stored.owner.tenant()), id), Vec::new()),
        ];
        if let Some(former) = former {
            entries.push((digest(former), id.to_vec()));
        }
        if let Some(token) = &stored.issue_token {
            let issued = join(b'x', &[&of_owner(b'o', &stored.owner)[1..], token, id]);
            entries.push((issued, instant(stored.created_at).to_vec()));
        }
        if let Some(since) = stored.dead_since() {
            entries.push((join(b'r', &[&instant(since), id]), Vec::new()));
        }
        entries
    }

    fn document(&self) -> Vec<u8> {
        let hex = |digest: &SecretDigest| hex::encode(digest.to_bytes());
        json(&RowDocument {
            key: KeyDocument::from(&self.key),
            current: hex(&self.current),
            former: self.former.as_ref().map_or_else(String::new, hex),
        })
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let stored: RowDocument = serde_json::from_slice(bytes).map_err(StoreError::corrupt)?;
        let digest = |text: &str| {
            let bytes = hex::decode(text).map_err(|_| damaged())?;
            SecretDigest::from_bytes(&bytes).ok_or_else(damaged)
        };
        let key = Key::try_from(stored.key)?;
        let former = (!stored.former.is_empty()).then(|| digest(&stored.former)).transpose()?;
        if former.is_some() != key.retiring.is_some() {
            return Err(damaged());
        }
        Ok(Self { key, current: digest(&stored.current)?, former })
    }
}

/// Returns all entries of an event.
pub(super) fn event_entries(stored: &AuditEvent) -> Vec<(Vec<u8>, Vec<u8>)> {
    let id = stored.id.as_bytes();
    let mut entries = vec![
        (event(stored.id), json(&EventDocument::from(stored))),
        (with_id(&of_tenant(b'a', &stored.tenant), id), Vec::new()),
        (join(b'w', &[&instant(stored.at), id]), Vec::new()),
    ];
    if let Some(account) = &stored.account {
        entries.push((with_id(&of_account(b'b', &stored.tenant, account), id), Vec::new()));
    }
    if let Some(key_id) = &stored.key_id {
        entries.push((join(b'c', &[key_id.as_bytes(), id]), Vec::new()));
    }
    entries
}

pub(super) fn read_event(bytes: &[u8]) -> Result<AuditEvent, StoreError> {
    serde_json::from_slice::<EventDocument>(bytes).map_err(StoreError::corrupt)?.try_into()
}

pub(super) fn damaged() -> StoreError {
    StoreError::corrupt("an entry of the key–value engine is damaged")
}

fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("documents have text and numbers only, which is valid JSON")
}
