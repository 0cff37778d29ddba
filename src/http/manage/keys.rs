use http::StatusCode;

use super::{
    ManageRequest, Caller, ManagementApi,
    bodies::{Change, Rotate},
    failure::ManageError,
    reply::{Answer, json, message},
    views::{IssuedView, KeyView, KeysView},
};
use crate::{
    manage::Page,
    model::{Key, KeyId, Status},
};

impl ManagementApi {
    pub(super) async fn list(&self, caller: &Caller, call: &ManageRequest<'_>) -> Answer {
        let [status, limit, cursor] = call.parameters(["status", "limit", "cursor"])?;
        let mut page = Page::first().limit(self::limit(limit.as_deref())?);
        if let Some(text) = status {
            let all = [Status::Active, Status::Disabled, Status::Revoked, Status::Expired];
            let found = all.into_iter().find(|status| status.as_str() == text);
            let expected = "status is active, disabled, revoked or expired";
            page = page.status(found.ok_or_else(|| ManageError::invalid(expected))?);
        }
        if let Some(text) = cursor {
            page = page.after(text.parse().map_err(|_| bad_cursor())?);
        }
        let page = self.keys.list(caller.within(), page).await?;
        let now = self.keys.now();
        let keys = page.keys.iter().map(|key| KeyView::new(key, caller, now)).collect();
        json(StatusCode::OK, &KeysView { keys, next: page.next.map(|id| id.to_string()) })
    }

    pub(super) async fn get(&self, caller: &Caller, id: KeyId) -> Answer {
        self.shown(&*self.keys.get(caller.within(), id).await?, caller)
    }

    pub(super) async fn change(&self, caller: &Caller, id: KeyId, call: &ManageRequest<'_>) -> Answer {
        // What is not there has no wrong fields either.
        self.keys.get(caller.within(), id).await?;
        let change = call.read::<Change>()?.into_change()?;
        self.shown(&*self.keys.update(caller.within(), id, &change, caller.actor()).await?, caller)
    }

    pub(super) async fn revoke(&self, caller: &Caller, id: KeyId) -> Answer {
        self.keys.revoke(caller.within(), id, "", caller.actor()).await?;
        message("API key revoked")
    }

    pub(super) async fn delete(&self, caller: &Caller, id: KeyId) -> Answer {
        self.keys.delete(caller.within(), id, caller.actor()).await?;
        message("API key record deleted")
    }

    pub(super) async fn rotate(&self, caller: &Caller, id: KeyId, call: &ManageRequest<'_>) -> Answer {
        self.keys.get(caller.within(), id).await?;
        let mut rotation = call.read_any::<Rotate>()?.into_rotation();
        if let Some(token) = call.token()? {
            rotation = rotation.token(&format!("rotate {token}"));
        }
        let issued = self.keys.rotate(caller.within(), id, rotation, caller.actor()).await?;
        json(StatusCode::OK, &IssuedView::new(&issued, caller, self.keys.now()))
    }

    pub(super) async fn disable(&self, caller: &Caller, id: KeyId) -> Answer {
        self.shown(&*self.keys.disable(caller.within(), id, caller.actor()).await?, caller)
    }

    pub(super) async fn enable(&self, caller: &Caller, id: KeyId) -> Answer {
        self.shown(&*self.keys.enable(caller.within(), id, caller.actor()).await?, caller)
    }

    fn shown(&self, key: &Key, caller: &Caller) -> Answer {
        json(StatusCode::OK, &KeyView::new(key, caller, self.keys.now()))
    }
}

/// How many to list: 50 unless told.
pub(super) fn limit(text: Option<&str>) -> Result<u32, ManageError> {
    let Some(text) = text else { return Ok(50) };
    let number = text.parse().ok().filter(|number| (1..=200).contains(number));
    number.ok_or_else(|| ManageError::invalid("limit is a number from 1 to 200"))
}

pub(super) fn bad_cursor() -> ManageError {
    ManageError::invalid("cursor is what `next` of the page before says")
}
