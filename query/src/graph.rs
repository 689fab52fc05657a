//! Rows of the store → edges and nodes. Pure: the same rows give the same graph, in any order.
//!
//! **What a node is.** Named things are folded by name, by the request's `group_by`:
//! - `namespace`: the namespace; what has none (nodes, external and unknown addresses) is one node
//!   per kind.
//! - `workload`: the workload; a Service or pod without one is itself.
//! - `pod`: the pod; a Service is itself.
//! - `service`: a server, the Service it was reached through; all else as under `workload`.
//! - `node`: the cluster node that the end runs on; what runs on none is itself.
//! - `ip`: the address, behind NAT where that is known.
//!
//! Nameless ends, external and unknown ones above all, are folded by address, but under `namespace`.
//!
//! An end whose name and address are hidden from the caller ([`crate::scope`]) is folded into its workload,
//! or, without one or where workloads are not told apart, as under `namespace`.
//!
//! **What `limit` does.** The largest edges stay. Each of the rest gives its traffic to an edge
//! between the node `other`, which lists no addresses, and whichever of its ends is still there, so the
//! sums stay whole. Where they are many, the store has done so already ([`crate::sql::Kept`]): of edges
//! that rank the same it may keep others, and what it left out names no workload of an end that stays.

mod node;
mod sums;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

pub(crate) use node::{Face, label};
pub(crate) use sums::{Measure, Sums};

use crate::answer::{Edge, Node};
use crate::expression::Expression;
use crate::params::{GroupBy, Stat};
use crate::sql::{EdgeRow, MAX_LISTED, OpenRow};

/// The rows that a graph is made of.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// The window's sums.
    pub(crate) edges: Vec<EdgeRow>,
    /// The connections open at its start, unless they are in the sums.
    pub(crate) open_at_start: Vec<OpenRow>,
    /// The connections open at its end.
    pub(crate) open_at_end: Vec<OpenRow>,
}

/// Edges by the ids of their ends, and the nodes they touch by id.
#[derive(Debug, Default)]
struct Folded {
    edges: BTreeMap<(String, String), EdgeSums>,
    faces: BTreeMap<String, Face>,
}

#[derive(Clone, Debug, Default)]
struct EdgeSums {
    sums: Sums,
    seen: Option<(i64, i64)>,
    server_ports: BTreeSet<u16>,
    services: BTreeSet<String>,
    client_addresses: BTreeSet<Ipv6Addr>,
    server_addresses: BTreeSet<Ipv6Addr>,
}

/// The graph of some rows: of the edges whose sums `q` keeps at most `limit` of their own, ranked by `stat`, and
/// the folded rest. `from_ms` is when connections were seen that were only open.
pub(crate) fn graph(
    rows: Rows,
    group_by: GroupBy,
    q: &Expression,
    stat: Stat,
    limit: usize,
    from_ms: i64,
) -> (Vec<Node>, Vec<Edge>) {
    let mut folded = Folded::default();
    for row in rows.edges {
        folded.add_edge(group_by, row);
    }
    for row in rows.open_at_start {
        let (connections, inferred) = (row.connections, row.inferred);
        folded.add_open(group_by, row, Sums { connections, inferred, ..Sums::default() });
    }
    for row in rows.open_at_end {
        let open = row.connections;
        folded.add_open(group_by, row, Sums { open, ..Sums::default() });
    }
    folded.edges.retain(|_, edge| q.keeps(&edge.sums));
    let ranked = folded.limited(stat, limit);
    let nodes = nodes(&folded.faces, &ranked);
    let edges = ranked.into_iter().map(|(ends, sums)| edge(ends, sums, from_ms)).collect();
    (nodes, edges)
}

impl Folded {
    fn add_edge(&mut self, group_by: GroupBy, row: EdgeRow) {
        let source = self.node(Face::of(group_by, &row.source));
        let target = self.node(Face::of(group_by, &row.target));
        let more = EdgeSums {
            seen: Some((row.first_seen_ms, row.last_seen_ms)),
            server_ports: row.server_ports.iter().copied().collect(),
            services: row.services.iter().cloned().collect(),
            client_addresses: row.client_addresses.iter().copied().collect(),
            server_addresses: row.server_addresses.iter().copied().collect(),
            sums: Sums::of(row),
        };
        self.edges.entry((source, target)).or_default().merge(&more);
    }

    fn add_open(&mut self, group_by: GroupBy, row: OpenRow, sums: Sums) {
        let source = self.node(Face::of(group_by, &row.source));
        let target = self.node(Face::of(group_by, &row.target));
        let more = EdgeSums {
            sums,
            seen: None,
            server_ports: row.server_ports.into_iter().collect(),
            services: row.services.into_iter().collect(),
            client_addresses: row.client_addresses.into_iter().collect(),
            server_addresses: row.server_addresses.into_iter().collect(),
        };
        self.edges.entry((source, target)).or_default().merge(&more);
    }

    /// The id of a node. One that was seen with and without a workload has it.
    fn node(&mut self, face: Face) -> String {
        let id = face.id();
        let known = self.faces.entry(id.clone()).or_default();
        if (&known.workload, &known.workload_kind) <= (&face.workload, &face.workload_kind) {
            *known = face;
        }
        id
    }

    /// All edges, ranked: the first `limit` as they are, the rest folded, and what was so already.
    fn limited(&mut self, stat: Stat, limit: usize) -> Vec<((String, String), EdgeSums)> {
        let other = Face::other().id();
        let all = std::mem::take(&mut self.edges).into_iter();
        let (mut folded, mut ranked): (Vec<_>, Vec<_>) =
            all.partition(|((source, target), _)| *source == other || *target == other);
        // Stable, so that equals stay ordered by id.
        ranked.sort_by(|(_, a), (_, b)| rank(b, stat).total_cmp(&rank(a, stat)));
        let rest = ranked.split_off(limit.min(ranked.len()));
        if !rest.is_empty() {
            self.node(Face::other());
            let kept: BTreeSet<&String> =
                ranked.iter().flat_map(|((source, target), _)| [source, target]).collect();
            let mut edges: BTreeMap<(String, String), EdgeSums> = folded.into_iter().collect();
            for ((source, target), mut sums) in rest {
                let source_stays = kept.contains(&source);
                let target_stays = !source_stays && kept.contains(&target);
                // What is left out has too many addresses to list.
                let end = |stays, id, addresses: &mut BTreeSet<_>| {
                    if stays {
                        return id;
                    }
                    addresses.clear();
                    other.clone()
                };
                let source = end(source_stays, source, &mut sums.client_addresses);
                let target = end(target_stays, target, &mut sums.server_addresses);
                edges.entry((source, target)).or_default().merge(&sums);
            }
            folded = edges.into_iter().collect();
        }
        ranked.extend(folded);
        ranked
    }
}

impl EdgeSums {
    fn merge(&mut self, other: &Self) {
        self.sums.merge(&other.sums);
        self.seen = match (self.seen, other.seen) {
            (Some((first, last)), Some((other_first, other_last))) => {
                Some((first.min(other_first), last.max(other_last)))
            }
            (one, another) => one.or(another),
        };
        add_lowest(&mut self.server_ports, &other.server_ports);
        add_lowest(&mut self.services, &other.services);
        add_lowest(&mut self.client_addresses, &other.client_addresses);
        add_lowest(&mut self.server_addresses, &other.server_addresses);
    }
}

/// Keeps the lowest of both, one more than is listed: the same whatever the order of merging.
fn add_lowest<T: Ord + Clone>(set: &mut BTreeSet<T>, other: &BTreeSet<T>) {
    set.extend(other.iter().cloned());
    while set.len() > MAX_LISTED + 1 {
        set.pop_last();
    }
}

fn rank(edge: &EdgeSums, stat: Stat) -> f64 {
    let sums = &edge.sums;
    match stat {
        Stat::Connections => sums.connections as f64,
        Stat::Bytes => (sums.sent.bytes + sums.received.bytes) as f64,
        Stat::Packets => (sums.sent.packets + sums.received.packets) as f64,
        Stat::Duration => sums.duration.avg_ms().unwrap_or_default(),
        Stat::Latency => sums.latency.quantile_ms(0.95).unwrap_or_default(),
        Stat::Retransmits => sums.retransmits() as f64,
        Stat::Failures => sums.failed() as f64,
    }
}

fn edge((source, target): (String, String), edge: EdgeSums, from_ms: i64) -> Edge {
    let (first_seen, last_seen) = edge.seen.unwrap_or((from_ms, from_ms));
    let more = edge.server_ports.len() > MAX_LISTED || edge.services.len() > MAX_LISTED;
    Edge {
        id: format!("{source}>{target}"),
        source,
        target,
        server_ports: edge.server_ports.into_iter().take(MAX_LISTED).collect(),
        services: edge.services.into_iter().take(MAX_LISTED).collect(),
        more,
        first_seen,
        last_seen,
        traffic: edge.sums.traffic(),
    }
}

fn nodes(faces: &BTreeMap<String, Face>, edges: &[((String, String), EdgeSums)]) -> Vec<Node> {
    #[derive(Default)]
    struct Ends {
        as_client: Sums,
        as_server: Sums,
        addresses: BTreeSet<Ipv6Addr>,
    }
    let mut ends: BTreeMap<&str, Ends> = BTreeMap::new();
    for ((source, target), edge) in edges {
        let client = ends.entry(source).or_default();
        client.as_client.merge(&edge.sums);
        add_lowest(&mut client.addresses, &edge.client_addresses);
        let server = ends.entry(target).or_default();
        server.as_server.merge(&edge.sums);
        add_lowest(&mut server.addresses, &edge.server_addresses);
    }
    let node = |(id, ends): (&str, Ends)| {
        let face = faces.get(id).cloned().unwrap_or_default();
        let name = if face.name.is_empty() { face.kind.clone() } else { face.name };
        let addresses: Vec<_> =
            ends.addresses.iter().filter(|address| !address.is_unspecified()).collect();
        Node {
            id: id.to_owned(),
            kind: face.kind,
            namespace: face.namespace,
            name,
            workload: face.workload,
            workload_kind: face.workload_kind,
            more_addresses: addresses.len() > MAX_LISTED,
            addresses: addresses
                .into_iter()
                .take(MAX_LISTED)
                .map(|address| address.to_canonical().to_string())
                .collect(),
            as_client: ends.as_client.traffic(),
            as_server: ends.as_server.traffic(),
        }
    };
    ends.into_iter().map(node).collect()
}

#[cfg(test)]
pub(crate) mod tests;
