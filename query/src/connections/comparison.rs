//! The answer's part on what the sides of a connection disagree in, and why they cannot be compared.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The client's side and the server's held against each other.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Comparison {
    /// Index in `observations` of the client's side; null if nobody looked from there.
    pub client_side: Option<usize>,
    /// Index in `observations` of the server's side; null if nobody looked from there.
    pub server_side: Option<usize>,
    /// Why the two cannot be compared; empty if they can.
    pub not_comparable: Vec<Obstacle>,
    /// Client to server; null if not comparable.
    pub sent: Option<Difference>,
    /// Server to client; null if not comparable.
    pub received: Option<Difference>,
}

/// Why two sides cannot be compared. A difference would be a number, but not of what was lost.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Obstacle {
    /// Nobody looked from this side.
    NoObservation {
        /// The side.
        side: Side,
    },
    /// Which connection did what was folded away.
    Summary,
    /// The other observation is of the same client number at the same time, but perhaps of another connection.
    Uncertain,
    /// Only one direction passes there.
    OneSided {
        /// The side.
        side: Side,
    },
    /// That side met the connection in the window without its SYN, so packets of before may be missing.
    Joined {
        /// The side.
        side: Side,
    },
    /// That side's flow table was full.
    Evicted {
        /// The side.
        side: Side,
    },
    /// That side's rows end although the connection was open.
    RowsMissing {
        /// The side.
        side: Side,
    },
    /// The window begins among its packets: those under way then are in it on one side only.
    CutAtStart,
    /// The window ends among its packets.
    CutAtEnd,
    /// That side's agent did not see all.
    Gap {
        /// The side.
        side: Side,
        /// The agent.
        agent: String,
        /// Why.
        gap: GapKind,
        /// Start, seconds since the epoch.
        from_s: u32,
        /// End, seconds since the epoch.
        to_s: u32,
    },
}

/// Why an agent did not see all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapKind {
    /// No report: it was not there, or the report is not here yet.
    NoReport,
    /// Its kernel dropped packets.
    PacketsDropped,
    /// It gave up records.
    RecordsDropped,
    /// It folded some connections' records into summaries, perhaps this one's.
    Folded,
}

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The client's.
    Client,
    /// The server's.
    Server,
}

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Client to server.
    Sent,
    /// Server to client.
    Received,
}

/// What the sender's side saw of a direction, less what the receiver's side saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Difference {
    /// Packets.
    pub packets: i64,
    /// IP packet lengths.
    pub bytes: i64,
    /// TCP payload: the same however packets are split and merged on the way.
    pub payload_bytes: i64,
    /// What that means.
    pub verdict: Verdict,
}

/// What a difference between two sides means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// None at all.
    Same,
    /// Lost on the way: payload, or packets of a direction without payload (which nothing merges).
    Lost,
    /// Less packets arrived, with all payload: merged on the way (receive offload), or packets without
    /// payload were lost. These cannot be told apart.
    FewerPackets,
    /// More packets arrived, with the same payload: split on the way (segmentation offload), or repeated.
    MorePackets,
    /// More arrived than was sent: the sender's side did not see all, or the network repeated packets.
    Unseen,
    /// The same packets and payload in other lengths: headers were changed on the way.
    Headers,
}

/// Something that observations of one connection do not agree in.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Disagreement {
    /// The sender's side saw more than the receiver's. A retransmission that arrived makes no difference.
    Lost {
        /// Which way.
        direction: Direction,
        /// Packets that did not arrive.
        packets: i64,
        /// IP packet lengths that did not arrive.
        bytes: i64,
        /// Payload that did not arrive.
        payload_bytes: i64,
    },
    /// The receiver's side saw more than the sender's.
    Unseen {
        /// Which way.
        direction: Direction,
        /// Packets more.
        packets: i64,
        /// Payload more.
        payload_bytes: i64,
    },
    /// Packets sent again, seen in other numbers: a repetition is one where the first was seen, or where it
    /// filled a hole too late to have been reordered.
    Retransmissions {
        /// Which way.
        direction: Direction,
        /// Seen on the client's side.
        client_side: u64,
        /// Seen on the server's side.
        server_side: u64,
    },
    /// This side saw packets but no answer to them, the other did.
    NoAnswer {
        /// The side.
        side: Side,
    },
    /// The agent on this end's node reported all the time, and has not seen the connection: its packets did
    /// not come there, or pass no interface that is watched.
    Missing {
        /// The side.
        side: Side,
        /// Its node.
        node: String,
    },
    /// An end has other names on other observations.
    Names {
        /// The end.
        end: Side,
        /// The names.
        names: Vec<String>,
    },
    /// It was called through other Services on other observations (those that name one).
    Services {
        /// The Services.
        services: Vec<String>,
    },
    /// The sides saw other ends of it.
    CloseReason {
        /// Seen on the client's side.
        client_side: String,
        /// Seen on the server's side.
        server_side: String,
    },
}
