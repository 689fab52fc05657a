//! Top owners: Pod → ReplicaSet → Deployment, Pod → Job → CronJob; and a Service's workload, which is
//! the top owner of the pods behind it if that is one.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use foldhash::fast::RandomState;

use super::{Entity, IdentityIndex};
use crate::objects::Kind;

/// Owners above owners that are followed: Pod → Job → CronJob → a custom controller.
const MAX_DEPTH: usize = 4;

/// Namespace and name of a Service, which is what an EndpointSlice knows of it.
pub(super) type ServiceName = (Arc<str>, Arc<str>);

/// A controller named in an object's `ownerReferences`.
#[derive(Clone, Debug)]
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
    generation: u64,
    by_service: HashMap<ServiceName, (u64, Option<Workload>), RandomState>,
}

impl IdentityIndex {
    /// The top owner of a pod; a pod that nothing owns is its own workload.
    pub(super) fn workload_of(&self, pod: &Entity) -> Workload {
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
    pub(super) fn workload_of_service(&self, service: &Entity) -> Option<Workload> {
        self.remember_workload(&(Arc::clone(&service.namespace), Arc::clone(&service.name)))
    }

    pub(super) fn remember_workload(&self, service: &ServiceName) -> Option<Workload> {
        let mut cache = self.service_workloads.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = cache.generation;
        let last = match cache.by_service.get(service) {
            Some((computed, workload)) if *computed == generation => return workload.clone(),
            other => other.and_then(|(_, workload)| workload.clone()),
        };
        let workload = self.single_workload(service).unwrap_or(last);
        cache.by_service.insert(service.clone(), (generation, workload.clone()));
        workload
    }

    /// Called when any object has changed.
    pub(super) fn forget_workloads(&mut self) {
        let cache = self.service_workloads.get_mut().unwrap_or_else(PoisonError::into_inner);
        cache.generation += 1;
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
