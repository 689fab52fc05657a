//! The graph as bare arrays of nodes and edges, for Grafana's Infinity data source and its node graph
//! panel: texts for people in the stats, exact numbers in the details.
//!
//! Every item has every field, so that a dashboard can declare its columns once for all stats. A ring
//! shows either how connections fared (`open`, `ended`, `failed`) or which way things went (`sent`,
//! `received`); its parts sum to 1, and those of the other kind are 0.

use std::collections::HashMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::answer::{Edge, Graph, Node, StatValue, Traffic};
use crate::graph::label;
use crate::nodegraph::{Amounts, Totals, duration, ports, scaled, share, subtitle};
use crate::params::Stat;

/// An edge with refused or unanswered connections: Grafana's "semi-dark-red".
const RED: &str = "#E02F44";
/// Any other edge.
const GREY: &str = "#8E8E8E";
/// Pixels of the thinnest edge and of the thickest, which is the largest by the request's stat.
const THICKNESS: (f64, f64) = (1.0, 8.0);

/// A node of the panel.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct PanelNode {
    /// Unique, and the same in every window.
    id: Arc<str>,
    /// Name.
    title: String,
    /// Namespace, or address.
    subtitle: String,
    /// What `stat` is about, for people.
    mainstat: String,
    /// What goes with it, for people.
    secondarystat: String,
    #[serde(flatten)]
    arcs: Arcs,
    /// As in the graph.
    #[serde(rename = "detail__kind")]
    kind: String,
    /// As in the graph.
    #[serde(rename = "detail__namespace")]
    namespace: String,
    #[serde(flatten)]
    details: Details,
}

/// An edge of the panel.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct PanelEdge {
    /// Unique, and the same in every window.
    id: String,
    /// Node id of the client.
    source: Arc<str>,
    /// Node id of the server.
    target: Arc<str>,
    /// What `stat` is about, for people.
    mainstat: String,
    /// What goes with it, for people.
    secondarystat: String,
    /// Pixels: by share of the largest edge.
    thickness: f64,
    /// Red where connections failed.
    color: &'static str,
    /// The client's name, with its namespace.
    #[serde(rename = "detail__client")]
    client: String,
    /// The server's name, with its namespace.
    #[serde(rename = "detail__server")]
    server: String,
    /// Server ports, separated by commas.
    #[serde(rename = "detail__ports")]
    ports: String,
    /// Services, separated by commas.
    #[serde(rename = "detail__services")]
    services: String,
    #[serde(flatten)]
    details: Details,
    /// Attempts that were refused.
    #[serde(rename = "detail__refused")]
    refused: u64,
    /// Attempts that nobody answered.
    #[serde(rename = "detail__unanswered")]
    unanswered: u64,
    /// Connections that either end reset.
    #[serde(rename = "detail__reset")]
    reset: u64,
    /// Last packet, milliseconds since the epoch.
    #[serde(rename = "detail__last_seen")]
    last_seen: i64,
    /// Time to connect, 95th percentile.
    #[serde(rename = "detail__latency_p95_ms")]
    latency_p95_ms: Option<f64>,
}

/// Parts of a node's ring: see the module.
#[derive(Clone, Copy, Debug, Default, JsonSchema, Serialize)]
struct Arcs {
    /// Share of connections that are open.
    #[serde(rename = "arc__open")]
    open: f64,
    /// Share that ended.
    #[serde(rename = "arc__ended")]
    ended: f64,
    /// Share that failed.
    #[serde(rename = "arc__failed")]
    failed: f64,
    /// Share of bytes that it sent.
    #[serde(rename = "arc__sent")]
    sent: f64,
    /// Share of bytes that it received.
    #[serde(rename = "arc__received")]
    received: f64,
}

/// The numbers, as they are. A node sent what it sent in either role, an edge what its client sent.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize)]
struct Details {
    /// Connections.
    #[serde(rename = "detail__connections")]
    connections: u64,
    /// Of these open at the end.
    #[serde(rename = "detail__open")]
    open: u64,
    /// Refused and unanswered.
    #[serde(rename = "detail__failed")]
    failed: u64,
    /// Bytes sent.
    #[serde(rename = "detail__sent_bytes")]
    sent_bytes: u64,
    /// Bytes received.
    #[serde(rename = "detail__received_bytes")]
    received_bytes: u64,
    /// Packets sent.
    #[serde(rename = "detail__sent_packets")]
    sent_packets: u64,
    /// Packets received.
    #[serde(rename = "detail__received_packets")]
    received_packets: u64,
    /// Retransmitted packets, both directions.
    #[serde(rename = "detail__retransmits")]
    retransmits: u64,
    /// Mean lifetime of the connections that ended.
    #[serde(rename = "detail__duration_avg_ms")]
    duration_avg_ms: Option<f64>,
    /// The longest.
    #[serde(rename = "detail__duration_max_ms")]
    duration_max_ms: Option<f64>,
}

/// The nodes of a graph, with what `stat` is about in front.
pub(crate) fn nodes(graph: &Graph, stat: Stat) -> Vec<PanelNode> {
    let seconds = seconds(graph);
    let totals = Totals::of(graph);
    let node = |node: &Node| {
        let totals = totals.get(&*node.id).cloned().unwrap_or_default();
        let details = Details::of_node(&totals);
        let (mainstat, secondarystat) = match stat {
            Stat::Latency => (
                format!("serves p95 {}", time(node.as_server.latency.p95_ms)),
                format!("calls p95 {}", time(node.as_client.latency.p95_ms)),
            ),
            _ => details.stats(stat, seconds),
        };
        PanelNode {
            id: node.id.clone(),
            title: node.name.clone(),
            subtitle: subtitle(node),
            mainstat,
            secondarystat,
            arcs: Arcs::of(&totals, stat),
            kind: node.kind.clone(),
            namespace: node.namespace.clone(),
            details,
        }
    };
    graph.nodes.iter().map(node).collect()
}

/// The edges of a graph, with what `stat` is about in front.
pub(crate) fn edges(graph: &Graph, stat: Stat) -> Vec<PanelEdge> {
    let seconds = seconds(graph);
    let value = |edge: &Edge| stat.of(&edge.traffic).map_or(0.0, StatValue::as_f64);
    let largest = graph.edges.iter().map(value).fold(0.0, f64::max);
    let (thin, thick) = THICKNESS;
    let names: HashMap<&str, String> = graph
        .nodes
        .iter()
        .map(|node| (&*node.id, label(&node.kind, &node.namespace, &node.name)))
        .collect();
    let name = |id: &str| names.get(id).cloned().unwrap_or_default();
    let edge = |edge: &Edge| {
        let details = Details::of_edge(&edge.traffic);
        let (latency, closed) = (&edge.traffic.latency, &edge.traffic.closed);
        let (mainstat, secondarystat) = match stat {
            Stat::Latency => {
                (format!("p95 {}", time(latency.p95_ms)), format!("avg {}", time(latency.avg_ms)))
            }
            _ => details.stats(stat, seconds),
        };
        PanelEdge {
            id: edge.id.clone(),
            source: edge.source.clone(),
            target: edge.target.clone(),
            mainstat,
            secondarystat,
            thickness: thin + (thick - thin) * share(value(edge), largest),
            color: if edge.traffic.failed > 0 { RED } else { GREY },
            client: name(&edge.source),
            server: name(&edge.target),
            ports: ports(edge),
            services: edge.services.join(", "),
            details,
            refused: closed.refused,
            unanswered: closed.unanswered,
            reset: closed.reset_by_client + closed.reset_by_server,
            last_seen: edge.last_seen,
            latency_p95_ms: latency.p95_ms,
        }
    };
    graph.edges.iter().map(edge).collect()
}

fn seconds(graph: &Graph) -> f64 {
    ((graph.window.to - graph.window.from) as f64 / 1_000.0).max(1.0)
}

impl Arcs {
    fn of(totals: &Totals, stat: Stat) -> Self {
        let amount: Option<fn(&Amounts) -> u64> = match stat {
            Stat::Bytes => Some(|amounts| amounts.bytes),
            Stat::Packets => Some(|amounts| amounts.packets),
            Stat::Retransmits => Some(|amounts| amounts.retransmits),
            Stat::Connections | Stat::Failures | Stat::Duration | Stat::Latency => None,
        };
        let ways = amount.map(|amount| (amount(&totals.sent), amount(&totals.received)));
        if let Some((sent, received)) = ways.filter(|(sent, received)| sent + received > 0) {
            let sent = share(sent as f64, (sent + received) as f64);
            return Self { sent, received: 1.0 - sent, ..Self::default() };
        }
        // An attempt may have begun before the window and failed in it, and is then none of its connections.
        let all = totals.connections.max(totals.open + totals.failed) as f64;
        let (open, failed) = (share(totals.open as f64, all), share(totals.failed as f64, all));
        Self { open, failed, ended: (1.0 - open - failed).max(0.0), ..Self::default() }
    }
}

impl Details {
    fn of_node(totals: &Totals) -> Self {
        let (sent, received) = (totals.sent, totals.received);
        Self {
            connections: totals.connections,
            open: totals.open,
            failed: totals.failed,
            sent_bytes: sent.bytes,
            received_bytes: received.bytes,
            sent_packets: sent.packets,
            received_packets: received.packets,
            retransmits: sent.retransmits + received.retransmits,
            duration_avg_ms: totals.avg_duration_ms(),
            duration_max_ms: totals.max_duration_ms(),
        }
    }

    fn of_edge(traffic: &Traffic) -> Self {
        Self {
            connections: traffic.connections,
            open: traffic.open,
            failed: traffic.failed,
            sent_bytes: traffic.sent.bytes,
            received_bytes: traffic.received.bytes,
            sent_packets: traffic.sent.packets,
            received_packets: traffic.received.packets,
            retransmits: traffic.retransmits,
            duration_avg_ms: traffic.duration.avg_ms,
            duration_max_ms: traffic.duration.max_ms,
        }
    }

    /// The two texts. Latencies are told from other numbers.
    fn stats(&self, stat: Stat, seconds: f64) -> (String, String) {
        let packets = self.sent_packets + self.received_packets;
        match stat {
            Stat::Connections | Stat::Latency => {
                (format!("{} connections", self.connections), format!("{} open", self.open))
            }
            Stat::Bytes => (
                format!("sent {}", bytes_per_second(self.sent_bytes, seconds)),
                format!("received {}", bytes_per_second(self.received_bytes, seconds)),
            ),
            Stat::Packets => (
                format!("sent {:.2} packets/s", self.sent_packets as f64 / seconds),
                format!("received {:.2} packets/s", self.received_packets as f64 / seconds),
            ),
            Stat::Duration => (
                format!("avg {}", time(self.duration_avg_ms)),
                format!("max {}", time(self.duration_max_ms)),
            ),
            Stat::Retransmits => {
                let percent = 100.0 * share(self.retransmits as f64, packets as f64);
                (
                    format!("{} retransmitted", self.retransmits),
                    format!("{percent:.2} % of packets"),
                )
            }
            Stat::Failures => {
                (format!("{} failed", self.failed), format!("{} connections", self.connections))
            }
        }
    }
}

fn bytes_per_second(bytes: u64, seconds: f64) -> String {
    const UNITS: &[&str] = &["B/s", "KiB/s", "MiB/s", "GiB/s", "TiB/s", "PiB/s", "EiB/s"];
    let (value, unit) = scaled(bytes as f64 / seconds, UNITS);
    format!("{value:.2} {unit}")
}

fn time(ms: Option<f64>) -> String {
    ms.map_or_else(|| "–".to_owned(), duration)
}

#[cfg(test)]
mod tests;
