//! Keys and audit events as documents, for stores that keep them in a format of serde.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};

use super::StoreError;
use crate::{
    audit::AuditEvent,
    model::{
        Access, Key, KeyLimits, Metadata, Name, Networks, Owner, Quota, Rate, RetiringSecret,
        Revocation, Timestamp,
    },
};

/// A [`Key`] as a document, which a store writes in any format of serde: JSON, CBOR, MessagePack.
///
/// A document has a version. One of this version or an earlier one can be read, however old it is. One of a
/// later version cannot be deserialized, nor one that lacks a field or has another one: a key whose revocation
/// was lost must not be read as not revoked. A store MUST report such a document as
/// [*corrupt*](super::StoreErrorKind::Corrupt).
///
/// # Examples
/// ```
/// use keyward::{Key, store::{KeyDocument, StoreError}};
///
/// fn write(key: &Key) -> String {
///     serde_json::to_string(&KeyDocument::from(key)).expect("text and numbers are valid JSON")
/// }
///
/// fn read(json: &str) -> Result<Key, StoreError> {
///     serde_json::from_str::<KeyDocument>(json).map_err(StoreError::corrupt)?.try_into()
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let key = keyward::testing::TestKeys::new().issue(["a"]).await.key;
/// assert_eq!(read(&write(&key)).unwrap(), *key);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDocument {
    version: Version,
    id: String,
    tenant: String,
    account: String,
    name: String,
    hint: String,
    #[serde(deserialize_with = "present")]
    retiring: Option<RetiringDocument>,
    #[serde(deserialize_with = "present")]
    scopes: Option<Vec<String>>,
    #[serde(deserialize_with = "present")]
    rate: Option<RateDocument>,
    #[serde(deserialize_with = "present")]
    quota: Option<QuotaDocument>,
    #[serde(deserialize_with = "present")]
    networks: Option<Vec<String>>,
    metadata: Vec<(String, String)>,
    created_at: i64,
    #[serde(deserialize_with = "present")]
    expires_at: Option<i64>,
    #[serde(deserialize_with = "present")]
    disabled_at: Option<i64>,
    #[serde(deserialize_with = "present")]
    revoked: Option<RevocationDocument>,
    #[serde(deserialize_with = "present")]
    rotated_at: Option<i64>,
    #[serde(deserialize_with = "present")]
    rotation_token: Option<String>,
    #[serde(deserialize_with = "present")]
    issue_token: Option<String>,
    #[serde(deserialize_with = "present")]
    first_used_at: Option<i64>,
    #[serde(deserialize_with = "present")]
    secret_first_used_at: Option<i64>,
    #[serde(deserialize_with = "present")]
    last_used_at: Option<i64>,
    #[serde(deserialize_with = "present")]
    last_used_ip: Option<IpAddr>,
    revision: u64,
}

/// An [`AuditEvent`] as a document. What [`KeyDocument`] says of versions holds here as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventDocument {
    version: Version,
    id: String,
    at: i64,
    kind: String,
    outcome: String,
    tenant: String,
    #[serde(deserialize_with = "present")]
    account: Option<String>,
    #[serde(deserialize_with = "present")]
    key_id: Option<String>,
    actor: String,
    #[serde(deserialize_with = "present")]
    ip: Option<IpAddr>,
    #[serde(deserialize_with = "present")]
    user_agent: Option<String>,
    #[serde(deserialize_with = "present")]
    reason: Option<String>,
    count: u32,
}

/// A version that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
struct Version(u16);

impl TryFrom<u16> for Version {
    type Error = String;

    fn try_from(version: u16) -> Result<Self, String> {
        match version {
            1..=CURRENT => Ok(Self(version)),
            _ => Err(format!("version {version} is not known: the newest is {CURRENT}")),
        }
    }
}

impl From<Version> for u16 {
    fn from(version: Version) -> Self {
        version.0
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetiringDocument {
    hint: String,
    ends_at: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationDocument {
    at: i64,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateDocument {
    uses: NonZeroU32,
    period_us: u64,
    burst: NonZeroU32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuotaDocument {
    uses: u64,
    period: String,
}

/// Without `..`, so that a new field does not compile until a version has it.
impl From<&Key> for KeyDocument {
    fn from(key: &Key) -> Self {
        let Key {
            id,
            owner,
            name,
            hint,
            retiring,
            access,
            limits: KeyLimits { rate, quota },
            networks,
            metadata,
            created_at,
            expires_at,
            disabled_at,
            revoked,
            rotated_at,
            rotation_token,
            issue_token,
            first_used_at,
            secret_first_used_at,
            last_used_at,
            last_used_ip,
            revision,
        } = key;
        let micros = |at: &Option<Timestamp>| at.map(Timestamp::as_unix_micros);
        Self {
            version: Version(CURRENT),
            id: id.to_string(),
            tenant: owner.tenant().into(),
            account: owner.account().into(),
            name: name.as_str().into(),
            hint: hint.clone(),
            retiring: retiring.as_ref().map(|RetiringSecret { hint, ends_at }| RetiringDocument {
                hint: hint.clone(),
                ends_at: ends_at.as_unix_micros(),
            }),
            scopes: match access {
                Access::Inherited => None,
                Access::Only(scopes) => Some(scopes.iter().map(Into::into).collect()),
            },
            rate: rate.map(|rate| RateDocument {
                uses: rate.uses,
                period_us: u64::try_from(rate.period.as_micros()).unwrap_or(u64::MAX),
                burst: rate.burst,
            }),
            quota: quota.map(|quota| QuotaDocument {
                uses: quota.uses(),
                period: quota.period().as_str().into(),
            }),
            networks: match networks {
                Networks::Any => None,
                Networks::Only(all) => Some(all.iter().map(ToString::to_string).collect()),
            },
            metadata: metadata.iter().map(|(key, value)| (key.into(), value.into())).collect(),
            created_at: created_at.as_unix_micros(),
            expires_at: micros(expires_at),
            disabled_at: micros(disabled_at),
            revoked: revoked.as_ref().map(|Revocation { at, reason }| RevocationDocument {
                at: at.as_unix_micros(),
                reason: reason.clone(),
            }),
            rotated_at: micros(rotated_at),
            rotation_token: rotation_token.map(hex::encode),
            issue_token: issue_token.map(hex::encode),
            first_used_at: micros(first_used_at),
            secret_first_used_at: micros(secret_first_used_at),
            last_used_at: micros(last_used_at),
            last_used_ip: *last_used_ip,
            revision: *revision,
        }
    }
}

/// Reads documents of all versions so far.
impl TryFrom<KeyDocument> for Key {
    type Error = StoreError;

    fn try_from(stored: KeyDocument) -> Result<Self, StoreError> {
        let KeyDocument { version: Version(1..=CURRENT), .. } = stored else {
            return Err(StoreError::corrupt("the version of the document is not known"));
        };
        let rate = stored.rate.map(|RateDocument { uses, period_us, burst }| Rate {
            uses,
            period: Duration::from_micros(period_us),
            burst,
        });
        let quota = stored.quota.map(|QuotaDocument { uses, period }| {
            Ok::<_, StoreError>(Quota::per(period.parse().map_err(StoreError::corrupt)?, uses))
        });
        let networks = stored.networks.map(|all| {
            // `Networks::only` would apply the bounds for new input, but stored data must stay readable.
            let all = all.iter().map(|text| text.parse()).collect::<Result<_, _>>();
            all.map(Networks::Only).map_err(StoreError::corrupt)
        });
        let scopes = stored.scopes.map(|all| Access::only(all).map_err(StoreError::corrupt));
        let retiring = stored.retiring.map(|RetiringDocument { hint, ends_at }| {
            Ok::<_, StoreError>(RetiringSecret { hint, ends_at: instant(ends_at)? })
        });
        let revoked = stored.revoked.map(|RevocationDocument { at, reason }| {
            Ok::<_, StoreError>(Revocation { at: instant(at)?, reason })
        });
        Ok(Self {
            id: stored.id.parse().map_err(StoreError::corrupt)?,
            owner: Owner::from_parts(&stored.tenant, &stored.account)
                .map_err(StoreError::corrupt)?,
            name: Name::new(&stored.name).map_err(StoreError::corrupt)?,
            hint: stored.hint,
            retiring: retiring.transpose()?,
            access: scopes.transpose()?.unwrap_or(Access::Inherited),
            limits: KeyLimits { rate, quota: quota.transpose()? },
            networks: networks.transpose()?.unwrap_or(Networks::Any),
            metadata: Metadata::new(stored.metadata).map_err(StoreError::corrupt)?,
            created_at: instant(stored.created_at)?,
            expires_at: stored.expires_at.map(instant).transpose()?,
            disabled_at: stored.disabled_at.map(instant).transpose()?,
            revoked: revoked.transpose()?,
            rotated_at: stored.rotated_at.map(instant).transpose()?,
            rotation_token: stored.rotation_token.map(token).transpose()?,
            issue_token: stored.issue_token.map(token).transpose()?,
            first_used_at: stored.first_used_at.map(instant).transpose()?,
            secret_first_used_at: stored.secret_first_used_at.map(instant).transpose()?,
            last_used_at: stored.last_used_at.map(instant).transpose()?,
            last_used_ip: stored.last_used_ip,
            revision: stored.revision,
        })
    }
}

impl From<&AuditEvent> for EventDocument {
    fn from(event: &AuditEvent) -> Self {
        let AuditEvent {
            id,
            at,
            kind,
            outcome,
            tenant,
            account,
            key_id,
            actor,
            ip,
            user_agent,
            reason,
            count,
        } = event.clone();
        Self {
            version: Version(CURRENT),
            id: id.to_string(),
            at: at.as_unix_micros(),
            kind: kind.as_str().into(),
            outcome: outcome.as_str().into(),
            tenant,
            account,
            key_id: key_id.map(|id| id.to_string()),
            actor,
            ip,
            user_agent,
            reason,
            count,
        }
    }
}

impl TryFrom<EventDocument> for AuditEvent {
    type Error = StoreError;

    fn try_from(stored: EventDocument) -> Result<Self, StoreError> {
        let key_id = stored.key_id.map(|id| id.parse().map_err(StoreError::corrupt));
        Ok(Self {
            id: stored.id.parse().map_err(StoreError::corrupt)?,
            at: instant(stored.at)?,
            kind: stored.kind.parse().map_err(StoreError::corrupt)?,
            outcome: stored.outcome.parse().map_err(StoreError::corrupt)?,
            tenant: stored.tenant,
            account: stored.account,
            key_id: key_id.transpose()?,
            actor: stored.actor,
            ip: stored.ip,
            user_agent: stored.user_agent,
            reason: stored.reason,
            count: stored.count,
        })
    }
}

/// As an [`EventDocument`].
impl Serialize for AuditEvent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        EventDocument::from(self).serialize(serializer)
    }
}

/// As an [`EventDocument`].
impl<'de> Deserialize<'de> for AuditEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = EventDocument::deserialize(deserializer)?;
        document.try_into().map_err(serde::de::Error::custom)
    }
}

/// Requires the field. Otherwise, serde reads a missing field as `None`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    field: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(field)
}

/// A value outside of [`Timestamp`]'s range is corrupt.
fn instant(micros: i64) -> Result<Timestamp, StoreError> {
    let instant = Timestamp::from_unix_micros(micros);
    let is_valid = instant.as_unix_micros() == micros;
    is_valid.then_some(instant).ok_or_else(|| StoreError::corrupt("an instant is out of range"))
}

fn token(text: String) -> Result<[u8; 32], StoreError> {
    let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| StoreError::corrupt("a token is not 32 bytes in hexadecimal digits"))
}

const CURRENT: u16 = 1;
