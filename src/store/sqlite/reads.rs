use std::sync::Arc;

use super::{
    SqliteStore,
    rows::{found, key},
};
use crate::{
    model::{Key, KeyId, OwnerScope, Status},
    secret::SecretDigest,
    store::{FoundKey, KeyQuery, StoreError},
};

/// Reads of keys, each of them one statement.
impl SqliteStore {
    /// One statement, however many digests there are: between two of them, a secret could move from
    /// a digest that is looked for later to one that was looked for already.
    pub(super) async fn find_key(
        &self,
        digests: &[SecretDigest],
    ) -> Result<Option<FoundKey>, StoreError> {
        self.read(async |connection, sql| {
            let find = match digests {
                [digest] => sqlx::query(sql.find_one.clone()).bind(digest.to_bytes().to_vec()),
                _ => sqlx::query(sql.find_any.clone()).bind(hex_list(digests)),
            };
            let mut best: Option<FoundKey> = None;
            let rank = |found: &FoundKey| digests.iter().position(|digest| *digest == found.digest);
            for row in find.fetch_all(connection).await? {
                let found = found(&row)?;
                if best.as_ref().is_none_or(|best| rank(&found) < rank(best)) {
                    best = Some(found);
                }
            }
            Ok(best)
        })
        .await
    }

    pub(super) async fn get_key(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
    ) -> Result<Option<Arc<Key>>, StoreError> {
        self.read(async |connection, sql| {
            let row = sqlx::query(sql.get.clone())
                .bind(id.as_bytes().as_slice())
                .bind(within.tenant())
                .bind(within.account())
                .fetch_optional(connection)
                .await?;
            row.map(|row| key(&row).map(Arc::new)).transpose()
        })
        .await
    }

    pub(super) async fn list_keys(
        &self,
        query: &KeyQuery<'_>,
    ) -> Result<Vec<Arc<Key>>, StoreError> {
        let KeyQuery { within, status, after, limit, now } = *query;
        self.read(async |connection, sql| {
            let list = match within {
                OwnerScope::Owner(_) => &sql.list_of_owner,
                OwnerScope::Tenant(_) => &sql.list_of_tenant,
            };
            let rows = sqlx::query(list.clone())
                .bind(within.tenant())
                .bind(within.account())
                .bind(after.as_ref().map_or(BEHIND_ALL, |after| after.as_bytes()))
                .bind(status.map(Status::as_str))
                .bind(now.as_unix_micros())
                .bind(i64::from(limit))
                .fetch_all(connection)
                .await?;
            rows.iter().map(|row| key(row).map(Arc::new)).collect()
        })
        .await
    }

    pub(super) async fn list_tenants(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        self.read(async |connection, sql| {
            let list = sqlx::query_scalar(sql.tenants.clone()).bind(after).bind(i64::from(limit));
            Ok(list.fetch_all(connection).await?)
        })
        .await
    }
}

/// A JSON list of them: one parameter can hold any number.
fn hex_list(digests: &[SecretDigest]) -> String {
    let all: Vec<_> =
        digests.iter().map(|d| format!("\"{}\"", hex::encode(d.to_bytes()))).collect();
    format!("[{}]", all.join(","))
}

/// Longer than an identifier and full of ones: no identifier comes after it.
pub(super) const BEHIND_ALL: &[u8] = &[0xff; 17];
