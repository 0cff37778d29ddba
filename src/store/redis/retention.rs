use super::{
    Inner,
    names::members_of_event,
    pack::pack,
    reply::pairs,
    rows::{instant, read_event},
    scripts::{OLD_EVENTS, PURGE_CHANGES, PURGE_CODES, PURGE_EVENTS, PURGE_TALLIES, Script},
};
use crate::{model::Timestamp, store::StoreError};

/// Removal of what is old, in steps that are short for the others on the server.
impl Inner {
    pub(super) async fn purge_events(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        let before = instant(before);
        let mut removed = 0;
        while removed < limit {
            let step = (limit - removed).min(STEP).to_string();
            let old = self.read(&OLD_EVENTS, &[&before, step.as_bytes()]).await?.list()?;
            if old.is_empty() {
                break;
            }
            let mut packed = Vec::with_capacity(old.len() / 2);
            for pair in pairs(&old) {
                let (id, record) = pair?;
                let event = read_event(id, record)?;
                let members = members_of_event(event.id, &event);
                packed.push(pack([id].into_iter().chain(members.iter().map(Vec::as_slice))));
            }
            let arguments: Vec<&[u8]> = packed.iter().map(Vec::as_slice).collect();
            // Another may have been faster with some of them.
            removed += self.change(&PURGE_EVENTS, &arguments, |_| true).await?.number()?;
        }
        Ok(removed)
    }

    pub(super) async fn purge_usage(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        self.purge(&PURGE_TALLIES, before, limit).await
    }

    pub(super) async fn purge_codes(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        self.purge(&PURGE_CODES, before, limit).await
    }

    async fn purge(
        &self,
        script: &Script,
        before: Timestamp,
        limit: u32,
    ) -> Result<u32, StoreError> {
        let before = instant(before);
        let mut removed = 0;
        while removed < limit {
            let step = (limit - removed).min(STEP).to_string();
            let arguments = [&before[..], step.as_bytes()];
            match self.change(script, &arguments, |_| true).await?.number()? {
                0 => break,
                more => removed += more,
            }
        }
        Ok(removed)
    }

    pub(super) async fn purge_changes(&self, before: Timestamp) -> Result<u32, StoreError> {
        let mut removed = 0u32;
        loop {
            let step =
                self.change(&PURGE_CHANGES, &[&instant(before)], |_| true).await?.number()?;
            removed = removed.saturating_add(step);
            if step == 0 {
                return Ok(removed);
            }
        }
    }
}

const STEP: u32 = 1_000;
