//! What a node did in all its edges, as client and as server.

use std::collections::HashMap;

use crate::answer::{Counters, Edge, Graph};

/// Sums over the edges that a node is an end of. What it talks with itself counts once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) connections: u64,
    /// Open at the window's end.
    pub(crate) open: u64,
    /// Refused and unanswered.
    pub(crate) failed: u64,
    /// By the node, in either role.
    pub(crate) sent: Amounts,
    /// By the node, in either role.
    pub(crate) received: Amounts,
    closed: u64,
    duration_ms: f64,
    max_duration_ms: f64,
}

/// What went one way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Amounts {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) retransmits: u64,
}

impl Totals {
    /// The totals of a graph's nodes, by id.
    pub(crate) fn of(graph: &Graph) -> HashMap<&str, Self> {
        let mut totals: HashMap<&str, Self> = HashMap::new();
        for edge in &graph.edges {
            totals.entry(&edge.source).or_default().add(edge, &edge.source);
            // What talks to itself has each connection once.
            if edge.source != edge.target {
                totals.entry(&edge.target).or_default().add(edge, &edge.target);
            }
        }
        totals
    }

    /// Adds an edge that `node` is an end of.
    fn add(&mut self, edge: &Edge, node: &str) {
        let traffic = &edge.traffic;
        self.connections += traffic.connections;
        self.open += traffic.open;
        self.failed += traffic.failed;
        if &*edge.source == node {
            self.sent.add(&traffic.sent);
            self.received.add(&traffic.received);
        }
        if &*edge.target == node {
            self.sent.add(&traffic.received);
            self.received.add(&traffic.sent);
        }
        if let (Some(avg_ms), Some(max_ms)) = (traffic.duration.avg_ms, traffic.duration.max_ms) {
            let closed = traffic.duration.count;
            self.closed += closed;
            self.duration_ms += avg_ms * closed as f64;
            self.max_duration_ms = self.max_duration_ms.max(max_ms);
        }
    }

    /// The mean lifetime of the connections that ended.
    pub(crate) fn avg_duration_ms(&self) -> Option<f64> {
        (self.closed > 0).then(|| self.duration_ms / self.closed as f64)
    }

    /// The longest lifetime of a connection that ended.
    pub(crate) fn max_duration_ms(&self) -> Option<f64> {
        (self.closed > 0).then_some(self.max_duration_ms)
    }
}

impl Amounts {
    fn add(&mut self, counters: &Counters) {
        self.bytes += counters.bytes;
        self.packets += counters.packets;
        self.retransmits += counters.retransmitted_packets;
    }
}
