use std::sync::Arc;

use tokio::sync::watch;

use crate::model::KeyId;

/// The keys whose unused secret is being replaced, because a call with an idempotency token is repeated.
///
/// A use between the last look at this node's uses and the commit would be accepted, and its secret ended nevertheless.
/// So a verification that reads such a key waits until the replacement is committed or refused, and reads it again.
#[derive(Clone, Default)]
pub(crate) struct Replacements(Arc<watch::Sender<Vec<KeyId>>>);

/// Ends a replacement when it is dropped.
pub(crate) struct Replacement {
    all: Replacements,
    id: KeyId,
}

impl Replacements {
    /// MUST be called before the key is invalidated in the cache.
    pub(crate) fn begin(&self, id: KeyId) -> Replacement {
        self.0.send_modify(|ids| ids.push(id));
        Replacement { all: self.clone(), id }
    }

    /// Waits until no secret of the key is being replaced. Returns whether it had to wait.
    pub(crate) async fn wait_for_end(&self, id: KeyId) -> bool {
        if !self.0.borrow().contains(&id) {
            return false;
        }
        // Fails only if the sender is dropped, which `self` has.
        let _ = self.0.subscribe().wait_for(|ids| !ids.contains(&id)).await;
        true
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        self.all.0.send_modify(|ids| {
            if let Some(at) = ids.iter().position(|id| *id == self.id) {
                ids.swap_remove(at);
            }
        });
    }
}
