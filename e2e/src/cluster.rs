//! The demo's cluster: two nodes, a web tier, an API, a database, something that calls outside, and
//! something that should not be there; with their Services.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::lab::{Lab, Namespace, Node, Pod};

/// Port that every server of the demo listens on, but the database.
pub const HTTP_PORT: u16 = 8080;
/// The database's port.
pub const POSTGRES_PORT: u16 = 5432;
/// A port that nothing listens on.
pub const CLOSED_PORT: u16 = 9999;
/// A port that a rule closes: packets to it vanish.
pub const DROPPED_PORT: u16 = 6379;
/// A host beyond the cluster (RFC 5737, TEST-NET-3).
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The port it serves.
pub const OUTSIDE_PORT: u16 = 443;
/// kube-proxy's mark of packets to masquerade.
const MASQUERADE: &str = "0x4000";

/// A pod with its place in Kubernetes.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// The namespace that is its network.
    pub pod: Pod,
    /// Kubernetes namespace.
    pub namespace: &'static str,
    /// Top owner's name.
    pub workload: &'static str,
    /// Pod's name.
    pub name: String,
    /// Node it runs on.
    pub node: String,
    /// Owned by a StatefulSet; else by a Deployment's ReplicaSet.
    pub stateful: bool,
    /// Port its container declares, if it serves.
    pub port: Option<u16>,
}

/// A Service with its endpoints.
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    /// Kubernetes namespace.
    pub namespace: &'static str,
    /// Its name, and its endpoints' workload.
    pub name: &'static str,
    /// Cluster address.
    pub ip: Ipv4Addr,
    /// Service port.
    pub port: u16,
    /// Port of the endpoints.
    pub target_port: u16,
    /// Port of every node that leads to it too.
    pub node_port: Option<u16>,
}

/// A pod to lay out: its node's number (1 or 2), namespace, workload, and its port, if it serves.
pub type PodPlan = (u8, &'static str, &'static str, Option<u16>);

/// The demo's pods.
const PODS: &[PodPlan] = &[
    (1, "clients", "visitors", None),
    (1, "shop", "web", Some(HTTP_PORT)),
    (2, "shop", "web", Some(HTTP_PORT)),
    (1, "shop", "api", Some(HTTP_PORT)),
    (2, "data", "postgres", Some(POSTGRES_PORT)),
    (1, "shop", "payments", None),
    (1, "monitoring", "prometheus", None),
    (1, "security", "scanner", None),
];

/// The demo's Services.
const SERVICES: &[ServiceSpec] = &[
    ServiceSpec::of("shop", "web", 10, 80, HTTP_PORT),
    ServiceSpec::of("shop", "api", 20, 80, HTTP_PORT),
    ServiceSpec::of("data", "postgres", 30, POSTGRES_PORT, POSTGRES_PORT),
];

impl ServiceSpec {
    /// A Service of a workload's name, with the address of a number.
    pub const fn of(
        namespace: &'static str,
        name: &'static str,
        number: u8,
        port: u16,
        target_port: u16,
    ) -> Self {
        let ip = Ipv4Addr::new(10, 96, 0, number);
        Self { namespace, name, ip, port, target_port, node_port: None }
    }
}

/// The running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Node that Flowtrail runs on.
    pub node_a: Node,
    /// The other node.
    pub node_b: Node,
    /// A host beyond the cluster.
    pub outside: Namespace,
    /// All pods.
    pub pods: Vec<PodSpec>,
    /// All Services.
    pub services: Vec<ServiceSpec>,
    /// Last: dropping it deletes the namespaces.
    _lab: Lab,
}

impl Cluster {
    /// Lays out the demo's cluster.
    ///
    /// # Errors
    /// Without root, `ip` or `nft`, or if the kernel refuses.
    pub fn new(prefix: &str) -> Result<Self> {
        Self::of(prefix, PODS, SERVICES)
    }

    /// Lays out a cluster of two nodes.
    ///
    /// # Errors
    /// As [`Cluster::new`].
    pub fn of(prefix: &str, plan: &[PodPlan], services: &[ServiceSpec]) -> Result<Self> {
        let mut lab = Lab::new(prefix)?;
        let fabric = lab.fabric()?;
        let node_a = lab.node(&fabric, "node-a", 1)?;
        let node_b = lab.node(&fabric, "node-b", 2)?;
        let outside = lab.outside(&fabric, "outside", OUTSIDE)?;

        let mut pods = Vec::new();
        for (number, (node, namespace, workload, port)) in (10..).zip(plan.iter().copied()) {
            let node = if node == 1 { &node_a } else { &node_b };
            let stateful = workload == "postgres";
            let name = if stateful {
                format!("{workload}-0")
            } else {
                format!("{workload}-5d89c7f6b4-{number:05}")
            };
            let pod = lab.pod(node, &format!("{workload}-{number}"), number)?;
            let node = node.name.clone();
            pods.push(PodSpec { pod, namespace, workload, name, node, stateful, port });
        }
        let services = services.to_vec();
        let cluster = Self { node_a, node_b, outside, pods, services, _lab: lab };
        for node in cluster.nodes() {
            node.namespace.nft(&cluster.rules(node))?;
        }
        Ok(cluster)
    }

    /// Both nodes.
    pub fn nodes(&self) -> [&Node; 2] {
        [&self.node_a, &self.node_b]
    }

    /// Pods of a workload.
    pub fn pods_of(&self, namespace: &str, workload: &str) -> impl Iterator<Item = &PodSpec> {
        self.pods.iter().filter(move |pod| pod.namespace == namespace && pod.workload == workload)
    }

    /// Endpoints of a Service.
    pub fn endpoints(&self, service: &ServiceSpec) -> impl Iterator<Item = &PodSpec> {
        self.pods_of(service.namespace, service.name)
    }

    /// What kube-proxy and a network policy would do on each node: Services by DNAT, masquerade
    /// towards the outside, and one port closed by a rule.
    ///
    /// What comes by a NodePort is masqueraded, as is what a pod sends to itself through a Service: else
    /// the answer would take another way.
    fn rules(&self, node: &Node) -> String {
        let services: String = self
            .services
            .iter()
            .map(|service| {
                let endpoints: Vec<_> = self
                    .endpoints(service)
                    .enumerate()
                    .map(|(n, pod)| format!("{n} : {} . {}", pod.pod.ip, service.target_port))
                    .collect();
                let (count, endpoints) = (endpoints.len(), endpoints.join(", "));
                let dnat = format!("dnat ip to numgen inc mod {count} map {{ {endpoints} }}");
                let ServiceSpec { ip, port, .. } = service;
                let node_port = service.node_port.map_or_else(String::new, |port| {
                    let to = format!("ip daddr {} tcp dport {port}", node.ip);
                    format!("    {to} meta mark set {MASQUERADE} {dnat}\n")
                });
                format!("    ip daddr {ip} tcp dport {port} {dnat}\n{node_port}")
            })
            .collect();
        let hairpins: String = self
            .pods
            .iter()
            .map(|pod| format!("    ip saddr {0} ip daddr {0} masquerade\n", pod.pod.ip))
            .collect();
        format!(
            "table ip demo {{
  chain services {{
{services}  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat
    jump services
  }}
  chain output {{
    type nat hook output priority -100
    jump services
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat
    meta mark {MASQUERADE} masquerade
{hairpins}    ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
  }}
  chain network_policy {{
    type filter hook forward priority filter
    tcp dport {DROPPED_PORT} drop
  }}
}}
"
        )
    }
}
