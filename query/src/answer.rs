//! The answer: what `/api/v1/graph` says, as types that write its JSON and read it back.

mod text;

use std::ops::AddAssign;
use std::sync::Arc;

pub use flowtrail_schema::Counters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who talked to whom in a window.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Graph {
    /// The window that was computed.
    pub window: Window,
    /// What the agents saw of it: tells "no traffic" from "we were blind".
    pub coverage: Coverage,
    /// Every end of an edge, ordered by id.
    pub nodes: Vec<Node>,
    /// Ordered by the request's stat, largest first; the folded rest last.
    pub edges: Vec<Edge>,
}

/// The computed window `[from, to)`: the requested one, widened to interval boundaries. All times
/// are milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Window {
    /// First instant computed.
    pub from: i64,
    /// First instant after.
    pub to: i64,
    /// `from` as asked for.
    pub requested_from: i64,
    /// `to` as asked for.
    pub requested_to: i64,
    /// Seconds that each bound was widened by, at most (and less than that): an interval, or what rows are of
    /// where finer ones are past their retention.
    pub resolution_s: u32,
    /// Every live agent has reported until here; from here to `to` more may still arrive. It is
    /// `from` when no agent has reported.
    pub complete_until: i64,
}

/// The agents' own reports on the window.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Coverage {
    /// Agents that reported at least once.
    pub agents: u64,
    /// Reports there would be had each of them reported on each interval until now.
    pub intervals_expected: u64,
    /// Reports there are, one per agent and interval.
    pub intervals_reported: u64,
    /// `intervals_reported` of `intervals_expected`, 0 to 1; 0 when none is expected: nobody looked.
    pub share: f64,
    /// Packets that kernels dropped before the agents saw them.
    pub packets_dropped: u64,
    /// Records that agents gave up because every queue towards Kafka was full.
    pub records_dropped: u64,
    /// When agents saw nothing, or not all: the 100 longest times, earliest first.
    pub blind_spots: Vec<BlindSpot>,
    /// There are more blind spots than listed.
    pub more_blind_spots: bool,
}

/// A time of which an agent does not know all, `[from, to)`, milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct BlindSpot {
    /// The agent's node.
    pub node: String,
    /// The agent.
    pub agent: String,
    /// First instant.
    pub from: i64,
    /// First instant after.
    pub to: i64,
    /// What is missing.
    pub reason: BlindReason,
    /// Packets that the kernel dropped in it.
    pub packets_dropped: u64,
    /// Records that the agent gave up in it.
    pub records_dropped: u64,
}

/// Why an agent does not know all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlindReason {
    /// It did not report: nobody looked.
    NotReported,
    /// Something was dropped; in whole hours of long windows it is not told when in the hour.
    Dropped,
}

/// One end of edges: a workload, pod, Service, …, by the request's `group_by`.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Node {
    /// Unique, and the same in every window: `kind:namespace/name`.
    pub id: Arc<str>,
    /// `namespace`, `workload`, `pod`, `service`, `node`, `ip`, `external`, `unknown` or `other`.
    pub kind: String,
    /// Kubernetes namespace; empty for what has none.
    pub namespace: String,
    /// Name; the address for what has none.
    pub name: String,
    /// Top owner, for what has one; empty otherwise.
    pub workload: String,
    /// Deployment, StatefulSet, DaemonSet, …; empty without a workload.
    pub workload_kind: String,
    /// Addresses seen at the edges' ends, at most 64, lowest first; none of a workload, whose pods come and go.
    pub addresses: Vec<String>,
    /// There are more addresses than listed.
    pub more_addresses: bool,
    /// Sum over the edges that it is the source of.
    pub as_client: Traffic,
    /// Sum over the edges that it is the target of.
    pub as_server: Traffic,
}

/// All connections of one client with one server.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Edge {
    /// Unique, and the same in every window: `source>target`.
    pub id: String,
    /// Node id of the client.
    pub source: Arc<str>,
    /// Node id of the server.
    pub target: Arc<str>,
    /// Server ports as the clients used them, at most 64, lowest first.
    pub server_ports: Vec<u16>,
    /// Services through which the clients went, as `namespace/name`, at most 64.
    pub services: Vec<String>,
    /// There are more server ports or Services than listed.
    pub more: bool,
    /// First packet, milliseconds since the epoch; `from` when the connections were only open.
    pub first_seen: i64,
    /// Last packet, milliseconds since the epoch.
    pub last_seen: i64,
    /// The sums.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// Sums over connections. `sent` is client to server, `received` server to client.
#[derive(Clone, Copy, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Traffic {
    /// Connections alive in the window: open at its start, or opened or joined in it.
    pub connections: u64,
    /// Connections whose SYN is in the window.
    pub opened: u64,
    /// Connections first seen in the window without their SYN.
    pub joined: u64,
    /// Connections open at the window's end, or at `complete_until` when that is earlier; where only rollups are left, at
    /// the start of their last row that began by then.
    pub open: u64,
    /// Connections that ended, by reason.
    pub closed: Closed,
    /// Attempts that never became a connection: refused and unanswered.
    pub failed: u64,
    /// Client to server.
    pub sent: Counters,
    /// Server to client.
    pub received: Counters,
    /// Retransmitted packets, both directions.
    pub retransmits: u64,
    /// Lifetimes of the connections that ended in the window.
    pub duration: Duration,
    /// SYN to SYN-ACK: the time to connect, as the counted observation saw it.
    pub latency: Latency,
    /// The client's first payload to the server's first payload.
    pub first_response: Latency,
    /// Share (0 to 1) of the connections whose direction was guessed from ports.
    pub direction_inferred: f64,
}

/// Closes by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Closed {
    /// Both FINs acknowledged.
    pub fin: u64,
    /// RST sent by the client.
    pub reset_by_client: u64,
    /// RST sent by the server.
    pub reset_by_server: u64,
    /// SYN answered by RST.
    pub refused: u64,
    /// No answer to the SYN.
    pub unanswered: u64,
    /// No packet for the idle timeout.
    pub idle: u64,
    /// A new connection took the tuple.
    pub superseded: u64,
    /// The agent's flow table was full.
    pub evicted: u64,
}

impl AddAssign for Closed {
    fn add_assign(&mut self, other: Self) {
        self.fin += other.fin;
        self.reset_by_client += other.reset_by_client;
        self.reset_by_server += other.reset_by_server;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.idle += other.idle;
        self.superseded += other.superseded;
        self.evicted += other.evicted;
    }
}

/// Lifetimes in milliseconds; null when no connection ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Duration {
    /// Connections that ended with a known lifetime.
    pub count: u64,
    /// Mean.
    pub avg_ms: Option<f64>,
    /// Longest.
    pub max_ms: Option<f64>,
}

/// Times in milliseconds; null without a sample. Quantiles are exact to 5 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Latency {
    /// Samples.
    pub count: u64,
    /// Mean.
    pub avg_ms: Option<f64>,
    /// Median.
    pub p50_ms: Option<f64>,
    /// 95th percentile.
    pub p95_ms: Option<f64>,
    /// Longest.
    pub max_ms: Option<f64>,
}

/// What a stat comes to: exact of what is counted.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StatValue {
    /// Connections, bytes, packets, retransmits, failures.
    Count(u64),
    /// Milliseconds: the mean duration, the 95th percentile of latencies.
    Milliseconds(f64),
}

impl StatValue {
    /// For comparing and drawing.
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Count(count) => count as f64,
            Self::Milliseconds(ms) => ms,
        }
    }
}
