use std::{collections::HashSet, mem, sync::Mutex};

use crate::{model::Permissions, system::lock};

/// One copy of what many entries have in common: of nearly all keys it is one of a few sets, and
/// what all hits look at stays close to the processor.
#[derive(Default)]
pub(crate) struct Shared(Mutex<HashSet<Permissions>>);

impl Shared {
    /// The copy that equal ones share.
    pub(crate) fn copy_of(&self, permissions: Permissions) -> Permissions {
        if permissions == Permissions::All {
            return permissions;
        }
        let mut outdated = HashSet::new();
        let mut known = lock(&self.0);
        if let Some(known) = known.get(&permissions) {
            return known.clone();
        }
        // Where each key has a set of its own, there is nothing to share, and they are not kept.
        if known.len() >= MOST {
            outdated = mem::take(&mut *known);
        }
        known.insert(permissions.clone());
        drop(known);
        // Others need not wait until they are gone.
        drop(outdated);
        permissions
    }
}

const MOST: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Scopes;

    #[test]
    fn equal_sets_are_one_in_memory() {
        let shared = Shared::default();
        let copy_of = |set: [&str; 2]| match shared.copy_of(Permissions::only(set).unwrap()) {
            Permissions::Only(scopes) => scopes,
            Permissions::All => unreachable!(),
        };
        let (one, same, other) = (copy_of(["x", "y"]), copy_of(["y", "x"]), copy_of(["x", "z"]));
        let place = |scopes: &Scopes| scopes.iter().next().unwrap().as_ptr();
        assert_eq!(place(&one), place(&same));
        assert_ne!(place(&one), place(&other));
    }

    #[test]
    fn however_many_sets_there_are_only_so_many_are_kept() {
        let shared = Shared::default();
        for n in 0..3 * MOST {
            let set = Permissions::only([format!("s{n}")]).unwrap();
            assert_eq!(shared.copy_of(set.clone()), set);
            assert!(lock(&shared.0).len() <= MOST);
        }
        assert_eq!(shared.copy_of(Permissions::All), Permissions::All);
    }
}
