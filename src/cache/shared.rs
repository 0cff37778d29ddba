use std::{collections::HashSet, sync::Mutex};

use crate::{key::Permissions, lock::lock};

/// One copy of what many entries have in common: of nearly all keys it is one of a few sets, and
/// what all hits look at stays close to the processor.
#[derive(Default)]
pub(super) struct Shared(Mutex<HashSet<Permissions>>);

impl Shared {
    /// The copy that equal ones share.
    pub(super) fn copy_of(&self, permissions: Permissions) -> Permissions {
        let mut known = lock(&self.0);
        if let Some(known) = known.get(&permissions) {
            return known.clone();
        }
        // Where each key has a set of its own, there is nothing to share, and they are not kept.
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(permissions.clone());
        permissions
    }
}

const MOST: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_sets_there_are_only_so_many_are_kept() {
        let shared = Shared::default();
        for n in 0..3 * MOST {
            let set = Permissions::only([format!("s{n}")]).unwrap();
            assert_eq!(shared.copy_of(set.clone()), set);
            assert!(lock(&shared.0).len() <= MOST);
        }
    }
}
