//! What an object says about names: who it is, what it claims, and from when to when.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::ObjectMeta;

use super::MAX_CLAIMS;
use super::ownership::{Claim, Life};
use super::workload::Owner;
use crate::objects::{
    EndpointSlice, Kind, Node, Object, Pod, PodStatus, SERVICE_NAME_LABEL, Service,
};

/// One object in the index's own words.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) kind: Kind,
    pub(super) uid: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) node: Arc<str>,
    pub(super) owner: Option<Owner>,
    /// Service or container ports.
    pub(super) ports: Vec<u16>,
    pub(super) claims: Vec<Claim>,
    /// Claims beyond the cap.
    pub(super) refused_claims: u64,
    pub(super) life: Life,
    pub(super) slice_of: Option<Arc<str>>,
    /// Uids of the pods in an EndpointSlice.
    pub(super) pods: Option<Vec<Arc<str>>>,
}

/// `None` for an object without a name: it cannot be told from others.
pub(super) fn describe(object: &Object) -> Option<Described> {
    let described = identify(object.kind(), object.metadata())?;
    let mut described = match object {
        Object::Pod(pod) => describe_pod(pod, described),
        Object::Service(service) => describe_service(service, described),
        Object::Node(node) => describe_node(node, described),
        Object::EndpointSlice(slice) => describe_slice(slice, described),
        Object::ReplicaSet(_) | Object::Job(_) | Object::Unreadable(_) => described,
    };
    let excess = described.claims.len().saturating_sub(MAX_CLAIMS);
    described.claims.truncate(MAX_CLAIMS);
    described.refused_claims += excess as u64;
    Some(described)
}

fn identify(kind: Kind, metadata: &ObjectMeta) -> Option<Described> {
    let name: Arc<str> = metadata.name.as_deref().filter(|name| !name.is_empty())?.into();
    let namespace: Arc<str> = metadata.namespace.as_deref().unwrap_or_default().into();
    let uid =
        uid_or_name(metadata.uid.as_deref().unwrap_or_default(), kind.as_str(), &namespace, &name);
    let owners = metadata.owner_references.iter().flatten();
    let owner =
        owners.clone().find(|owner| owner.controller == Some(true)).or(owners.clone().next());
    let owner = owner.map(|owner| Owner {
        kind: owner.kind.as_str().into(),
        name: owner.name.as_str().into(),
        uid: uid_or_name(&owner.uid, &owner.kind, &namespace, &owner.name),
    });
    let created_us = metadata.creation_timestamp.as_ref().map_or(0, micros);
    Some(Described {
        kind,
        uid,
        namespace,
        name,
        node: Arc::default(),
        owner,
        ports: Vec::new(),
        claims: Vec::new(),
        refused_claims: 0,
        life: Life { start_us: created_us, starting_us: created_us, ..Life::default() },
        slice_of: None,
        pods: None,
    })
}

fn describe_pod(pod: &Pod, mut described: Described) -> Described {
    let (spec, status) = (&pod.spec, &pod.status);
    let containers = spec.containers.iter().chain(&spec.init_containers);
    let ports =
        containers.flat_map(|container| &container.ports).filter(|port| tcp(&port.protocol));
    described.node = spec.node_name.as_str().into();
    // 0 is how some tools write "none".
    let some = |port: &u16| *port != 0;
    described.ports = ports.clone().map(|port| port.container_port).filter(some).collect();
    let hosts =
        status.host_ips.iter().map(|host| host.ip.as_str()).chain([status.host_ip.as_str()]);
    let own = status.pod_ips.iter().map(|pod| pod.ip.as_str()).chain([status.pod_ip.as_str()]);
    let (hosts, claimed_ports): (_, Vec<u16>) = if spec.host_network {
        // Its own addresses are the node's: older clusters tell the second family only there.
        (addresses(hosts.chain(own)), described.ports.clone())
    } else {
        described.claims = addresses(own).into_iter().map(Claim::address).collect();
        (addresses(hosts), ports.filter_map(|port| port.host_port).filter(some).collect())
    };
    for host in hosts {
        described.claims.extend(claimed_ports.iter().map(|port| Claim::port(host, *port)));
    }
    described.life = life_of_pod(status, described.life);
    described
}

/// From PodReadyToStartContainers (else startTime) until the phase is final. A finished pod's address is
/// free: its last condition that became false tells since when (Kubernetes' pod lifecycle document).
fn life_of_pod(status: &PodStatus, created: Life) -> Life {
    let sandbox_ready = status.conditions.iter().find(|condition| {
        condition.r#type == "PodReadyToStartContainers" && condition.status == "True"
    });
    let exact = sandbox_ready.and_then(|condition| condition.last_transition_time.as_ref());
    let finished = matches!(status.phase.as_str(), "Succeeded" | "Failed");
    let turned_false = status
        .conditions
        .iter()
        .filter(|condition| condition.status == "False")
        .filter_map(|condition| condition.last_transition_time.as_ref().map(micros));
    let starting_us = status.start_time.as_ref().map_or(created.start_us, micros);
    let start_us = exact.map_or(starting_us, micros);
    Life {
        start_us,
        exact: exact.is_some(),
        starting_us: starting_us.min(start_us),
        finished,
        finished_us: turned_false.max().filter(|_| finished),
    }
}

fn describe_service(service: &Service, mut described: Described) -> Described {
    let (spec, ingress) = (&service.spec, &service.status.load_balancer.ingress);
    if spec.r#type == "ExternalName" {
        // A name for someone else: whatever addresses it lists, nothing routes them.
        return described;
    }
    let cluster = spec.cluster_ips.iter().chain([&spec.cluster_ip]);
    let all = cluster.chain(&spec.external_ips).chain(ingress.iter().map(|ingress| &ingress.ip));
    described.claims = addresses(all.map(String::as_str)).into_iter().map(Claim::address).collect();
    let ports = spec.ports.iter().filter(|port| tcp(&port.protocol));
    described.ports = ports.clone().map(|port| port.port).collect();
    let node_ports = ports.filter_map(|port| port.node_port).filter(|port| *port != 0);
    described.claims.extend(node_ports.map(Claim::node_port));
    described
}

fn describe_node(node: &Node, mut described: Described) -> Described {
    let all = node.status.addresses.iter().map(|address| address.address.as_str());
    let own = addresses(all);
    let Node { spec, .. } = node;
    let networks = spec.pod_cidrs.iter().chain([&spec.pod_cidr]);
    let networks = addresses(networks.filter_map(|cidr| Some(cidr.split_once('/')?.0)));
    let gateways = networks.into_iter().flat_map(|network| [network, following(network)]);
    described.claims = own.into_iter().chain(gateways).map(Claim::address).collect();
    described.node = Arc::clone(&described.name);
    described
}

/// The address after one: of a node's pod network the first is its bridge's, which is whose address its
/// own pods see when the node itself (a probe, say) asks them. The network's own is its tunnel's.
fn following(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip).wrapping_add(1)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip).wrapping_add(1)).into(),
    }
}

fn describe_slice(slice: &EndpointSlice, mut described: Described) -> Described {
    let labels = slice.metadata.labels.as_ref();
    described.slice_of =
        labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL)).map(|name| name.as_str().into());
    let targets = slice.endpoints.iter().filter_map(|endpoint| endpoint.target_ref.as_ref());
    let pods = targets.filter(|target| target.kind == "Pod");
    described.pods =
        Some(pods.map(|pod| uid_or_name(&pod.uid, &pod.kind, &pod.namespace, &pod.name)).collect());
    described
}

/// Whether a port is one of TCP: without a protocol it is.
fn tcp(protocol: &str) -> bool {
    matches!(protocol, "" | "TCP")
}

/// Objects written by hand may lack the uid: then kind, namespace and name stand in.
fn uid_or_name(uid: &str, kind: &str, namespace: &str, name: &str) -> Arc<str> {
    if uid.is_empty() { format!("{kind}/{namespace}/{name}").into() } else { uid.into() }
}

/// The addresses among the texts ("None", host names, blanks and 0.0.0.0 are not), each once.
fn addresses<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<IpAddr> {
    let mut seen = HashSet::new();
    let found = texts.filter_map(|text| text.parse::<IpAddr>().ok());
    let found = found.map(|address| address.to_canonical());
    found.filter(|address| !address.is_unspecified() && seen.insert(*address)).collect()
}

/// Microseconds since the epoch.
fn micros(time: &Time) -> u64 {
    time.0.as_microsecond().try_into().unwrap_or(0)
}
