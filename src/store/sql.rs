//! What the SQL stores have in common: the columns of a key, how values are bound and read, and how steps fail.

use sqlx::Error;

use super::StoreError;
use crate::model::Timestamp;

/// The columns of a key, in the order in which [`bind_key`] binds them.
pub(super) const KEY: &str = "id, tenant, account, name, hint, retiring_hint, retiring_ends_at, access, limits, \
    networks, metadata, created_at, expires_at, disabled_at, revoked_at, revoked_reason, rotated_at, \
    rotation_token, issue_token, first_used_at, secret_first_used_at, last_used_at, last_used_ip, revision";

/// Binds the columns of a key. The databases differ in the type of `$id` only.
macro_rules! bind_key {
    ($statement:expr, $id:expr, $key:expr) => {{
        let key: &crate::model::Key = $key;
        let micros = crate::store::sql::micros;
        let (retiring, revoked) = (key.retiring.as_ref(), key.revoked.as_ref());
        $statement
            .bind($id)
            .bind(key.owner.tenant())
            .bind(key.owner.account())
            .bind(key.name.as_str())
            .bind(&key.hint)
            .bind(retiring.map(|retiring| &retiring.hint))
            .bind(micros(retiring.map(|retiring| retiring.ends_at)))
            .bind(crate::store::codec::access(&key.access))
            .bind(crate::store::codec::limits(&key.limits))
            .bind(crate::store::codec::networks(&key.networks))
            .bind(crate::store::codec::metadata(&key.metadata))
            .bind(key.created_at.as_unix_micros())
            .bind(micros(key.expires_at))
            .bind(micros(key.disabled_at))
            .bind(micros(revoked.map(|revoked| revoked.at)))
            .bind(revoked.map(|revoked| &revoked.reason))
            .bind(micros(key.rotated_at))
            .bind(key.rotation_token.as_ref().map(|token| token.as_slice()))
            .bind(key.issue_token.as_ref().map(|token| token.as_slice()))
            .bind(micros(key.first_used_at))
            .bind(micros(key.secret_first_used_at))
            .bind(micros(key.last_used_at))
            .bind(key.last_used_ip.map(|ip| ip.to_string()))
            .bind(i64::try_from(key.revision).unwrap_or(i64::MAX))
    }};
}
pub(super) use bind_key;

/// Defines the functions that read a database's rows.
macro_rules! row_readers {
    ($row:ty, $failure:ty) => {
        /// Reads the columns of a key after its id.
        pub(super) fn read_key_with_id(
            row: &$row,
            id: crate::model::KeyId,
        ) -> Result<crate::model::Key, $failure> {
            use crate::{
                model::{Key, Name, RetiringSecret, Revocation},
                store::{StoreError, codec, sql::corrupt_column},
            };
            let at = |column| optional_instant(row, column);
            let retiring = match (row.try_get("retiring_hint")?, at("retiring_ends_at")?) {
                (Some(hint), Some(ends_at)) => Some(RetiringSecret { hint, ends_at }),
                (None, None) => None,
                _ => return Err(corrupt_column("retiring_hint").into()),
            };
            // A reason without an instant is damage. The key must not be read as not revoked.
            let revoked = match (at("revoked_at")?, row.try_get("revoked_reason")?) {
                (Some(at), Some(reason)) => Some(Revocation { at, reason }),
                (None, None) => None,
                _ => return Err(corrupt_column("revoked_at").into()),
            };
            Ok(Key {
                id,
                owner: owner(row)?,
                name: Name::new(row.try_get("name")?).map_err(StoreError::corrupt)?,
                hint: row.try_get("hint")?,
                retiring,
                access: codec::read_access(row.try_get("access")?)?,
                limits: codec::read_limits(row.try_get("limits")?)?,
                networks: codec::read_networks(row.try_get("networks")?)?,
                metadata: codec::read_metadata(row.try_get("metadata")?)?,
                created_at: instant(row, "created_at")?,
                expires_at: at("expires_at")?,
                disabled_at: at("disabled_at")?,
                revoked,
                rotated_at: at("rotated_at")?,
                rotation_token: bytes(row, "rotation_token")?,
                issue_token: bytes(row, "issue_token")?,
                first_used_at: at("first_used_at")?,
                secret_first_used_at: at("secret_first_used_at")?,
                last_used_at: at("last_used_at")?,
                last_used_ip: ip(row, "last_used_ip")?,
                revision: number(row, "revision")?,
            })
        }

        pub(super) fn digest(row: &$row) -> Result<crate::secret::SecretDigest, $failure> {
            let stored = crate::secret::SecretDigest::from_bytes(row.try_get("digest")?);
            Ok(stored.ok_or_else(|| crate::store::sql::corrupt_column("digest"))?)
        }

        /// Reads the usage of a key in one hour.
        pub(super) fn hourly_usage(
            row: &$row,
            key_id: crate::model::KeyId,
        ) -> Result<crate::store::HourlyUsage, $failure> {
            Ok(crate::store::HourlyUsage {
                key_id,
                hour: instant(row, "hour")?,
                accepted: number(row, "accepted")?,
                denied: number(row, "denied")?,
                limited: number(row, "limited")?,
            })
        }

        pub(super) fn owner(row: &$row) -> Result<crate::model::Owner, $failure> {
            let (tenant, account) = (row.try_get("tenant")?, row.try_get("account")?);
            let owner = crate::model::Owner::from_parts(tenant, account);
            Ok(owner.map_err(crate::store::StoreError::corrupt)?)
        }

        /// Reads an instant that is always there.
        pub(super) fn instant(
            row: &$row,
            column: &str,
        ) -> Result<crate::model::Timestamp, $failure> {
            let missing = || crate::store::sql::corrupt_column(column);
            Ok(optional_instant(row, column)?.ok_or_else(missing)?)
        }

        fn optional_instant(
            row: &$row,
            column: &str,
        ) -> Result<Option<crate::model::Timestamp>, $failure> {
            let micros: Option<i64> = row.try_get(column)?;
            let checked = |micros| crate::store::sql::checked_instant(column, micros);
            Ok(micros.map(checked).transpose()?)
        }

        /// Reads an integer that fits `T`; any other is corrupt.
        pub(super) fn number<T: TryFrom<i64>>(row: &$row, column: &str) -> Result<T, $failure> {
            Ok(crate::store::sql::checked_number(column, row.try_get(column)?)?)
        }

        /// Reads exactly `N` bytes.
        pub(super) fn bytes<const N: usize>(
            row: &$row,
            column: &str,
        ) -> Result<Option<[u8; N]>, $failure> {
            let stored: Option<&[u8]> = row.try_get(column)?;
            let corrupt = |_| crate::store::sql::corrupt_column(column);
            Ok(stored.map(|bytes| bytes.try_into().map_err(corrupt)).transpose()?)
        }

        pub(super) fn ip(row: &$row, column: &str) -> Result<Option<std::net::IpAddr>, $failure> {
            let text: Option<&str> = row.try_get(column)?;
            let ip = text.map(str::parse).transpose();
            Ok(ip.map_err(crate::store::StoreError::corrupt)?)
        }
    };
}
pub(super) use row_readers;

/// Why one step of a call failed.
#[derive(Debug)]
pub(super) enum SqlFailure {
    Database(Error),
    /// The error is classified already.
    Store(StoreError),
}

impl From<Error> for SqlFailure {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for SqlFailure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Whether a value could not be decoded: a table has one that it must not have.
pub(super) fn is_undecodable(error: &Error) -> bool {
    matches!(
        error,
        Error::ColumnDecode { .. }
            | Error::Decode(_)
            | Error::ColumnNotFound(_)
            | Error::ColumnIndexOutOfBounds { .. }
            | Error::TypeNotFound { .. }
    )
}

pub(super) fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_unix_micros)
}

/// Converts microseconds; a value outside of [`Timestamp`]'s range is corrupt.
pub(super) fn checked_instant(column: &str, micros: i64) -> Result<Timestamp, StoreError> {
    let instant = Timestamp::from_unix_micros(micros);
    if instant.as_unix_micros() == micros { Ok(instant) } else { Err(corrupt_column(column)) }
}

pub(super) fn checked_number<T: TryFrom<i64>>(column: &str, number: i64) -> Result<T, StoreError> {
    T::try_from(number).map_err(|_| corrupt_column(column))
}

pub(super) fn corrupt_column(column: &str) -> StoreError {
    StoreError::corrupt(format!("the column {column} has an invalid value"))
}
