use super::{
    Inner,
    call::Arguments,
    names::{LAST, expired, members_of_event, members_of_key, unrevoked},
    pack::pack,
    reply::unheard_of,
    rows::{Told, address, instant, instant_or_nothing, pack_event, pack_key},
    scripts::{INSERT, RECORD, REHASH, ROTATE, TOUCH, UPDATE},
};
use crate::{
    audit::AuditEvent,
    model::{Key, Owner, Timestamp},
    secret::SecretDigest,
    store::{
        InsertKey, InsertOutcome, KeyUse, PreviousSecret, RotateOutcome, RotateSecret, StoreError,
        UpdateOutcome,
    },
};

/// Changes to keys that go on living.
impl Inner {
    pub(super) async fn insert(&self, new: InsertKey<'_>) -> Result<InsertOutcome, StoreError> {
        let InsertKey { key, digest, max_active, event } = new;
        let (tag, digest, record) = (self.tag()?, digest.to_bytes(), pack_key(key, digest));
        let (at, event_packed) = (instant(event.at), packed_event(event));
        let max = max_active.map(|max| max.to_string()).unwrap_or_default();
        let (first, last) = live_keys(&key.owner, event.at);
        let members = members_of_key(key);
        let mut arguments: Vec<&[u8]> = vec![&tag, key.id.as_bytes(), &digest, &record, &at];
        arguments.extend([&event_packed[..], max.as_bytes(), &first, &last]);
        arguments.extend(members.iter().map(Vec::as_slice));
        let reply = self.change(&INSERT, &arguments, |reply| reply.is("done")).await?;
        match reply.bytes()? {
            b"done" => Ok(InsertOutcome::Inserted),
            b"limit" => Ok(InsertOutcome::LimitReached),
            b"taken" => Ok(InsertOutcome::DigestTaken),
            _ => Err(unheard_of(&reply)),
        }
    }

    pub(super) async fn update(
        &self,
        key: &Key,
        event: &AuditEvent,
    ) -> Result<UpdateOutcome, StoreError> {
        let Told { access, limits, networks, metadata } = Told::of(key);
        let arguments: Arguments<'_> = &[
            &self.tag()?,
            key.id.as_bytes(),
            key.owner.tenant().as_bytes(),
            key.owner.account().as_bytes(),
            &key.revision.to_be_bytes(),
            &instant(event.at),
            &packed_event(event),
            key.name.as_str().as_bytes(),
            access.as_bytes(),
            limits.as_bytes(),
            networks.as_bytes(),
            metadata.as_bytes(),
            &instant_or_nothing(key.disabled_at),
        ];
        let reply = self.change(&UPDATE, arguments, |reply| reply.is("done")).await?;
        match reply.bytes()? {
            b"done" => Ok(UpdateOutcome::Updated),
            b"conflict" => Ok(UpdateOutcome::Conflict),
            b"none" => Ok(UpdateOutcome::NotFound),
            _ => Err(unheard_of(&reply)),
        }
    }

    pub(super) async fn rotate(
        &self,
        rotate: RotateSecret<'_>,
    ) -> Result<RotateOutcome, StoreError> {
        let RotateSecret { key, digest, hint, previous, token, event } = rotate;
        let ends_at = match previous {
            PreviousSecret::EndsAt(ends_at) => Some(ends_at),
            PreviousSecret::Replaced => None,
        };
        let arguments: Arguments<'_> = &[
            &self.tag()?,
            key.id.as_bytes(),
            key.owner.tenant().as_bytes(),
            key.owner.account().as_bytes(),
            &key.revision.to_be_bytes(),
            &instant(event.at),
            &packed_event(event),
            &digest.to_bytes(),
            hint.as_bytes(),
            token.as_ref().map_or(&[], |token| token),
            &instant_or_nothing(ends_at),
        ];
        let reply = self.change(&ROTATE, arguments, |reply| reply.is("done")).await?;
        match reply.bytes()? {
            b"done" => Ok(RotateOutcome::Rotated),
            b"conflict" => Ok(RotateOutcome::Conflict),
            b"none" => Ok(RotateOutcome::NotFound),
            b"taken" => Ok(RotateOutcome::DigestTaken),
            _ => Err(unheard_of(&reply)),
        }
    }

    pub(super) async fn rehash(
        &self,
        from: &SecretDigest,
        to: &SecretDigest,
    ) -> Result<bool, StoreError> {
        let arguments: Arguments<'_> = &[&from.to_bytes(), &to.to_bytes()];
        let reply =
            self.change(&REHASH, arguments, |reply| matches!(reply.number(), Ok(1))).await?;
        Ok(reply.number()? == 1)
    }

    pub(super) async fn record_uses(&self, uses: &[KeyUse]) -> Result<Vec<AuditEvent>, StoreError> {
        if uses.is_empty() {
            return Ok(Vec::new());
        }
        let packed: Vec<Vec<u8>> = uses.iter().map(packed_use).collect();
        let arguments: Vec<&[u8]> = packed.iter().map(Vec::as_slice).collect();
        let mut firsts = Vec::new();
        for n in self.change(&TOUCH, &arguments, |_| true).await?.list()? {
            let used = uses.get(n.number()? as usize).ok_or_else(|| unheard_of(&n))?;
            firsts.push(used.first_use());
        }
        Ok(firsts)
    }

    pub(super) async fn record_events(&self, events: &[AuditEvent]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let packed: Vec<Vec<u8>> = events.iter().map(packed_event).collect();
        let arguments: Vec<&[u8]> = packed.iter().map(Vec::as_slice).collect();
        self.change(&RECORD, &arguments, |_| true).await.map(drop)
    }
}

/// An event as the scripts take it: its id, its record, and its members of the log.
pub(super) fn packed_event(event: &AuditEvent) -> Vec<u8> {
    let (record, members) = (pack_event(event), members_of_event(event.id, event));
    let fields = [&event.id.as_bytes()[..], &record];
    pack(fields.into_iter().chain(members.iter().map(Vec::as_slice)))
}

fn packed_use(used: &KeyUse) -> Vec<u8> {
    pack([
        &used.key_id.as_bytes()[..],
        used.owner.tenant().as_bytes(),
        used.owner.account().as_bytes(),
        &instant(used.first_at),
        &instant(used.last_at),
        &address(used.ip),
        &packed_event(&used.first_use()),
    ])
}

/// Between what an owner's live keys stand in the index, as bounds of a range.
fn live_keys(owner: &Owner, now: Timestamp) -> (Vec<u8>, Vec<u8>) {
    let last = [&b"("[..], &unrevoked(owner)[..], &LAST, &LAST].concat();
    ([&b"("[..], &expired(owner, now)[..]].concat(), last)
}
