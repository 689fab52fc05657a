//! What runs where, and who had which address: pure state between the engine's answers and the identity index.
//!
//! ```text
//! relist ───► containers ─┬─ endpoints ──► a pod each, of the container's name   ─► IdentityIndex
//! inspected ─►            └─ gateways ┐
//! ended ────►  bridges ───────────────┴──► a node each, of the host's name
//! ```
//!
//! An endpoint (a container's place in a network) lives once: a container that is started again, or connected
//! again, has new ones. So an endpoint owns its addresses without a break, and what another container did with
//! them in between is the other's.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;

use super::container::{Bridge, Container, Endpoint, Event, What};
use crate::identity::IdentityIndex;
use crate::objects::{
    Condition, ContainerPort, HoldsIp, Kind, Node, NodeAddress, NodeStatus, Object, Pod, PodSpec,
    PodStatus,
};

/// Containers that run at once, at most: an engine has some hundreds, and a bridge has room for 1,024. Beyond
/// it new ones are refused and counted.
pub(super) const MAX_CONTAINERS: usize = 20_000;

/// Bridges at once, at most: an engine's pools of addresses are some tens of networks by default.
pub(super) const MAX_BRIDGES: usize = 4_096;

/// Gateways of one bridge, at most: it has one of each family, or of each of its pools.
const MAX_GATEWAYS: usize = 64;

/// The containers that run, the bridges, and since when.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// The host's name; empty if the engine does not tell.
    host: String,
    containers: BTreeMap<String, Known>,
    bridges: BTreeMap<String, Bridge>,
    /// When all of it was last known to be so, microseconds since the epoch.
    last_seen_us: u64,
}

/// A container, and since when it has which endpoint.
#[derive(Debug)]
struct Known {
    container: Container,
    since: HashMap<String, Since>,
}

/// Since when an endpoint is there, microseconds since the epoch.
#[derive(Clone, Copy, Debug)]
struct Since {
    start_us: u64,
    /// From here on it may have been.
    starting_us: u64,
}

/// A container of a list.
#[derive(Debug)]
pub(super) enum Listed {
    /// As it is.
    Container(Box<Container>),
    /// One of this id, of which nothing else could be read, or which is gone by now: what is known of it stays,
    /// until an event tells.
    Id(String),
}

impl Inventory {
    /// Whether the container is known.
    pub(super) fn knows(&self, container: &str) -> bool {
        self.containers.contains_key(container)
    }

    /// Whether the container may be taken in.
    pub(super) fn has_room_for(&self, container: &str) -> bool {
        self.knows(container) || self.containers.len() < MAX_CONTAINERS
    }

    /// Takes in all that runs, as it was at `now_us`. What is missing has vanished some time after all was
    /// last [seen](Self::seen).
    pub(super) fn relist(
        &mut self,
        (host, bridges): (String, Vec<Bridge>),
        listed: Vec<Listed>,
        now_us: u64,
        index: &mut IdentityIndex,
    ) {
        let mut before = std::mem::take(&mut self.containers);
        for listed in listed {
            let known = match listed {
                Listed::Id(id) => before.remove(&id),
                Listed::Container(container) => {
                    let known = before.remove(&container.id);
                    // Of the same run, and not there the last time: connected in between.
                    let same_run = known
                        .as_ref()
                        .is_some_and(|known| known.container.started_us == container.started_us);
                    let since = if same_run {
                        Since { start_us: now_us, starting_us: self.last_seen_us }
                    } else {
                        Since::started(container.started_us)
                    };
                    Some(Known::new(*container, known.as_ref(), since))
                }
            };
            self.containers.extend(known.map(|known| (known.container.id.clone(), known)));
        }
        self.host = host;
        self.put_bridges(bridges);
        for known in self.containers.values() {
            learn_gateways(&mut self.bridges, &known.container);
        }
        let pods: Vec<Object> =
            self.containers.values().flat_map(|known| self.pods(known)).collect();
        let nodes: Vec<Object> = self.bridges.values().filter_map(|it| self.node(it)).collect();
        for kind in Kind::ALL {
            let objects = match kind {
                Kind::Pod => pods.as_slice(),
                Kind::Node => nodes.as_slice(),
                // What an earlier run had from elsewhere.
                _ => &[],
            };
            index.replace(kind, objects, now_us);
        }
        self.last_seen_us = self.last_seen_us.max(now_us);
    }

    /// Takes in the bridges, after an event at `at_us`.
    pub(super) fn bridges(&mut self, bridges: Vec<Bridge>, at_us: u64, index: &mut IdentityIndex) {
        let mut before = self.put_bridges(bridges);
        for bridge in self.bridges.values() {
            before.remove(&bridge.id);
            self.node(bridge).iter().for_each(|node| index.apply(node, at_us));
        }
        for gone in before.values() {
            self.node(gone).iter().for_each(|node| index.delete(node, at_us));
        }
    }

    /// Takes in a container as it is after an event. Endpoints that it has no more ended then; of new ones, the
    /// one that the event tells of began then. Others have events of their own, unless the engine only tells
    /// of the start.
    pub(super) fn inspected(
        &mut self,
        mut container: Container,
        event: &Event,
        index: &mut IdentityIndex,
    ) {
        let known = self.containers.remove(&container.id);
        let is_new_run =
            known.as_ref().is_none_or(|known| known.container.started_us != container.started_us);
        let started_us = container.started_us;
        let mut since = HashMap::new();
        container.endpoints.retain(|endpoint| {
            let known = known.as_ref().and_then(|known| known.since.get(&endpoint.id));
            let began = match &event.what {
                _ if known.is_some() => known.copied(),
                What::Connected { network, .. } if *network == endpoint.network => {
                    Some(Since { start_us: event.at_us, starting_us: event.at_us })
                }
                What::Started(_) if is_new_run => Some(Since::started(started_us)),
                _ => None,
            };
            since.extend(began.map(|began| (endpoint.id.clone(), began)));
            began.is_some()
        });
        if let Some(known) = &known {
            let gone = known
                .container
                .endpoints
                .iter()
                .filter(|endpoint| !since.contains_key(&endpoint.id));
            gone.for_each(|endpoint| self.end(known, endpoint, event.at_us, index));
        }
        for network in learn_gateways(&mut self.bridges, &container) {
            let node = self.bridges.get(&network).and_then(|bridge| self.node(bridge));
            node.iter().for_each(|node| index.apply(node, event.at_us));
        }
        if container.running || !container.endpoints.is_empty() {
            let known = Known { container, since };
            self.pods(&known).for_each(|pod| index.apply(&pod, event.at_us));
            self.containers.insert(known.container.id.clone(), known);
        }
    }

    /// A container runs no more since `at_us`; what it has since a later time is of a later run.
    pub(super) fn ended(&mut self, container: &str, at_us: u64, index: &mut IdentityIndex) {
        let Some(mut known) = self.containers.remove(container) else { return };
        let endpoints = std::mem::take(&mut known.container.endpoints);
        let (gone, later): (Vec<_>, _) =
            endpoints.into_iter().partition(|endpoint| known.since(endpoint).start_us <= at_us);
        for endpoint in &gone {
            self.end(&known, endpoint, at_us, index);
        }
        known.container.endpoints = later;
        if !known.container.endpoints.is_empty() {
            self.containers.insert(container.to_owned(), known);
        }
    }

    /// All of it is known to be so at `now_us`: there was no event, and there would have been.
    pub(super) fn seen(&mut self, now_us: u64, index: &mut IdentityIndex) {
        self.last_seen_us = self.last_seen_us.max(now_us);
        [Kind::Pod, Kind::Node].iter().for_each(|kind| index.seen(*kind, now_us));
    }

    fn end(&self, known: &Known, endpoint: &Endpoint, at_us: u64, index: &mut IdentityIndex) {
        index.delete(&self.pod(known, endpoint), at_us);
    }

    /// Puts these in the others' place, with the gateways known of them. Returns the others.
    fn put_bridges(&mut self, bridges: Vec<Bridge>) -> BTreeMap<String, Bridge> {
        let before = std::mem::take(&mut self.bridges);
        self.bridges.extend(bridges.into_iter().take(MAX_BRIDGES).map(|mut bridge| {
            let known = before.get(&bridge.id).into_iter().flat_map(|known| &known.gateways);
            bridge.gateways.extend(known);
            (bridge.id.clone(), bridge)
        }));
        before
    }

    fn pods<'a>(&'a self, known: &'a Known) -> impl Iterator<Item = Object> + 'a {
        known.container.endpoints.iter().map(|endpoint| self.pod(known, endpoint))
    }

    /// An endpoint, as the index knows such things.
    fn pod(&self, known: &Known, endpoint: &Endpoint) -> Object {
        let Container { name, namespace, workload: (kind, workload), ports, .. } = &known.container;
        let since = known.since(endpoint);
        let ports = ports
            .iter()
            .map(|port| ContainerPort { container_port: *port, ..ContainerPort::default() });
        let ports = crate::objects::Container { ports: ports.collect() };
        Pod {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                uid: Some(endpoint.id.clone()),
                owner_references: Some(vec![OwnerReference {
                    kind: (*kind).to_owned(),
                    name: workload.clone(),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            spec: PodSpec {
                node_name: self.host.clone(),
                containers: vec![ports],
                ..PodSpec::default()
            },
            status: PodStatus {
                phase: "Running".to_owned(),
                start_time: time(since.starting_us),
                conditions: vec![Condition {
                    r#type: "PodReadyToStartContainers".to_owned(),
                    status: "True".to_owned(),
                    last_transition_time: time(since.start_us),
                }],
                pod_ips: endpoint
                    .addresses
                    .iter()
                    .map(|ip| HoldsIp { ip: ip.to_string() })
                    .collect(),
                ..PodStatus::default()
            },
        }
        .into()
    }

    /// The host at a bridge's gateway, if the engine tells the host's name.
    fn node(&self, bridge: &Bridge) -> Option<Object> {
        let Bridge { id, created_us, gateways } = bridge;
        let address = |ip: &IpAddr| NodeAddress { address: ip.to_string() };
        let node = Node {
            metadata: ObjectMeta {
                name: Some(self.host.clone()),
                uid: Some(id.clone()),
                creation_timestamp: time(*created_us),
                ..ObjectMeta::default()
            },
            status: NodeStatus { addresses: gateways.iter().map(address).collect() },
            ..Node::default()
        };
        (!self.host.is_empty()).then(|| node.into())
    }
}

impl Since {
    /// Since its container was started: it had its addresses a little before.
    fn started(started_us: u64) -> Self {
        Self { start_us: started_us, starting_us: 0 }
    }
}

impl Known {
    /// A container whose endpoints are there since they were, and new ones since `since`.
    fn new(container: Container, before: Option<&Self>, since: Since) -> Self {
        let endpoints = container.endpoints.iter();
        let since = endpoints.map(|endpoint| {
            let known = before.and_then(|before| before.since.get(&endpoint.id));
            (endpoint.id.clone(), known.copied().unwrap_or(since))
        });
        Self { since: since.collect(), container }
    }

    fn since(&self, endpoint: &Endpoint) -> Since {
        let known = self.since.get(&endpoint.id).copied();
        known.unwrap_or_else(|| Since::started(self.container.started_us))
    }
}

/// Takes what a container tells of its bridges' gateways. Returns the networks of which that is new.
fn learn_gateways(bridges: &mut BTreeMap<String, Bridge>, container: &Container) -> Vec<String> {
    let mut learned = Vec::new();
    for endpoint in &container.endpoints {
        let Some(bridge) = bridges.get_mut(&endpoint.network) else { continue };
        let known = bridge.gateways.len();
        let room = MAX_GATEWAYS.saturating_sub(known);
        bridge.gateways.extend(endpoint.gateways.iter().take(room));
        if bridge.gateways.len() > known {
            learned.push(endpoint.network.clone());
        }
    }
    learned
}

fn time(us: u64) -> Option<Time> {
    Timestamp::from_microsecond(us.try_into().ok()?).ok().map(Time)
}

#[cfg(test)]
mod tests;
