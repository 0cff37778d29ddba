use super::{
    Inner,
    call::Arguments,
    changes::packed_event,
    names::{member, owner_scope, tenant_scope, unrevoked},
    reply::{pairs, unheard_of},
    rows::{instant, pack_event, read_key},
    scripts::{ANNOUNCE, DEAD, DELETE, PURGE_KEYS, REVOKE, REVOKE_ALL},
};
use crate::{
    audit::AuditEvent,
    model::{Key, KeyId, Owner, OwnerScope, Timestamp},
    store::{RevokeOutcome, StoreError},
};

/// Changes after which a key does not live any more. They are confirmed also where there was
/// nothing to do: what they found done may be what was never confirmed.
impl Inner {
    pub(super) async fn revoke(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<RevokeOutcome, StoreError> {
        let arguments: Arguments<'_> = &[
            &self.tag()?,
            self.waits(),
            id.as_bytes(),
            within.tenant().as_bytes(),
            within.account().unwrap_or_default().as_bytes(),
            &instant(event.at),
            event.reason.as_deref().unwrap_or_default().as_bytes(),
            &packed_event(event),
        ];
        let reply = self.change(&REVOKE, arguments, |_| true).await?;
        match reply.bytes()? {
            b"done" => Ok(RevokeOutcome::Revoked),
            b"already" => Ok(RevokeOutcome::AlreadyRevoked),
            b"none" => Ok(RevokeOutcome::NotFound),
            _ => Err(unheard_of(&reply)),
        }
    }

    pub(super) async fn revoke_all(
        &self,
        owner: &Owner,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        // The script writes the events itself, of the keys that it finds: all but the key's id and
        // the event's own is known here.
        let nobody = KeyId::from_bytes([0; 16]);
        let (tenant, account) = (owner.tenant().into(), Some(owner.account().into()));
        let any = AuditEvent { tenant, account, key_id: Some(nobody), ..event.clone() };
        let record = pack_event(&any);
        let (id, number) = event.id.as_bytes().split_at(12);
        let number =
            u32::from_be_bytes(number.try_into().expect("sixteen less twelve")).to_string();
        let arguments: Arguments<'_> = &[
            &self.tag()?,
            self.waits(),
            &unrevoked(owner),
            owner.tenant().as_bytes(),
            owner.account().as_bytes(),
            &instant(event.at),
            event.reason.as_deref().unwrap_or_default().as_bytes(),
            id,
            number.as_bytes(),
            &record[..record.len() - 16],
            &member(b'A', &[&instant(event.at)]),
            &member(b'T', &[&tenant_scope(owner.tenant())]),
            &member(b'O', &[&owner_scope(owner)]),
        ];
        let reply = self.change(&REVOKE_ALL, arguments, |_| true).await?.list()?;
        let keys = pairs(&reply).map(|pair| pair.and_then(|(id, packed)| read_key(id, packed)));
        (0..).zip(keys).map(|(n, row)| Ok(event.for_key(n, &row?.key))).collect()
    }

    pub(super) async fn announce_account_change(
        &self,
        owner: &Owner,
        at: Timestamp,
    ) -> Result<u32, StoreError> {
        let arguments: Arguments<'_> = &[&self.tag()?, &unrevoked(owner), &instant(at)];
        let changed = |reply: &super::reply::Reply| !matches!(reply.number(), Ok(0));
        self.change(&ANNOUNCE, arguments, changed).await?.number()
    }

    pub(super) async fn delete(
        &self,
        within: OwnerScope<'_>,
        id: KeyId,
        event: &AuditEvent,
    ) -> Result<bool, StoreError> {
        let arguments: Arguments<'_> = &[
            &self.tag()?,
            self.waits(),
            id.as_bytes(),
            within.tenant().as_bytes(),
            within.account().unwrap_or_default().as_bytes(),
            &instant(event.at),
            &packed_event(event),
        ];
        Ok(self.change(&DELETE, arguments, |_| true).await?.number()? == 1)
    }

    /// Two steps: which keys are dead, and, in one step again, the end of those that still are.
    pub(super) async fn purge_keys(
        &self,
        before: Timestamp,
        limit: u32,
        event: &AuditEvent,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let (before, limit) = (instant(before), limit.to_string());
        loop {
            let dead = self.read(&DEAD, &[&before, limit.as_bytes()]).await?.list()?;
            let rows = pairs(&dead).map(|pair| pair.and_then(|(id, packed)| read_key(id, packed)));
            let keys: Vec<Key> = rows.map(|row| Ok(row?.key)).collect::<Result<_, StoreError>>()?;
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            let mut events: Vec<AuditEvent> =
                (0..).zip(&keys).map(|(n, key)| event.for_key(n, key)).collect();
            let packed: Vec<Vec<u8>> = events.iter().map(packed_event).collect();
            let (tag, at) = (self.tag()?, instant(event.at));
            let mut arguments: Vec<&[u8]> = vec![&tag, &before, &at];
            for (key, event) in keys.iter().zip(&packed) {
                arguments.extend([&key.id.as_bytes()[..], event]);
            }
            let removed = self.change(&PURGE_KEYS, &arguments, |_| true).await?.list()?;
            let removed: Vec<&[u8]> =
                removed.iter().map(|id| id.bytes()).collect::<Result<_, _>>()?;
            events.retain(|event| {
                event.key_id.is_some_and(|id| removed.contains(&&id.as_bytes()[..]))
            });
            // If others were faster with all of them, there may be more.
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}
