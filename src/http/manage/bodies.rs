//! What callers may say. Nobody can name an owner or a tenant: there is no field for that, and
//! fields that are not known are refused.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer};

use super::failure::ManageError;
use crate::{
    manage::{KeyChange, NewKey, Rotation},
    model::{Access, Expiry, Metadata, Networks, Owner},
};

/// `POST /api-keys`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Create {
    name: String,
    #[serde(default, deserialize_with = "present")]
    scopes: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    expires_at: Option<String>,
    #[serde(default, deserialize_with = "present")]
    expires_in_days: Option<u32>,
    #[serde(default, deserialize_with = "present")]
    allowed_networks: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    metadata: Option<BTreeMap<String, String>>,
}

/// `PATCH /api-keys/{id}`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Change {
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    scopes: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    allowed_networks: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present")]
    metadata: Option<BTreeMap<String, String>>,
}

/// `POST /api-keys/{id}/rotate`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Rotate {
    #[serde(default)]
    overlap_seconds: u32,
}

impl Create {
    pub(super) fn into_key(self, owner: &Owner) -> Result<NewKey, ManageError> {
        let mut new = NewKey::new(owner, &self.name)?;
        if let Some(scopes) = self.scopes {
            new = new.access(Access::only(scopes)?);
        }
        if let Some(networks) = self.allowed_networks {
            new = new.networks(Networks::only(networks)?);
        }
        if let Some(metadata) = self.metadata {
            new = new.metadata(Metadata::new(metadata)?);
        }
        match (self.expires_at, self.expires_in_days) {
            (None, None) => Ok(new),
            (Some(instant), None) => Ok(new.expiry(Expiry::At(instant.parse()?))),
            (None, Some(days)) => Ok(new.expiry(Expiry::days(days))),
            (Some(_), Some(_)) => Err(ManageError::invalid("say expiresAt or expiresInDays, not both")),
        }
    }
}

impl Change {
    pub(super) fn into_change(self) -> Result<KeyChange, ManageError> {
        let mut change = KeyChange::default();
        if let Some(name) = self.name {
            change = change.name(&name)?;
        }
        if let Some(scopes) = self.scopes {
            change = change.access(Access::only(scopes)?);
        }
        if let Some(networks) = self.allowed_networks {
            change = change.networks(Networks::only(networks)?);
        }
        if let Some(metadata) = self.metadata {
            change = change.metadata(Metadata::new(metadata)?);
        }
        Ok(change)
    }
}

impl Rotate {
    pub(super) fn into_rotation(self) -> Rotation {
        Rotation::overlap(Duration::from_secs(self.overlap_seconds.into()))
    }
}

/// A field that is there has a value: `null` would have to mean something, and people disagree
/// about what.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}
