use std::{sync::Arc, time::Duration};

use super::{
    commands::{RedisDatabase, Reply},
    msgpack::damaged_record,
    records::read_key,
};
use crate::{
    secret::SecretDigest,
    store::{
        FoundKey, StoreError,
        coalesced::{LookupRecord, LookupSource},
    },
};

/// Finds keys in one round trip on the shared connection.
impl LookupSource for Arc<RedisDatabase> {
    const NAME: &'static str = "Redis";
    const MAX_IN_FLIGHT: usize = 2;

    fn timeout(&self) -> Duration {
        self.primary.timeout()
    }

    async fn look_up(&self, digests: &[SecretDigest]) -> Result<Vec<LookupRecord>, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.secrets());
        for digest in digests {
            command.arg(&digest.to_bytes());
        }
        // Not a script: a script makes a lookup half as expensive again.
        let records = self.read_command(&command).await?.list()?;
        let existing = digests.iter().zip(&records).filter(|(_, record)| !record.is_nil());
        Ok(existing
            .map(|(digest, record)| (*digest, read_found_key(digest, record).map(Some)))
            .collect())
    }
}

fn read_found_key(wanted: &SecretDigest, reply: &Reply) -> Result<FoundKey, StoreError> {
    let (id, packed) = reply.bytes()?.split_at_checked(16).ok_or_else(damaged_record)?;
    let record = read_key(id, packed)?;
    let (digest, ends_at) = if record.current == *wanted {
        (record.current, None)
    } else {
        let former = record.former.filter(|former| former == wanted).ok_or_else(damaged_record)?;
        let retiring = record.key.retiring.as_ref().ok_or_else(damaged_record)?;
        (former, Some(retiring.ends_at))
    };
    Ok(FoundKey { key: record.key.into(), digest, ends_at })
}
