//! Who owned an address at an instant: pure state, fed with objects, asked by the naming stage.
//!
//! ```text
//! Object ── describe ──► Entity (by uid) ──┬─ claims: address │ address:port │ node port
//!                           │              │          └─► Ownership [start, end) ...
//!                           └─ owner ──► ReplicaSet, Job ──► Deployment, CronJob (the workload)
//! EndpointSlice ──► pods behind a Service ──► the Service's workload
//! ```
//!
//! Order of a lookup: pod with its own address; Service; the node's pods and NodePort Services that
//! the port tells; Node; external (public) or unknown (private). Services may share an address, also
//! with nodes (an external or load-balancer IP): there each has its own ports only.

mod address;
mod describe;
mod ownership;
#[cfg(test)]
mod tests;
mod workload;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use flowtrail_schema::row::EntityKind;
use foldhash::fast::RandomState;
use tracing::debug;

use crate::objects::{Kind, Object};
use describe::{Described, describe};
use ownership::{Claim, Ownerships};
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
    /// Name of the pod, Service or node; empty for external and unknown.
    pub name: Arc<str>,
    /// Name of the top owner; a pod without owner is its own; empty when there is none.
    pub workload: Arc<str>,
    /// Kind of the top owner, as Kubernetes spells it.
    pub workload_kind: Arc<str>,
    /// Node that the pod ran on, or the node itself; else empty.
    pub node: Arc<str>,
    /// The owner vanished unseen some time around the instant: the name may be a predecessor's.
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
    entities: HashMap<Arc<str>, Entity, RandomState>,
    ownerships: Ownerships,
    /// Uids of the pods behind each Service.
    endpoints: HashMap<ServiceName, SlicesOfPods>,
    /// Uids of vanished entities, in the order they vanished.
    vanished: VecDeque<Arc<str>>,
    service_workloads: Mutex<WorkloadCache>,
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
}

impl IdentityIndex {
    /// Takes in a new object, or a new state of a known one, seen at `now_us`.
    pub fn apply(&mut self, object: &Object, now_us: u64) {
        let Some(described) = describe(object) else {
            self.counts.refused += 1;
            debug!(kind = object.kind().as_str(), "object without a name skipped");
            return;
        };
        let uid = Arc::clone(&described.uid);
        if !self.entities.contains_key(&uid) && self.entities.len() >= MAX_OBJECTS {
            self.counts.refused += 1;
            return;
        }
        if let Some(service) = &described.slice_of {
            // If its last endpoint goes now, the Service keeps the workload it had.
            self.remember_workload(&(Arc::clone(&described.namespace), Arc::clone(service)));
        }
        self.forget_workloads();
        self.counts.ownerships_forgotten += described.refused_claims;
        let old = self.entities.remove(&uid);
        if let Some(old) = &old {
            for claim in old.claims.iter().filter(|claim| !described.claims.contains(claim)) {
                self.ownerships.end(*claim, &uid, now_us, now_us);
            }
        }
        for claim in &described.claims {
            self.counts.ownerships_forgotten +=
                self.ownerships.claim(*claim, &uid, described.life, now_us);
        }
        if let Some(old) = &old
            && old.slice_of != described.slice_of
        {
            let service =
                old.slice_of.iter().map(|name| (Arc::clone(&old.namespace), Arc::clone(name)));
            service.for_each(|service| self.drop_slice(&uid, &service));
        }
        if let (Some(service), Some(pods)) = (&described.slice_of, described.pods.clone()) {
            let service = (Arc::clone(&described.namespace), Arc::clone(service));
            self.endpoints.entry(service).or_default().insert(Arc::clone(&uid), pods);
        }
        let mut entity = Entity::from(described);
        // Claims it gave up stay listed, so that they are forgotten with it.
        for claim in old.into_iter().flat_map(|old| old.claims) {
            if !entity.claims.contains(&claim) {
                entity.claims.push(claim);
            }
        }
        let excess = entity.claims.split_off(entity.claims.len().min(MAX_CLAIMS));
        self.ownerships.forget(&uid, &excess);
        self.counts.ownerships_forgotten += excess.len() as u64;
        self.entities.insert(uid, entity);
        self.counts.objects = self.entities.len();
    }

    /// Ends what an object owned, seen gone at `now_us`. It stays known for records that come late.
    pub fn delete(&mut self, object: &Object, now_us: u64) {
        if let Some(described) = describe(object) {
            self.vanish(&described.uid, now_us, now_us);
        }
    }

    /// Takes in a whole list of one kind: objects that are missing from it have vanished some time
    /// after `last_seen_us`, when the kind was last known for certain, and before `now_us`.
    pub fn replace(&mut self, kind: Kind, objects: &[Object], last_seen_us: u64, now_us: u64) {
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
        for uid in missing {
            self.vanish(&uid, last_seen_us, now_us);
        }
        for object in objects {
            self.apply(object, now_us);
        }
    }

    /// What `address` was at `instant_us`; `port` tells apart what shares a node's address. Where
    /// two pods claim the address, one on `observing_node` wins.
    pub fn lookup(
        &self,
        address: IpAddr,
        port: u16,
        instant_us: u64,
        observing_node: &str,
    ) -> Identity {
        let address = address.to_canonical();
        let owner = |claim| self.owner_of(claim, port, instant_us, observing_node);
        let found = owner(Claim::address(address))
            .filter(|(entity, _)| entity.kind != Kind::Node)
            .or_else(|| owner(Claim::port(address, port)))
            .or_else(|| {
                let node = owner(Claim::address(address))?;
                owner(Claim::node_port(port)).or(Some(node))
            });
        match found {
            Some((entity, uncertain)) => self.identity(entity, uncertain),
            None => Identity::nobody(address::kind_of(address)),
        }
    }

    /// Whether `port` at `address` was a known Service or container port at `instant_us`.
    pub fn listens(
        &self,
        address: IpAddr,
        port: u16,
        instant_us: u64,
        observing_node: &str,
    ) -> bool {
        let address = address.to_canonical();
        let owner = |claim| self.owner_of(claim, port, instant_us, observing_node);
        owner(Claim::address(address)).is_some_and(|(entity, _)| {
            entity.ports.contains(&port)
                || entity.kind == Kind::Node && owner(Claim::node_port(port)).is_some()
        }) || owner(Claim::port(address, port)).is_some()
    }

    /// What the index holds and had to refuse.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The owner of a claim, and whether that is uncertain: pods before Services before nodes, but a
    /// Service without the port last, as others may share its address; then one on the observing node;
    /// then the later start; then, to be the same every time, the uid.
    fn owner_of(
        &self,
        claim: Claim,
        port: u16,
        instant_us: u64,
        observing_node: &str,
    ) -> Option<(&Entity, bool)> {
        self.ownerships
            .at(claim, instant_us)
            .filter_map(|ownership| Some((ownership, self.entities.get(&ownership.uid)?)))
            .max_by_key(|(ownership, entity)| {
                let here = entity.kind == Kind::Pod && *entity.node == *observing_node;
                let elsewhere = entity.kind == Kind::Service
                    && claim.is_address()
                    && !entity.ports.contains(&port);
                let rank = Reverse((elsewhere, entity.kind));
                (rank, here, ownership.start_us, &ownership.uid)
            })
            .map(|(ownership, entity)| (entity, instant_us >= ownership.certain_until_us))
    }

    fn identity(&self, entity: &Entity, uncertain: bool) -> Identity {
        let (kind, workload) = match entity.kind {
            Kind::Pod => (EntityKind::Pod, Some(self.workload_of(entity))),
            Kind::Service => (EntityKind::Service, self.workload_of_service(entity)),
            _ => (EntityKind::Node, None),
        };
        let workload = workload.unwrap_or_default();
        Identity {
            kind,
            namespace: Arc::clone(&entity.namespace),
            name: Arc::clone(&entity.name),
            workload: workload.name,
            workload_kind: workload.kind,
            node: Arc::clone(&entity.node),
            uncertain,
        }
    }

    fn vanish(&mut self, uid: &Arc<str>, last_seen_us: u64, now_us: u64) {
        let Some(entity) = self.entities.get_mut(uid).filter(|entity| !entity.vanished) else {
            return;
        };
        entity.vanished = true;
        for claim in &entity.claims {
            self.ownerships.end(*claim, uid, last_seen_us, now_us);
        }
        if let Some(service) = &entity.slice_of {
            let service = (Arc::clone(&entity.namespace), Arc::clone(service));
            self.remember_workload(&service);
            self.drop_slice(uid, &service);
        }
        self.vanished.push_back(Arc::clone(uid));
        while self.vanished.len() > MAX_VANISHED {
            self.forget_earliest();
        }
        self.forget_workloads();
    }

    /// The slice's pods are no longer behind the Service.
    fn drop_slice(&mut self, uid: &Arc<str>, service: &ServiceName) {
        if let Some(slices) = self.endpoints.get_mut(service) {
            slices.remove(uid);
            if slices.is_empty() {
                self.endpoints.remove(service);
            }
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
            self.counts.forgotten += 1;
            self.counts.objects = self.entities.len();
        }
    }
}

impl Identity {
    fn nobody(kind: EntityKind) -> Self {
        let empty: Arc<str> = Arc::default();
        Self {
            kind,
            namespace: Arc::clone(&empty),
            name: Arc::clone(&empty),
            workload: Arc::clone(&empty),
            workload_kind: Arc::clone(&empty),
            node: empty,
            uncertain: false,
        }
    }
}

impl From<Described> for Entity {
    fn from(described: Described) -> Self {
        Self {
            kind: described.kind,
            namespace: described.namespace,
            name: described.name,
            node: described.node,
            owner: described.owner,
            ports: described.ports,
            claims: described.claims,
            slice_of: described.slice_of,
            vanished: false,
        }
    }
}
