//! The graph for the Node Graph API data source, in the words and colours of k8spacket, so that its
//! dashboards work here.
//!
//! A persistent connection is one still open when the window ends. A node's numbers are those of all
//! its connections, as client and as server.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::answer::{Edge, Graph, Node};
use crate::params::StatsType;

mod totals;

pub(crate) use totals::{Amounts, Totals};

/// What the data source asks first: the fields that [`Data`] has.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Fields {
    /// Fields of nodes.
    nodes_fields: Vec<Field>,
    /// Fields of edges.
    edges_fields: Vec<Field>,
}

#[derive(Debug, JsonSchema, Serialize)]
struct Field {
    /// Name in the data.
    field_name: &'static str,
    /// `string` or `number`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What it is called, if not by its name.
    #[serde(rename = "displayName", skip_serializing_if = "Option::is_none")]
    display_name: Option<&'static str>,
    /// Colour of an arc.
    #[serde(skip_serializing_if = "Option::is_none")]
    color: Option<&'static str>,
}

/// Nodes and edges, keyed by field name.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct Data {
    /// Every end of an edge.
    nodes: Vec<NodeFields>,
    /// Client to server.
    edges: Vec<EdgeFields>,
}

#[derive(Debug, JsonSchema, Serialize)]
struct NodeFields {
    /// Unique, and the same in every window.
    id: Arc<str>,
    /// Name.
    title: String,
    /// Namespace or address.
    #[serde(rename = "subTitle")]
    subtitle: String,
    #[serde(flatten)]
    stats: Stats,
    /// Share of what its field is called; sums to 1 with the second.
    #[serde(rename = "arc__1")]
    first_arc: f64,
    /// The rest.
    #[serde(rename = "arc__2")]
    second_arc: f64,
    /// What it is.
    #[serde(rename = "detail__kind")]
    kind: String,
    /// Kubernetes namespace.
    #[serde(rename = "detail__namespace")]
    namespace: String,
}

#[derive(Debug, JsonSchema, Serialize)]
struct EdgeFields {
    /// Unique, and the same in every window.
    id: String,
    /// Id of the client.
    source: Arc<str>,
    /// Id of the server.
    target: Arc<str>,
    #[serde(flatten)]
    stats: Stats,
    /// Server ports.
    #[serde(rename = "detail__ports")]
    ports: String,
    /// Refused and unanswered connections.
    #[serde(rename = "detail__failed")]
    failed: u64,
    /// Retransmitted packets.
    #[serde(rename = "detail__retransmits")]
    retransmits: u64,
}

#[derive(Debug, JsonSchema, Serialize)]
struct Stats {
    /// For people.
    #[serde(rename = "mainStat")]
    main: String,
    /// For people.
    #[serde(rename = "secondaryStat")]
    secondary: String,
}

/// The fields, with what the stats and arcs mean.
pub(crate) fn fields(stats_type: StatsType) -> Fields {
    let (main, secondary, first, second) = match stats_type {
        StatsType::Connection => (
            "All connections",
            "Persistent connections",
            ("Persistent connections", "green"),
            ("Short-lived connections", "red"),
        ),
        StatsType::Bytes => (
            "Bytes received",
            "Bytes responded",
            ("Bytes received", "blue"),
            ("Bytes responded", "yellow"),
        ),
        StatsType::Duration => (
            "Average duration",
            "Max duration",
            ("Average duration", "purple"),
            ("Max duration", "white"),
        ),
    };
    let string =
        |field_name, display_name| Field { field_name, kind: "string", display_name, color: None };
    let number =
        |field_name, display_name, color| Field { field_name, kind: "number", display_name, color };
    Fields {
        nodes_fields: vec![
            string("id", None),
            string("title", None),
            string("subTitle", None),
            string("mainStat", Some(main)),
            string("secondaryStat", Some(secondary)),
            number("arc__1", Some(first.0), Some(first.1)),
            number("arc__2", Some(second.0), Some(second.1)),
            string("detail__kind", Some("Kind")),
            string("detail__namespace", Some("Namespace")),
        ],
        edges_fields: vec![
            string("id", None),
            string("source", None),
            string("target", None),
            string("mainStat", None),
            string("secondaryStat", None),
            string("detail__ports", Some("Server ports")),
            number("detail__failed", Some("Failed connections"), None),
            number("detail__retransmits", Some("Retransmitted packets"), None),
        ],
    }
}

/// The graph in those fields.
pub(crate) fn data(graph: &Graph, stats_type: StatsType) -> Data {
    let seconds = ((graph.window.to - graph.window.from) as f64 / 1_000.0).max(1.0);
    let totals = Totals::of(graph);
    let totals_of = |node: &Node| totals.get(&*node.id).cloned().unwrap_or_default();
    Data {
        nodes: graph
            .nodes
            .iter()
            .map(|node| node_fields(node, &totals_of(node), stats_type, seconds))
            .collect(),
        edges: graph.edges.iter().map(|edge| edge_fields(edge, stats_type, seconds)).collect(),
    }
}

fn node_fields(node: &Node, totals: &Totals, stats_type: StatsType, seconds: f64) -> NodeFields {
    let (stats, share) = match stats_type {
        StatsType::Connection => (
            connection_stats(totals.connections, totals.open),
            share(totals.open as f64, totals.connections as f64),
        ),
        StatsType::Bytes => (
            Stats {
                main: format!("recv: {}", rate(totals.received.bytes, seconds)),
                secondary: format!("resp: {}", rate(totals.sent.bytes, seconds)),
            },
            share(totals.received.bytes as f64, (totals.received.bytes + totals.sent.bytes) as f64),
        ),
        StatsType::Duration => {
            let (avg_ms, max_ms) = (totals.avg_duration_ms(), totals.max_duration_ms());
            let share = share(avg_ms.unwrap_or(0.0), max_ms.unwrap_or(0.0));
            (duration_stats(avg_ms, max_ms), share)
        }
    };
    NodeFields {
        id: node.id.clone(),
        title: node.name.clone(),
        subtitle: subtitle(node),
        stats,
        first_arc: share,
        second_arc: 1.0 - share,
        kind: node.kind.clone(),
        namespace: node.namespace.clone(),
    }
}

fn edge_fields(edge: &Edge, stats_type: StatsType, seconds: f64) -> EdgeFields {
    let traffic = &edge.traffic;
    let stats = match stats_type {
        StatsType::Connection => connection_stats(traffic.connections, traffic.open),
        StatsType::Bytes => Stats {
            main: format!("sent: {}", rate(traffic.sent.bytes, seconds)),
            secondary: format!("recv: {}", rate(traffic.received.bytes, seconds)),
        },
        StatsType::Duration => duration_stats(traffic.duration.avg_ms, traffic.duration.max_ms),
    };
    EdgeFields {
        id: edge.id.clone(),
        source: edge.source.clone(),
        target: edge.target.clone(),
        stats,
        ports: ports(edge),
        failed: traffic.failed,
        retransmits: traffic.retransmits,
    }
}

/// A node's address, or how many it has.
pub(crate) fn subtitle(node: &Node) -> String {
    match node.addresses.as_slice() {
        // Of a workload, whose pods come and go.
        [] => node.namespace.clone(),
        [address] => address.clone(),
        addresses if node.more_addresses => format!("over {} addresses", addresses.len()),
        addresses => format!("{} addresses", addresses.len()),
    }
}

/// An edge's server ports.
pub(crate) fn ports(edge: &Edge) -> String {
    let mut ports: Vec<_> = edge.server_ports.iter().map(ToString::to_string).collect();
    if edge.more {
        ports.push("…".to_owned());
    }
    ports.join(", ")
}

fn connection_stats(connections: u64, open: u64) -> Stats {
    Stats { main: format!("all: {connections}"), secondary: format!("persistent: {open}") }
}

fn duration_stats(avg_ms: Option<f64>, max_ms: Option<f64>) -> Stats {
    let text = |ms: Option<f64>| ms.map_or_else(|| "N/A".to_owned(), duration);
    Stats { main: format!("avg: {}", text(avg_ms)), secondary: format!("max: {}", text(max_ms)) }
}

/// A part of a whole, 0 to 1.
pub(crate) fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 }
}

/// Bytes per second in binary units: `1.50KB/s`.
fn rate(bytes: u64, seconds: f64) -> String {
    let (value, unit) = scaled(bytes as f64 / seconds, &["B", "KB", "MB", "GB", "TB", "PB", "EB"]);
    format!("{value:.2}{unit}/s")
}

/// A number in the largest of some units, each 1,024 of the one before, of which it is at least one.
pub(crate) fn scaled<'a>(mut value: f64, units: &[&'a str]) -> (f64, &'a str) {
    let mut units = units.iter().copied();
    let mut unit = units.next().unwrap_or_default();
    while value >= 1_024.0
        && let Some(larger) = units.next()
    {
        value /= 1_024.0;
        unit = larger;
    }
    (value, unit)
}

/// Three digits below a minute, whole seconds above: `12ms`, `1.234s`, `2m 5s`.
pub(crate) fn duration(ms: f64) -> String {
    if ms < 1.0 {
        "<0.001s".to_owned()
    } else if ms < 1_000.0 {
        format!("{ms:.0}ms")
    } else if ms < 60_000.0 {
        format!("{:.3}s", ms / 1_000.0)
    } else {
        humantime::format_duration(Duration::from_secs((ms / 1_000.0) as u64)).to_string()
    }
}

#[cfg(test)]
mod tests;
