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
    /// Lays out the cluster.
    ///
    /// # Errors
    /// Without root, `ip` or `nft`, or if the kernel refuses.
    pub fn new(prefix: &str) -> Result<Self> {
        let mut lab = Lab::new(prefix)?;
        let fabric = lab.fabric()?;
        let node_a = lab.node(&fabric, "node-a", 1)?;
        let node_b = lab.node(&fabric, "node-b", 2)?;
        let outside = lab.outside(&fabric, "outside", OUTSIDE)?;

        let mut pods = Vec::new();
        let mut add = |node: &Node, namespace, workload, port| -> Result<()> {
            let number = pods.len() as u8 + 10;
            let stateful = workload == "postgres";
            let name = if stateful {
                format!("{workload}-0")
            } else {
                format!("{workload}-5d89c7f6b4-{number:05}")
            };
            let pod = lab.pod(node, &format!("{workload}-{number}"), number)?;
            let node = node.name.clone();
            pods.push(PodSpec { pod, namespace, workload, name, node, stateful, port });
            Ok(())
        };
        add(&node_a, "clients", "visitors", None)?;
        add(&node_a, "shop", "web", Some(HTTP_PORT))?;
        add(&node_b, "shop", "web", Some(HTTP_PORT))?;
        add(&node_a, "shop", "api", Some(HTTP_PORT))?;
        add(&node_b, "data", "postgres", Some(POSTGRES_PORT))?;
        add(&node_a, "shop", "payments", None)?;
        add(&node_a, "monitoring", "prometheus", None)?;
        add(&node_a, "security", "scanner", None)?;

        let service = |namespace, name, number, port, target_port| {
            let ip = Ipv4Addr::new(10, 96, 0, number);
            ServiceSpec { namespace, name, ip, port, target_port }
        };
        let services = vec![
            service("shop", "web", 10, 80, HTTP_PORT),
            service("shop", "api", 20, 80, HTTP_PORT),
            service("data", "postgres", 30, POSTGRES_PORT, POSTGRES_PORT),
        ];
        let cluster = Self { node_a, node_b, outside, pods, services, _lab: lab };
        let rules = cluster.rules();
        cluster.node_a.namespace.nft(&rules)?;
        cluster.node_b.namespace.nft(&rules)?;
        Ok(cluster)
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
    fn rules(&self) -> String {
        let services: String = self
            .services
            .iter()
            .map(|service| {
                let endpoints: Vec<_> = self
                    .endpoints(service)
                    .enumerate()
                    .map(|(n, pod)| format!("{n} : {} . {}", pod.pod.ip, service.target_port))
                    .collect();
                format!(
                    "    ip daddr {} tcp dport {} dnat ip to numgen inc mod {} map {{ {} }}\n",
                    service.ip,
                    service.port,
                    endpoints.len(),
                    endpoints.join(", ")
                )
            })
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
    ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
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
