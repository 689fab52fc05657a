//! Who owned an address at an instant: pure state, fed with objects, asked by the naming stage.
//!
//! ```text
//! Object ── describe ──► Entity (by uid) ──┬─ claims: address │ address:port │ node port
//!            table ── restore ──►  │       │          └─► Ownership [start, end) ...
//!            changes ◄─────────────┤
//!                                  └─ owner ──► ReplicaSet, Job ──► Deployment, CronJob (the workload)
//! EndpointSlice ──► pods behind a Service ──► the Service's workload
//! ```
//!
//! What comes from whom: `describe` reads objects, `ownership` keeps intervals, `workload` follows owners,
//! `lookup` answers with what is `known`, `stored` turns ownerships into rows of the table and back.

mod address;
pub mod cidr;
mod describe;
mod entities;
mod known;
mod lookup;
mod ownership;
mod stored;
#[cfg(test)]
mod tests;
mod workload;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use flowtrail_schema::row::EntityKind;
use tracing::debug;

use crate::objects::{Kind, Object};
use cidr::CidrNames;
use describe::{Described, describe};
use entities::Entities;
use known::{KnownAs, Nobody};
use ownership::{Claim, End, Ownerships};
pub use stored::Changes;
use workload::{Owner, ServiceName, WorkloadCache};

/// Objects known at once, at most: Kubernetes supports 150,000 pods in a cluster; thrice that
/// leaves room for all else. Beyond it, new objects are refused and counted: their addresses stay unknown.
pub const MAX_OBJECTS: usize = 500_000;

/// Vanished objects remembered for records that come late, at most: at 10 pods a second, three
/// hours. Beyond it the earliest vanished is forgotten and counted.
pub const MAX_VANISHED: usize = 100_000;

/// Addresses and ports that one object may claim, those it gave up among them, at most: a pod with a
/// range of host ports has thousands. Beyond it the rest is refused, or what it gave up first is
/// forgotten, and counted.
pub const MAX_CLAIMS: usize = 4_096;

/// What an address was when its packets were seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What owned the address.
    pub kind: EntityKind,
    /// Namespace of the pod or Service; else empty.
    pub namespace: Arc<str>,
    /// Name of the pod, Service, node or configured CIDR; empty for all else.
    pub name: Arc<str>,
    /// Name of the top owner; a pod without owner is its own; empty when there is none.
    pub workload: Arc<str>,
    /// Kind of the top owner, as Kubernetes spells it.
    pub workload_kind: Arc<str>,
    /// Node that the pod ran on, or the node itself; else empty.
    pub node: Arc<str>,
    /// The owner vanished unseen some time around the instant (the name may be a predecessor's), or was
    /// about to start.
    pub uncertain: bool,
}

/// What the index holds and what it had to refuse, for metrics. Counts only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Objects known now, vanished ones among them.
    pub objects: usize,
    /// Objects refused because of [`MAX_OBJECTS`], or because they have no name.
    pub refused: u64,
    /// Vanished objects forgotten because of [`MAX_VANISHED`].
    pub forgotten: u64,
    /// Ownerships forgotten because one address had too many owners, or one object too many addresses.
    pub ownerships_forgotten: u64,
}

/// Identities by address and time. Times are microseconds since the epoch.
#[derive(Debug, Default)]
pub struct IdentityIndex {
    entities: Entities,
    ownerships: Ownerships,
    cidr_names: CidrNames,
    /// Uids of the pods behind each Service.
    endpoints: HashMap<ServiceName, SlicesOfPods>,
    /// Uids of the Services themselves.
    services: HashMap<ServiceName, Arc<str>>,
    /// Uids of objects by the uid of the ReplicaSet or Job that owns them and is not known yet.
    orphans: HashMap<Arc<str>, HashSet<Arc<str>>>,
    /// Uids of vanished entities, in the order they vanished.
    vanished: VecDeque<Arc<str>>,
    service_workloads: Mutex<WorkloadCache>,
    nobody: Nobody,
    /// Which one of the states that the index was in this is.
    generation: u64,
    /// Uids of entities that the table does not know as they are.
    changed: HashSet<Arc<str>>,
    /// When all that is known of a kind was last known for certain.
    seen_us: HashMap<Kind, u64>,
    counts: Counts,
}

/// Uids of pods by the uid of the EndpointSlice that lists them.
type SlicesOfPods = HashMap<Arc<str>, Vec<Arc<str>>>;

/// One object, as far as names need it.
#[derive(Debug)]
struct Entity {
    kind: Kind,
    namespace: Arc<str>,
    name: Arc<str>,
    node: Arc<str>,
    owner: Option<Owner>,
    ports: Vec<u16>,
    claims: Vec<Claim>,
    /// The Service that an EndpointSlice belongs to.
    slice_of: Option<Arc<str>>,
    vanished: bool,
    /// This run has seen it; else only an earlier one has.
    seen: bool,
    known_as: KnownAs,
}

impl IdentityIndex {
    /// Takes in a new object, or a new state of a known one, seen at `now_us`. One that is unreadable
    /// stays what it was.
    pub fn apply(&mut self, object: &Object, now_us: u64) {
        self.seen(object.kind(), now_us);
        self.take_in(object, now_us);
    }

    /// Ends what an object owned, seen deleted at `now_us`. It stays known for records that come late.
    pub fn delete(&mut self, object: &Object, now_us: u64) {
        self.seen(object.kind(), now_us);
        if let Some(described) = describe(object) {
            self.vanish(&described.uid, End::Deleted, now_us);
        }
    }

    /// Takes in a whole list of one kind, as it was at `now_us`: objects that are missing from it have
    /// vanished some time after the kind was last [seen](Self::seen).
    pub fn replace(&mut self, kind: Kind, objects: &[Object], now_us: u64) {
        let listed: HashSet<Arc<str>> =
            objects.iter().filter_map(describe).map(|described| described.uid).collect();
        let mut missing: Vec<_> = self
            .entities
            .iter()
            .filter(|(uid, entity)| {
                entity.kind == kind && !entity.vanished && !listed.contains(*uid)
            })
            .map(|(uid, _)| Arc::clone(uid))
            .collect();
        missing.sort();
        let last_seen_us = self.last_seen_us(kind);
        for uid in missing {
            self.vanish(&uid, End::Missing(last_seen_us), now_us);
        }
        for object in objects {
            self.take_in(object, now_us);
        }
        self.seen(kind, now_us);
    }

    /// All that is known of a kind is known to be so at `now_us`: whatever feeds the index has heard of
    /// no change, and would have.
    pub fn seen(&mut self, kind: Kind, now_us: u64) {
        let seen_us = self.seen_us.entry(kind).or_default();
        *seen_us = now_us.max(*seen_us);
    }

    /// Tells states of the index apart: in one and the same, it gives the same answers.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// What the index holds and had to refuse.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Names what Kubernetes does not know.
    pub fn set_cidr_names(&mut self, names: CidrNames) {
        self.generation += 1;
        self.cidr_names = names;
    }

    fn last_seen_us(&self, kind: Kind) -> u64 {
        self.seen_us.get(&kind).copied().unwrap_or_default()
    }

    fn take_in(&mut self, object: &Object, now_us: u64) {
        if matches!(object, Object::Unreadable(_)) {
            return;
        }
        let Some(described) = describe(object) else {
            self.counts.refused += 1;
            debug!(kind = object.kind().as_str(), "object without a name skipped");
            return;
        };
        let uid = Arc::clone(&described.uid);
        if !self.entities.has(&uid) && self.entities.len() >= MAX_OBJECTS {
            self.counts.refused += 1;
            return;
        }
        if let Some(service) = &described.slice_of {
            // If its last endpoint goes now, the Service keeps the workload it had.
            self.remember_workload(&(Arc::clone(&described.namespace), Arc::clone(service)));
        }
        self.generation += 1;
        self.counts.ownerships_forgotten += described.refused_claims;
        let entity = Entity::from(&described);
        let (key, old) = self.entities.put(&uid, entity);
        let given_up: Vec<Claim> = old
            .iter()
            .flat_map(|old| &old.claims)
            .filter(|claim| !described.claims.contains(claim))
            .copied()
            .collect();
        let mut changed = false;
        for claim in &given_up {
            changed |= self.ownerships.end(*claim, &uid, End::Released, now_us);
        }
        for claim in &described.claims {
            let claimed = self.ownerships.claim(*claim, (&uid, key), described.life, now_us);
            self.counts.ownerships_forgotten += claimed.forgotten;
            changed |= claimed.changed;
        }
        self.take_in_endpoints(&described, old.as_ref());
        self.keep_given_up(&uid, given_up);
        self.note_owner(&uid, &described);
        let known = self.entities.get(&uid).zip(old);
        if changed || known.is_none_or(|(new, old)| old.names() != new.names()) {
            self.changed.insert(uid);
        }
        self.counts.objects = self.entities.len();
    }

    /// Claims that an object gave up stay listed, so that they are forgotten with it.
    fn keep_given_up(&mut self, uid: &str, given_up: Vec<Claim>) {
        let Some(entity) = self.entities.get_mut(uid) else { return };
        entity.claims.extend(given_up);
        let excess = entity.claims.split_off(entity.claims.len().min(MAX_CLAIMS));
        self.ownerships.forget(uid, &excess);
        self.counts.ownerships_forgotten += excess.len() as u64;
    }

    /// The pods behind a Service, and the Service itself.
    fn take_in_endpoints(&mut self, described: &Described, old: Option<&Entity>) {
        let (uid, namespace) = (&described.uid, &described.namespace);
        let service = |name: &Arc<str>| (Arc::clone(namespace), Arc::clone(name));
        if described.kind == Kind::Service {
            self.services.insert(service(&described.name), Arc::clone(uid));
        }
        let moved = old.filter(|old| old.slice_of != described.slice_of);
        if let Some(former) = moved.and_then(|old| old.slice_of.as_ref()) {
            self.drop_slice(uid, &service(former));
        }
        if let (Some(name), Some(pods)) = (&described.slice_of, &described.pods) {
            let service = service(name);
            let slices = self.endpoints.entry(service.clone()).or_default();
            let before = slices.insert(Arc::clone(uid), pods.clone());
            if before.as_ref() != Some(pods) {
                self.changed.extend(self.services.get(&service).cloned());
            }
        }
    }

    fn vanish(&mut self, uid: &Arc<str>, end: End, now_us: u64) {
        let Some(entity) = self.entities.get_mut(uid).filter(|entity| !entity.vanished) else {
            return;
        };
        entity.vanished = true;
        let (kind, namespace) = (entity.kind, Arc::clone(&entity.namespace));
        let (name, slice_of) = (Arc::clone(&entity.name), entity.slice_of.clone());
        let owner = entity.owner.as_ref().map(|owner| Arc::clone(&owner.uid));
        for claim in &entity.claims {
            self.ownerships.end(*claim, uid, end, now_us);
        }
        if let Some(service) = slice_of {
            let service = (Arc::clone(&namespace), service);
            self.remember_workload(&service);
            self.drop_slice(uid, &service);
        }
        if kind == Kind::Service {
            let service = (namespace, name);
            // One of the same name may have come already.
            if self.services.get(&service) == Some(uid) {
                self.services.remove(&service);
            }
        }
        owner.iter().for_each(|owner| self.drop_orphan(uid, owner));
        self.changed.insert(Arc::clone(uid));
        self.note_vanished(Arc::clone(uid));
        self.generation += 1;
    }

    fn note_vanished(&mut self, uid: Arc<str>) {
        self.vanished.push_back(uid);
        while self.vanished.len() > MAX_VANISHED {
            self.forget_earliest();
        }
    }

    /// The slice's pods are no longer behind the Service.
    fn drop_slice(&mut self, uid: &Arc<str>, service: &ServiceName) {
        if let Some(slices) = self.endpoints.get_mut(service) {
            slices.remove(uid);
            if slices.is_empty() {
                self.endpoints.remove(service);
            }
            self.changed.extend(self.services.get(service).cloned());
        }
    }

    fn forget_earliest(&mut self) {
        let Some(uid) = self.vanished.pop_front() else { return };
        // One that came back is not forgotten: it vanished from the queue only.
        if self.entities.get(&uid).is_some_and(|entity| entity.vanished)
            && let Some(entity) = self.entities.remove(&uid)
        {
            self.ownerships.forget(&uid, &entity.claims);
            self.drop_workload(&entity);
            self.changed.remove(&uid);
            self.counts.forgotten += 1;
            self.counts.objects = self.entities.len();
        }
    }
}

impl Entity {
    /// What a row of the table tells of it, times apart.
    fn names(&self) -> impl PartialEq + '_ {
        (&self.namespace, &self.name, &self.node, &self.owner, &self.ports)
    }
}

impl From<&Described> for Entity {
    fn from(described: &Described) -> Self {
        Self {
            kind: described.kind,
            namespace: Arc::clone(&described.namespace),
            name: Arc::clone(&described.name),
            node: Arc::clone(&described.node),
            owner: described.owner.clone(),
            ports: described.ports.clone(),
            claims: described.claims.clone(),
            slice_of: described.slice_of.clone(),
            vanished: false,
            seen: true,
            known_as: KnownAs::default(),
        }
    }
}
