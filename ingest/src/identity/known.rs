//! Identities as they are handed out: each once, for all the records that it is of.

use std::sync::{Arc, Mutex, PoisonError};

use flowtrail_schema::row::EntityKind;

use super::lookup::entity_kind;
use super::{Entity, Identity, IdentityIndex};

/// What an entity is known as, computed when asked for and again after any object has changed.
#[derive(Debug, Default)]
pub(super) struct KnownAs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    generation: u64,
    certain: Option<Arc<Identity>>,
    uncertain: Option<Arc<Identity>>,
}

/// What those are known as whom no object tells of.
#[derive(Debug)]
pub(super) struct Nobody {
    external: Arc<Identity>,
    unknown: Arc<Identity>,
}

impl IdentityIndex {
    /// What an entity is known as.
    pub(super) fn identity(&self, entity: &Entity, uncertain: bool) -> Arc<Identity> {
        let mut known = entity.known_as.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current = known.generation == self.generation;
        known.generation = self.generation;
        if !is_current {
            // One that is the same stays the same copy.
            let changed =
                |former: &Arc<Identity>| **former != self.compute(entity, former.uncertain);
            known.certain.take_if(|former| changed(former));
            known.uncertain.take_if(|former| changed(former));
        }
        let place = if uncertain { &mut known.uncertain } else { &mut known.certain };
        Arc::clone(place.get_or_insert_with(|| Arc::new(self.compute(entity, uncertain))))
    }

    fn compute(&self, entity: &Entity, uncertain: bool) -> Identity {
        let workload = self.workload(entity).unwrap_or_default();
        Identity {
            kind: entity_kind(entity.kind),
            namespace: Arc::clone(&entity.namespace),
            name: Arc::clone(&entity.name),
            workload: workload.name,
            workload_kind: workload.kind,
            node: Arc::clone(&entity.node),
            uncertain,
        }
    }
}

impl Nobody {
    /// What nobody of a kind is known as.
    pub(super) fn of(&self, kind: EntityKind) -> Arc<Identity> {
        Arc::clone(if kind == EntityKind::External { &self.external } else { &self.unknown })
    }
}

impl Default for Nobody {
    fn default() -> Self {
        let nobody = |kind| Arc::new(Identity::named(kind, Arc::default()));
        Self { external: nobody(EntityKind::External), unknown: nobody(EntityKind::Unknown) }
    }
}

impl Identity {
    /// One of which nothing is known but a name, if that.
    pub(crate) fn named(kind: EntityKind, name: Arc<str>) -> Self {
        let empty: Arc<str> = Arc::default();
        Self {
            kind,
            namespace: Arc::clone(&empty),
            name,
            workload: Arc::clone(&empty),
            workload_kind: Arc::clone(&empty),
            node: empty,
            uncertain: false,
        }
    }
}
