//! The objects that are known, by uid, and by a key that ownerships keep: whoever looks an address up
//! reads no uid.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use slotmap::{SlotMap, new_key_type};

use super::Entity;

new_key_type! {
    /// An object for as long as it is known.
    pub(super) struct EntityKey;
}

/// The objects.
#[derive(Debug, Default)]
pub(super) struct Entities {
    by_uid: HashMap<Arc<str>, EntityKey, RandomState>,
    all: SlotMap<EntityKey, Entity>,
}

impl Entities {
    /// How many.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether one of this uid is known.
    pub(super) fn has(&self, uid: &str) -> bool {
        self.by_uid.contains_key(uid)
    }

    /// The one of a uid.
    pub(super) fn get(&self, uid: &str) -> Option<&Entity> {
        self.by_uid.get(uid).and_then(|key| self.all.get(*key))
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, uid: &str) -> Option<&mut Entity> {
        self.by_uid.get(uid).and_then(|key| self.all.get_mut(*key))
    }

    /// The one of a key.
    pub(super) fn at(&self, key: EntityKey) -> Option<&Entity> {
        self.all.get(key)
    }

    /// Each with its uid, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Entity)> {
        self.by_uid.iter().filter_map(|(uid, key)| Some((uid, self.all.get(*key)?)))
    }

    /// Makes an object known, or known as something else under the key that it has. Returns what it was
    /// before.
    pub(super) fn put(&mut self, uid: &Arc<str>, entity: Entity) -> (EntityKey, Option<Entity>) {
        if let Some(key) = self.by_uid.get(uid)
            && let Some(known) = self.all.get_mut(*key)
        {
            return (*key, Some(std::mem::replace(known, entity)));
        }
        let key = self.all.insert(entity);
        self.by_uid.insert(Arc::clone(uid), key);
        (key, None)
    }

    /// Forgets an object.
    pub(super) fn remove(&mut self, uid: &str) -> Option<Entity> {
        self.by_uid.remove(uid).and_then(|key| self.all.remove(key))
    }
}
