//! A cluster: 50 nodes, 10,000 pods in a thousand workloads with a Service each, and its names as
//! `kubectl get … -o json` prints them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use fastrand::Rng;
use flowtrail_schema::{Interface, InterfaceKind};
use serde_json::{Value, json};

/// Nodes, each with an agent.
pub const NODES: usize = 50;
const PODS: usize = 10_000;
const WORKLOADS: usize = 1_000;
const NAMESPACES: usize = 20;
/// Where the Services listen, and their pods.
pub const SERVICE_PORT: u16 = 80;
/// See [`SERVICE_PORT`].
pub const POD_PORT: u16 = 8_080;

/// A pod, as packets show it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its own address.
    pub ip: Ipv4Addr,
    /// The node that it runs on.
    pub node: usize,
    /// The workload that it belongs to.
    pub workload: usize,
    /// The host's end of its veth.
    pub interface: Arc<Interface>,
}

/// The cluster.
#[derive(Debug)]
pub struct World {
    /// All pods.
    pub pods: Vec<Pod>,
    /// Summed weights of the workloads: the nth is called 1/n as often as the first (Zipf's law).
    popularity: Vec<f64>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// The same every time.
    pub fn new() -> Self {
        let pods = (0..PODS).map(pod).collect();
        let weights = (1..=WORKLOADS).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        Self { pods, popularity: weights.collect() }
    }

    /// A pod of a workload that is called, the popular ones more often.
    pub fn called(&self, rng: &mut Rng) -> usize {
        let all = self.popularity.last().copied().unwrap_or_default();
        let at = rng.f64() * all;
        let workload = self.popularity.partition_point(|sum| *sum < at).min(WORKLOADS - 1);
        workload + WORKLOADS * rng.usize(..PODS / WORKLOADS)
    }

    /// The pods of a node.
    pub fn on(&self, node: usize) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(move |pod| pod.node == node)
    }

    /// All objects, created at a time.
    pub fn names(&self, created: &str) -> Value {
        let mut items: Vec<Value> = (0..NODES).map(|node| node_object(node, created)).collect();
        items.extend(self.pods.iter().enumerate().map(|(at, pod)| pod_object(at, pod, created)));
        for workload in 0..WORKLOADS {
            items.push(replica_set(workload, created));
            items.push(service(workload, created));
            items.push(endpoint_slice(workload, created));
        }
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items})
    }
}

/// A node's name.
pub fn node_name(node: usize) -> String {
    format!("node-{node:02}.cluster.example")
}

/// A workload's Service's address.
pub fn service_ip(workload: usize) -> Ipv4Addr {
    let [high, low] = (workload as u16 + 1).to_be_bytes();
    Ipv4Addr::new(10, 96, high, low)
}

fn pod(at: usize) -> Pod {
    let (node, workload) = (at * 7 % NODES, at % WORKLOADS);
    let [high, low] = ((at / NODES) as u16 + 1).to_be_bytes();
    let name = format!("veth{at:08x}");
    Pod {
        ip: Ipv4Addr::new(10, 100 + node as u8, high, low),
        node,
        workload,
        interface: Arc::new(Interface { name, kind: InterfaceKind::Pod }),
    }
}

fn workload_name(workload: usize) -> String {
    format!("service-{workload:04}-backend")
}

fn metadata(kind: &str, namespaced: Option<usize>, name: &str, created: &str) -> Value {
    let mut metadata = json!({"name": name, "uid": uid(kind, name), "creationTimestamp": created});
    if let Some(workload) = namespaced {
        metadata["namespace"] = format!("team-{:02}", workload % NAMESPACES).into();
    }
    metadata
}

fn uid(kind: &str, name: &str) -> String {
    format!("{kind}-{name}").to_lowercase()
}

fn owned_by(kind: &str, name: &str) -> Value {
    json!([{
        "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid(kind, name), "controller": true,
    }])
}

fn node_object(node: usize, created: &str) -> Value {
    let name = node_name(node);
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": metadata("Node", None, &name, created),
        "status": {"addresses": [
            {"type": "InternalIP", "address": format!("192.168.0.{}", node + 1)},
        ]},
    })
}

fn replica_set_name(workload: usize) -> String {
    format!("{}-5d89c7f6b4", workload_name(workload))
}

fn pod_name(at: usize, workload: usize) -> String {
    format!("{}-{at:05x}", replica_set_name(workload))
}

fn pod_object(at: usize, pod: &Pod, created: &str) -> Value {
    let name = pod_name(at, pod.workload);
    let mut metadata = metadata("Pod", Some(pod.workload), &name, created);
    metadata["ownerReferences"] = owned_by("ReplicaSet", &replica_set_name(pod.workload));
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {
            "nodeName": node_name(pod.node),
            "containers": [{"name": "main", "ports": [{"containerPort": POD_PORT}]}],
        },
        "status": {
            "phase": "Running", "podIP": pod.ip, "podIPs": [{"ip": pod.ip}], "startTime": created,
            "hostIP": format!("192.168.0.{}", pod.node + 1),
        },
    })
}

fn replica_set(workload: usize, created: &str) -> Value {
    let name = replica_set_name(workload);
    let mut metadata = metadata("ReplicaSet", Some(workload), &name, created);
    metadata["ownerReferences"] = owned_by("Deployment", &workload_name(workload));
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata})
}

fn service(workload: usize, created: &str) -> Value {
    let metadata = metadata("Service", Some(workload), &workload_name(workload), created);
    let ip = service_ip(workload);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
            "ports": [{"protocol": "TCP", "port": SERVICE_PORT, "targetPort": POD_PORT}],
        },
    })
}

fn endpoint_slice(workload: usize, created: &str) -> Value {
    let name = format!("{}-x7k2p", workload_name(workload));
    let mut metadata = metadata("EndpointSlice", Some(workload), &name, created);
    metadata["labels"] = json!({"kubernetes.io/service-name": workload_name(workload)});
    let pods = (workload..PODS).step_by(WORKLOADS);
    let endpoints: Vec<Value> = pods
        .map(|at| {
            let name = pod_name(at, workload);
            json!({
                "addresses": [pod(at).ip], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": name, "uid": uid("Pod", &name)},
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": metadata, "endpoints": endpoints, "ports": [{"port": POD_PORT}],
    })
}
