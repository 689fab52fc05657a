//! Top owners: Pod → ReplicaSet → Deployment, Pod → Job → CronJob; and a Service's workload, which is
//! the top owner of the pods behind it if that is one.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use foldhash::fast::RandomState;

use super::describe::Described;
use super::{Entity, IdentityIndex};
use crate::objects::Kind;

/// Owners above owners that are followed: Pod → Job → CronJob → a custom controller.
const MAX_DEPTH: usize = 4;

/// Namespace and name of a Service, which is what an EndpointSlice knows of it.
pub(super) type ServiceName = (Arc<str>, Arc<str>);

/// A controller named in an object's `ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) kind: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) uid: Arc<str>,
}

/// A top owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Workload {
    pub(super) kind: Arc<str>,
    pub(super) name: Arc<str>,
}

/// Workloads of Services, computed when asked for and again after any object has changed.
#[derive(Debug, Default)]
pub(super) struct WorkloadCache {
    by_service: HashMap<ServiceName, (u64, Option<Workload>), RandomState>,
}

impl IdentityIndex {
    /// The workload of a pod or a Service, if there is one; nodes have none.
    pub(super) fn workload(&self, entity: &Entity) -> Option<Workload> {
        match entity.kind {
            Kind::Pod => Some(self.workload_of(entity)),
            Kind::Service => self.workload_of_service(entity),
            _ => None,
        }
    }

    /// Notes whose owner is not known yet; and that it is known now, for those who waited. The watches
    /// of pods and of ReplicaSets are not in step.
    pub(super) fn note_owner(&mut self, uid: &Arc<str>, described: &Described) {
        if matches!(described.kind, Kind::ReplicaSet | Kind::Job) {
            self.changed.extend(self.orphans.remove(uid).into_iter().flatten());
        }
        let owner = described.owner.as_ref();
        let listed = owner.filter(|owner| matches!(&*owner.kind, "ReplicaSet" | "Job"));
        if let Some(owner) = listed.filter(|owner| !self.entities.has(&owner.uid)) {
            self.orphans.entry(Arc::clone(&owner.uid)).or_default().insert(Arc::clone(uid));
        }
    }

    /// An object does not wait for its owner any more.
    pub(super) fn drop_orphan(&mut self, uid: &Arc<str>, owner: &Arc<str>) {
        if let Some(waiting) = self.orphans.get_mut(owner) {
            waiting.remove(uid);
            if waiting.is_empty() {
                self.orphans.remove(owner);
            }
        }
    }

    /// The top owner of a pod; a pod that nothing owns is its own workload.
    fn workload_of(&self, pod: &Entity) -> Workload {
        let mut workload = Workload { kind: "Pod".into(), name: Arc::clone(&pod.name) };
        let mut owner = pod.owner.as_ref();
        for _ in 0..MAX_DEPTH {
            // A static pod is owned by its node, which is no workload.
            let Some(above) = owner.filter(|owner| &*owner.kind != "Node") else { break };
            workload = Workload { kind: Arc::clone(&above.kind), name: Arc::clone(&above.name) };
            owner = self.entities.get(&above.uid).and_then(|entity| entity.owner.as_ref());
        }
        workload
    }

    /// The workload behind a Service. One without endpoints keeps the last it had.
    fn workload_of_service(&self, service: &Entity) -> Option<Workload> {
        self.remember_workload(&(Arc::clone(&service.namespace), Arc::clone(&service.name)))
    }

    pub(super) fn remember_workload(&self, service: &ServiceName) -> Option<Workload> {
        let mut cache = self.service_workloads.lock().unwrap_or_else(PoisonError::into_inner);
        let last = match cache.by_service.get(service) {
            Some((computed, workload)) if *computed == self.generation => return workload.clone(),
            other => other.and_then(|(_, workload)| workload.clone()),
        };
        let workload = self.single_workload(service).unwrap_or(last);
        cache.by_service.insert(service.clone(), (self.generation, workload.clone()));
        workload
    }

    /// The workload that an earlier run knew, until endpoints tell.
    pub(super) fn restore_workload(&mut self, service: ServiceName, workload: Workload) {
        let known = Some(workload).filter(|workload| !workload.name.is_empty());
        let cache = self.service_workloads.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Of a generation that is over already: so it is the last, and is computed anew.
        cache.by_service.insert(service, (self.generation, known));
        self.generation += 1;
    }

    pub(super) fn drop_workload(&mut self, entity: &Entity) {
        if entity.kind == Kind::Service {
            let service = (Arc::clone(&entity.namespace), Arc::clone(&entity.name));
            let cache = self.service_workloads.get_mut().unwrap_or_else(PoisonError::into_inner);
            cache.by_service.remove(&service);
        }
    }

    /// `None` without known pods; `Some(None)` if they are of several workloads.
    fn single_workload(&self, service: &ServiceName) -> Option<Option<Workload>> {
        let pods = self.endpoints.get(service)?.values().flatten();
        let mut workloads =
            pods.filter_map(|uid| self.entities.get(uid)).map(|pod| self.workload_of(pod));
        let first = workloads.next()?;
        Some(workloads.all(|other| other == first).then_some(first))
    }
}
