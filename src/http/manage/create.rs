use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    Call, Caller, Manage,
    bodies::Create,
    failure::Failure,
    reply::{Answer, json},
    views::IssuedView,
};
use crate::{
    key::Key,
    keys::{Issued, NewKey, Page, Rotation},
};

impl Manage {
    pub(super) async fn create(&self, caller: &Caller, call: &Call<'_>) -> Answer {
        let new = call.read::<Create>()?.into_key(caller.owner())?;
        let issued = match call.token()? {
            None => self.keys.issue(new, caller.actor()).await?,
            Some(token) => self.create_once(caller, new, &format!("create {token}")).await?,
        };
        json(StatusCode::CREATED, &IssuedView::new(&issued, caller))
    }

    /// The key remembers a hash of the token. Who tries again with it gets the same key, and
    /// another secret in place of the one that was lost.
    async fn create_once(
        &self,
        caller: &Caller,
        new: NewKey,
        token: &str,
    ) -> Result<Issued, Failure> {
        let new = new.token(token);
        let earlier = self.made_by(caller, &new).await?;
        if let Some(earlier) = earlier.first() {
            return self.repeat(caller, &new, earlier, token).await;
        }
        let issued = self.keys.issue(new.clone(), caller.actor()).await?;
        // Another node may have been asked the same at the same moment. Whoever comes last sees the
        // other's key, and takes its own back: of two, at most one stays.
        if self.made_by(caller, &new).await?.iter().any(|key| key.id != issued.key.id) {
            let (owner, id) = (caller.owner(), issued.key.id);
            // Unless someone who tried again has been given it meanwhile.
            if self.keys.get(owner, id).await?.rotated_at.is_none() {
                self.keys.delete(owner, id, caller.actor()).await?;
            }
            return Err(Failure::in_progress());
        }
        Ok(issued)
    }

    async fn repeat(
        &self,
        caller: &Caller,
        new: &NewKey,
        earlier: &Key,
        token: &str,
    ) -> Result<Issued, Failure> {
        // Whoever uses the secret has received it, and must not lose it.
        self.keys.flush().await?;
        let earlier = self.keys.get(caller.owner(), earlier.id).await?;
        if earlier.first_used_at.is_some() || !new.describes(&earlier) {
            return Err(Failure::reused());
        }
        let again = Rotation::at_once().token(token);
        match self.keys.rotate(caller.owner(), earlier.id, again, caller.actor()).await {
            Err(error) if error.kind() == crate::ErrorKind::NotLive => Err(Failure::reused()),
            issued => Ok(issued?),
        }
    }

    /// The owner's keys that were made by this token in the last day, the newest first.
    async fn made_by(&self, caller: &Caller, new: &NewKey) -> Result<Vec<Arc<Key>>, Failure> {
        let (mut page, mut found) = (Page::first().limit(1_000), Vec::new());
        let since = self.keys.now().before(REMEMBERED);
        loop {
            let listed = self.keys.list(caller.owner(), page).await?;
            let recent = |key: &&Arc<Key>| key.created_at >= since;
            let mine = |key: &&Arc<Key>| new.has_token_of(key);
            found.extend(listed.keys.iter().filter(recent).filter(mine).cloned());
            let old = listed.keys.last().is_some_and(|key| key.created_at < since);
            match listed.next {
                Some(next) if !old => page = page.after(next),
                _ => return Ok(found),
            }
        }
    }
}

/// How long a create can be tried again.
const REMEMBERED: Duration = Duration::from_secs(86_400);
