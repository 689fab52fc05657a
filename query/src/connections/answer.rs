//! The answer: what `/api/v1/connections` says, as types that write its JSON and read it back.
//!
//! Instants end in `_us`: microseconds since the epoch, as the kernel dated the packets. `sent` is client to
//! server, `received` server to client.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::comparison::{Comparison, Disagreement};
use crate::answer::{Closed, Counters, Coverage, Window};

/// A page of the connections of a window.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Connections {
    /// The window that was computed, from raw rows alone: nothing else knows connections.
    pub window: Window,
    /// Raw rows are kept from here on (milliseconds since the epoch; the window's end, if none of it are), if
    /// that is later than the window asked for begins: what was before is in the graph, but its connections
    /// are not known any more.
    pub retained_from: Option<i64>,
    /// What the agents saw of the window.
    pub coverage: Coverage,
    /// In the order asked for.
    pub connections: Vec<Connection>,
    /// The `cursor` of the next page; null on the last.
    pub next: Option<String>,
}

/// One TCP connection; or, where records were folded while Kafka was away, those of a client with a
/// server.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Connection {
    /// Both initial sequence numbers in hexadecimal, the client's first (8 digits each); see `id_kind`.
    pub id: String,
    /// `complete`; `partial` while the server's number is not known (0); `tuple_hash` where no handshake
    /// was seen.
    pub id_kind: String,
    /// `flow`; `summary` or `minute_summary` of what was folded: several connections in one.
    pub detail: String,
    /// How it stood at the window's end (at `complete_until`, when that is earlier).
    pub state: State,
    /// How it ended last: a field of `closed`; null if it did not in the window.
    pub close_reason: Option<String>,
    /// Its first packet, whether that is in the window or before; null where no row tells.
    pub started_us: Option<i64>,
    /// What `started_us` is of.
    pub start: Start,
    /// First packet in the window; null without one.
    pub first_seen_us: Option<i64>,
    /// Last packet in the window; null without one.
    pub last_seen_us: Option<i64>,
    /// From `started_us` to `last_seen_us`, milliseconds.
    pub duration_ms: Option<f64>,
    /// The SYN or the SYN-ACK was seen.
    pub handshake_seen: bool,
    /// Which end is the client was guessed from ports.
    pub direction_inferred: bool,
    /// The end that sent the SYN.
    pub client: End,
    /// The other end.
    pub server: End,
    /// Service that the client called, as `namespace/name`.
    pub service: Option<String>,
    /// SYNs of it in the window: 1, or 0 if it began before (a summary: of all in it).
    pub opened: u64,
    /// How often an agent first met it in the window without its SYN.
    pub joined: u64,
    /// Its ends in the window.
    pub closed: Closed,
    /// Client to server, in the window: what the edge counts.
    pub sent: Counters,
    /// Server to client, in the window: what the edge counts.
    pub received: Counters,
    /// Times of its beginning, if that is in the window.
    pub latency: Latencies,
    /// The sides compared.
    pub comparison: Comparison,
    /// What does not agree between its observations.
    pub disagreements: Vec<Disagreement>,
    /// Every place that it was seen at, the counted one first.
    pub observations: Vec<Observation>,
    /// There are more observations than listed.
    pub more_observations: bool,
}

/// How a connection stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Open.
    Open,
    /// A SYN that nobody has answered yet.
    HalfOpen,
    /// Ended, in the window or (`close_reason` null) before its rows in the window.
    Closed,
    /// Its rows end before the window does, without a close: its agent stopped, dropped packets, or is late.
    Silent,
    /// Several connections folded into one summary: each may stand differently.
    Folded,
}

/// What the first instant of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// Its SYN, in the window.
    Opened,
    /// The first packet that the agent met, in the window: it is older.
    Joined,
    /// Before the window.
    Before,
}

/// One end of a connection: what it was named, and what it was seen as.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct End {
    /// `pod`, `service`, `node`, `external` or `unknown`.
    pub kind: String,
    /// Kubernetes namespace; empty for what has none.
    pub namespace: String,
    /// Name; empty for what has none.
    pub name: String,
    /// Top owner; empty for what has none.
    pub workload: String,
    /// Deployment, StatefulSet, DaemonSet, …; empty without a workload.
    pub workload_kind: String,
    /// Cluster node that it ran on; empty if it ran on none.
    pub node: String,
    /// The watch of Kubernetes had a gap then: the name may be a predecessor's.
    pub uncertain: bool,
    /// Address as the counted observation saw it.
    pub address: String,
    /// Port as the counted observation saw it; 0 where a summary folded them.
    pub port: u16,
    /// The end itself behind NAT, as far as an observation shows it.
    pub real_address: String,
    /// Its port.
    pub real_port: u16,
    /// Who held the addresses it was seen as, at the time of the connection; at most 16 each.
    pub held_by: Vec<Ownership>,
}

/// An interval in which an object held an address, or a port of one.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Ownership {
    /// The address; `::` for a port of every node (NodePort).
    pub address: String,
    /// The port; 0 for the whole address.
    pub port: u16,
    /// Of the Kubernetes object.
    pub uid: String,
    /// `pod`, `service` or `node`.
    pub kind: String,
    /// Namespace of the object; empty for a node.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// When it began to hold the address.
    pub start_us: i64,
    /// When it gave it up; null while it holds it.
    pub end_us: Option<i64>,
    /// From here on, until `end_us`, nobody watched: it may have been another's.
    pub certain_until_us: i64,
    /// The connection has this object's name at this end, or called it as a Service.
    pub named: bool,
}

/// Once-only measures in milliseconds; null if not in the window. Of a summary, means.
#[derive(Clone, Copy, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Latencies {
    /// SYN to SYN-ACK.
    pub syn_to_synack_ms: Option<f64>,
    /// SYN-ACK to the client's first ACK.
    pub synack_to_ack_ms: Option<f64>,
    /// The client's first payload to the server's first payload.
    pub first_response_ms: Option<f64>,
}

/// A connection as one observation point saw it in the window.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Observation {
    /// Node of the observation point.
    pub node: String,
    /// Agent that observed.
    pub agent: String,
    /// Interface.
    pub interface: String,
    /// `pod`, `uplink` or `other`.
    pub interface_kind: String,
    /// Side of the connection that the interface leads to: `client`, `server` or `transit`.
    pub reporter: String,
    /// It is the one that is counted in edges.
    pub primary: bool,
    /// It is the one that its agent counts.
    pub local_primary: bool,
    /// It is of this connection for certain: the same ends, or the same complete id. Else the
    /// client's initial sequence number and the time are all that tell.
    pub certain: bool,
    /// Connection id at this point.
    pub id: String,
    /// What that is made of.
    pub id_kind: String,
    /// Client's address here: after translation, on some points.
    pub client_address: String,
    /// Client's port here.
    pub client_port: u16,
    /// Server's address here: a Service's before translation, the pod's after.
    pub server_address: String,
    /// Server's port here.
    pub server_port: u16,
    /// The client as the latest row here names it: `namespace/name`, or the address.
    pub client_name: String,
    /// The server as the latest row here names it.
    pub server_name: String,
    /// The Service as the latest row here names it; empty for none.
    pub service_name: String,
    /// Rows of it in the window.
    pub rows: u64,
    /// First packet here; null without one.
    pub first_seen_us: Option<i64>,
    /// Last packet here; null without one.
    pub last_seen_us: Option<i64>,
    /// The SYN or the SYN-ACK was seen here.
    pub handshake_seen: bool,
    /// Only one direction passes here.
    pub one_sided: bool,
    /// Which end is the client was guessed from ports.
    pub direction_inferred: bool,
    /// SYNs seen here.
    pub opened: u64,
    /// How often it was first met here without its SYN.
    pub joined: u64,
    /// Its ends as seen here.
    pub closed: Closed,
    /// Client to server.
    pub sent: Counters,
    /// Server to client.
    pub received: Counters,
    /// Times as seen here.
    pub latency: Latencies,
}
