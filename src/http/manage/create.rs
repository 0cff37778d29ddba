use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    ManageRequest, Caller, ManagementApi,
    bodies::Create,
    failure::ManageError,
    reply::{Answer, json},
    views::IssuedView,
};
use crate::{
    error::ErrorKind,
    manage::{Issued, NewKey, Page, Rotation},
    model::Key,
};

impl ManagementApi {
    pub(super) async fn create(&self, caller: &Caller, call: &ManageRequest<'_>) -> Answer {
        let new = call.read::<Create>()?.into_key(caller.owner())?;
        let issued = match call.token()? {
            None => self.keys.issue(new, caller.actor()).await?,
            Some(token) => self.create_once(caller, new, &format!("create {token}")).await?,
        };
        json(StatusCode::CREATED, &IssuedView::new(&issued, caller, self.keys.now()))
    }

    /// The key remembers a hash of the token. Who tries again with it gets the same key, and
    /// another secret in place of the one that was lost.
    async fn create_once(
        &self,
        caller: &Caller,
        new: NewKey,
        token: &str,
    ) -> Result<Issued, ManageError> {
        let new = new.token(token);
        let earlier = self.made_by(caller, &new).await?;
        if let Some(earlier) = earlier.first() {
            return self.repeat(caller, &new, earlier, token).await;
        }
        let issued = self.keys.issue(new.clone(), caller.actor()).await?;
        // Another node may have been asked the same at the same moment. Whoever sees the other's key
        // takes its own back, and the last one surely does: of two, at most one stays.
        if self.made_by(caller, &new).await?.iter().any(|key| key.id != issued.key.id) {
            self.keys.delete(caller.owner(), issued.key.id, caller.actor()).await?;
            return Err(ManageError::in_progress());
        }
        Ok(issued)
    }

    async fn repeat(
        &self,
        caller: &Caller,
        new: &NewKey,
        earlier: &Key,
        token: &str,
    ) -> Result<Issued, ManageError> {
        // Whoever uses the secret has received it, and must not lose it.
        self.keys.flush().await?;
        let earlier = match self.keys.get(caller.owner(), earlier.id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(ManageError::in_progress()),
            earlier => earlier?,
        };
        if earlier.first_used_at.is_some() || !new.describes(&earlier) {
            return Err(ManageError::reused());
        }
        let again = Rotation::immediate().token(token);
        let issued = match self.keys.rotate(caller.owner(), earlier.id, again, caller.actor()).await
        {
            Err(error) if error.kind() == ErrorKind::NotLive => return Err(ManageError::reused()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(ManageError::in_progress()),
            issued => issued?,
        };
        // As long as there are two, their makers may take back either.
        match self.made_by(caller, new).await?.as_slice() {
            [only] if only.id == issued.key.id => Ok(issued),
            _ => Err(ManageError::in_progress()),
        }
    }

    /// The owner's keys that were made by this token in the last day, the newest first.
    async fn made_by(&self, caller: &Caller, new: &NewKey) -> Result<Vec<Arc<Key>>, ManageError> {
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
