//! The text encoding of a key's structured fields, shared by all databases.

use std::collections::BTreeMap;

use super::StoreError;
use crate::model::{Access, KeyLimits, Metadata, Networks, Period, Quota, Rate, Scopes};

/// Encodes scopes as a JSON array. *Inherited* is `None`, which differs from an empty array.
pub(super) fn access(access: &Access) -> Option<String> {
    match access {
        Access::Inherited => None,
        Access::Only(scopes) => Some(json(&scopes.iter().collect::<Vec<_>>())),
    }
}

pub(super) fn read_access(text: Option<&str>) -> Result<Access, StoreError> {
    let Some(text) = text else { return Ok(Access::Inherited) };
    // The bounds are for new values. Stored data must stay readable.
    let scopes = Scopes::unbounded(read::<Vec<String>>(text)?);
    scopes.map(Access::Only).map_err(StoreError::corrupt)
}

/// Encodes networks as a JSON array. *Any* is `None`.
pub(super) fn networks(networks: &Networks) -> Option<String> {
    match networks {
        Networks::Any => None,
        Networks::Only(all) => Some(json(&all.iter().map(ToString::to_string).collect::<Vec<_>>())),
    }
}

pub(super) fn read_networks(text: Option<&str>) -> Result<Networks, StoreError> {
    let Some(text) = text else { return Ok(Networks::Any) };
    // As for scopes.
    let all: Result<_, _> = read::<Vec<String>>(text)?.iter().map(|text| text.parse()).collect();
    all.map(Networks::Only).map_err(StoreError::corrupt)
}

/// Encodes metadata as a JSON object of strings.
pub(super) fn metadata(metadata: &Metadata) -> String {
    json(&metadata.iter().collect::<BTreeMap<_, _>>())
}

pub(super) fn read_metadata(text: &str) -> Result<Metadata, StoreError> {
    Metadata::new(read::<BTreeMap<String, String>>(text)?).map_err(StoreError::corrupt)
}

/// Encodes limits as a JSON object, or `None` without limits.
///
/// Unknown fields, written by another version, are read as *corrupt*: an unknown limit must not be
/// dropped.
pub(super) fn limits(limits: &KeyLimits) -> Option<String> {
    let rate = limits.rate.map(|Rate { uses, period, burst }| {
        let period =
            u64::try_from(period.as_micros()).unwrap_or(MAX_JSON_INTEGER).min(MAX_JSON_INTEGER);
        let (uses, burst) = (u64::from(uses.get()), u64::from(burst.get()));
        ("rate", BTreeMap::from([("uses", uses), ("period_us", period), ("burst", burst)]))
    });
    let quota =
        limits.quota.map(|quota| ("quota", BTreeMap::from([(quota.period.as_str(), quota.uses)])));
    let limits: BTreeMap<_, _> = rate.into_iter().chain(quota).collect();
    (!limits.is_empty()).then(|| json(&limits))
}

pub(super) fn read_limits(text: Option<&str>) -> Result<KeyLimits, StoreError> {
    let Some(text) = text else { return Ok(KeyLimits::default()) };
    let mut limits: BTreeMap<String, BTreeMap<String, u64>> = read(text)?;
    let rate = limits.remove("rate").map(|mut rate| {
        let mut take = |name| rate.remove(name).ok_or_else(unknown);
        let number = |value: u64| u32::try_from(value).ok()?.try_into().ok();
        Ok::<_, StoreError>(Rate {
            uses: number(take("uses")?).ok_or_else(unknown)?,
            period: std::time::Duration::from_micros(take("period_us")?),
            burst: number(take("burst")?).ok_or_else(unknown)?,
        })
    });
    let quota = limits.remove("quota").map(|quota| {
        let known = Period::ALL.into_iter().find(|period| quota.contains_key(period.as_str()));
        let period = known.filter(|_| quota.len() == 1).ok_or_else(unknown)?;
        Ok::<_, StoreError>(Quota::per(period, quota[period.as_str()]))
    });
    let (rate, quota) = (rate.transpose()?, quota.transpose()?);
    if limits.is_empty() { Ok(KeyLimits { rate, quota }) } else { Err(unknown()) }
}

fn unknown() -> StoreError {
    StoreError::corrupt("a key has limits that this version of Keyward does not know")
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value)
        .expect("strings, and numbers under string keys, are always valid JSON")
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(StoreError::corrupt)
}

/// The largest integer that every JSON parser reads exactly.
const MAX_JSON_INTEGER: u64 = (1 << 53) - 1;
