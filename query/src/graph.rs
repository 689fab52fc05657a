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

mod faces;
mod node;
mod sums;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use faces::{Faces, Named};
use foldhash::fast::RandomState;
pub(crate) use node::{Face, label};
pub(crate) use sums::{Measure, Sums};

use crate::answer::{Edge, Node, Traffic};
use crate::expression::Expression;
use crate::params::{GroupBy, Stat};
use crate::sql::{EdgeRow, Labels, Listed, Malformed, OpenRow, Pair};

/// Nodes of an edge, client first: by number, then by their place in the order of ids.
type Ends = (usize, usize);

/// A graph in the making: takes rows in any order, and borrows of where they were read.
#[derive(Debug)]
pub(crate) struct Folded<'a> {
    faces: Faces<'a>,
    /// By the numbers of their ends. In boxes, as they are sorted and large.
    edges: HashMap<Ends, Box<EdgeSums<'a>>, RandomState>,
}

#[derive(Debug, Default)]
struct EdgeSums<'a> {
    sums: Sums<'a>,
    seen: Option<(i64, i64)>,
    labels: Labels<'a>,
}

impl<'a> Folded<'a> {
    /// Of no rows yet.
    pub(crate) fn new(group_by: GroupBy) -> Self {
        Self { faces: Faces::new(group_by), edges: HashMap::default() }
    }

    /// Adds some of the window's sums.
    ///
    /// # Errors
    /// If an end is malformed.
    pub(crate) fn add_edge(&mut self, row: EdgeRow<'a>) -> Result<(), Malformed> {
        let ends = self.ends(&row.pair)?;
        let sums = EdgeSums {
            sums: Sums::of(&row),
            seen: Some((row.first_seen_ms, row.last_seen_ms)),
            labels: row.pair.labels,
        };
        match self.edges.entry(ends) {
            Entry::Vacant(place) => {
                place.insert(Box::new(sums));
            }
            Entry::Occupied(mut known) => known.get_mut().merge(&sums),
        }
        Ok(())
    }

    /// Adds connections that are open at the window's start, unless they are in its sums, or at its end, or both.
    ///
    /// # Errors
    /// If an end is malformed.
    pub(crate) fn add_open(
        &mut self,
        row: OpenRow<'a>,
        at_start: bool,
        at_end: bool,
    ) -> Result<(), Malformed> {
        let ends = self.ends(&row.pair)?;
        let edge = self.edges.entry(ends).or_default();
        if at_start {
            edge.sums.connections += row.connections;
            edge.sums.inferred += row.inferred;
        }
        if at_end {
            edge.sums.open += row.connections;
        }
        edge.labels.merge(&row.pair.labels);
        Ok(())
    }

    fn ends(&mut self, pair: &Pair<'a>) -> Result<Ends, Malformed> {
        Ok((self.faces.of(pair.source)?, self.faces.of(pair.target)?))
    }

    /// The graph: of the edges whose sums `q` keeps at most `limit` of their own, ranked by `stat`, and the folded
    /// rest. `from_ms` is when connections were seen that were only open.
    pub(crate) fn graph(
        self,
        q: &Expression,
        stat: Stat,
        limit: usize,
        from_ms: i64,
    ) -> (Vec<Node>, Vec<Edge>) {
        let Self { mut faces, mut edges } = self;
        edges.retain(|_, edge| q.keeps(&edge.sums));
        let other = faces.other();
        let named = faces.by_id();
        let mut places = vec![0; named.len()];
        named.iter().enumerate().for_each(|(place, named)| places[named.node] = place);
        let edges = edges.into_iter().map(|((a, b), sums)| ((places[a], places[b]), sums));
        let ranked = limited(edges, places[other], stat, limit);
        let nodes = nodes(faces, &named, &ranked);
        let edges = ranked.iter().map(|(ends, sums)| edge(*ends, sums, &named, from_ms)).collect();
        (nodes, edges)
    }
}

/// All edges, ranked: the first `limit` as they are, the rest folded, and what was so already. Ends are places
/// in the order of ids.
fn limited<'a>(
    edges: impl Iterator<Item = (Ends, Box<EdgeSums<'a>>)>,
    other: usize,
    stat: Stat,
    limit: usize,
) -> Vec<(Ends, Box<EdgeSums<'a>>)> {
    let (mut folded, mut ranked) = (BTreeMap::new(), Vec::new());
    for (ends, sums) in edges {
        if ends.0 == other || ends.1 == other {
            folded.insert(ends, sums);
        } else {
            ranked.push((rank(&sums, stat), ends, sums));
        }
    }
    // Equals are ordered by id.
    ranked.sort_unstable_by(|(a, a_ends, _), (b, b_ends, _)| {
        b.total_cmp(a).then_with(|| a_ends.cmp(b_ends))
    });
    let rest = ranked.split_off(limit.min(ranked.len()));
    let kept: HashSet<usize> = if rest.is_empty() {
        HashSet::new()
    } else {
        ranked.iter().flat_map(|(_, (source, target), _)| [*source, *target]).collect()
    };
    for (_, (mut source, mut target), mut sums) in rest {
        let source_stays = kept.contains(&source);
        // What is left out has too many addresses to list.
        if !source_stays {
            source = other;
            sums.labels.client_addresses.clear();
        }
        if source_stays || !kept.contains(&target) {
            target = other;
            sums.labels.server_addresses.clear();
        }
        folded.entry((source, target)).or_default().merge(&sums);
    }
    let own = ranked.into_iter().map(|(_, ends, sums)| (ends, sums));
    own.chain(folded).collect()
}

impl EdgeSums<'_> {
    fn merge(&mut self, other: &Self) {
        self.sums.merge(&other.sums);
        self.seen = match (self.seen, other.seen) {
            (Some((first, last)), Some((other_first, other_last))) => {
                Some((first.min(other_first), last.max(other_last)))
            }
            (one, another) => one.or(another),
        };
        self.labels.merge(&other.labels);
    }
}

fn rank(edge: &EdgeSums<'_>, stat: Stat) -> f64 {
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

fn edge((source, target): Ends, edge: &EdgeSums<'_>, named: &[Named], from_ms: i64) -> Edge {
    let EdgeSums { sums, seen, labels } = edge;
    let (first_seen, last_seen) = seen.unwrap_or((from_ms, from_ms));
    let [source, target] = [source, target].map(|end| &named[end].id);
    Edge {
        id: [source, ">", target].concat(),
        source: source.clone(),
        target: target.clone(),
        server_ports: labels.server_ports.told().to_vec(),
        services: labels.services.told().iter().map(|service| (*service).to_owned()).collect(),
        more: labels.server_ports.has_more() || labels.services.has_more(),
        first_seen,
        last_seen,
        traffic: sums.traffic(),
    }
}

/// The nodes that edges touch, ordered by id. One after the other, so that what is summed is a node's at a time.
fn nodes(mut faces: Faces<'_>, named: &[Named], edges: &[(Ends, Box<EdgeSums<'_>>)]) -> Vec<Node> {
    let by_end = |end: fn(&Ends) -> usize| {
        let mut edges: Vec<_> = edges.iter().map(|(ends, edge)| (end(ends), &**edge)).collect();
        edges.sort_unstable_by_key(|(end, _)| *end);
        edges
    };
    let (by_source, by_target) = (by_end(|ends| ends.0), by_end(|ends| ends.1));
    let (mut by_source, mut by_target) = (by_source.as_slice(), by_target.as_slice());
    let mut nodes = Vec::with_capacity(named.len().min(2 * edges.len()));
    for (place, Named { node, id }) in named.iter().enumerate() {
        let (from_it, to_it) = (next_of(place, &mut by_source), next_of(place, &mut by_target));
        if from_it.is_empty() && to_it.is_empty() {
            continue;
        }
        let mut addresses = Listed::default();
        from_it.iter().for_each(|(_, edge)| addresses.add(&edge.labels.client_addresses));
        to_it.iter().for_each(|(_, edge)| addresses.add(&edge.labels.server_addresses));
        let face = faces.take(*node);
        nodes.push(Node {
            id: Arc::clone(id),
            name: if face.name.is_empty() { face.kind.clone() } else { face.name },
            kind: face.kind,
            namespace: face.namespace,
            workload: face.workload,
            workload_kind: face.workload_kind,
            more_addresses: addresses.has_more(),
            addresses: addresses.told().iter().map(|it| it.to_canonical().to_string()).collect(),
            as_client: traffic(from_it),
            as_server: traffic(to_it),
        });
    }
    nodes
}

/// The edges of an end, which are the next ones.
fn next_of<'e, E>(end: usize, edges: &mut &'e [(usize, E)]) -> &'e [(usize, E)] {
    let others = edges.iter().position(|(other, _)| *other != end).unwrap_or(edges.len());
    let (of_end, rest) = edges.split_at(others);
    *edges = rest;
    of_end
}

fn traffic(edges: &[(usize, &EdgeSums<'_>)]) -> Traffic {
    let mut sums = Sums::default();
    edges.iter().for_each(|(_, edge)| sums.merge(&edge.sums));
    sums.traffic()
}

#[cfg(test)]
pub(crate) mod tests;
