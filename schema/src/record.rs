//! `FlowRecord`: what one flow did in one interval, as every process sees it.
//!
//! Serialised with serde it is the JSON of `flowtrail capture --output json`: the design's words as
//! field names, times in microseconds since the epoch, durations in microseconds.

use std::net::{IpAddr, SocketAddr};
use std::ops::AddAssign;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

use crate::interval::Interval;

/// The deltas of one flow in one interval. Several records of one flow and interval add up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlowRecord {
    /// The interval that all of the record's packets belong to.
    #[serde(flatten)]
    pub interval: Interval,
    /// The observation point.
    #[serde(flatten)]
    pub interface: Arc<Interface>,
    /// Which side of the connection the interface leads to.
    pub reporter: Reporter,
    /// The agent's choice among its own observations of the connection: at most one, for its life.
    pub local_primary: bool,

    /// `client_isn << 32 | server_isn`, or a hash of the tuple: see [`IdKind`].
    pub connection_id: u64,
    /// What `connection_id` is made of.
    pub id_kind: IdKind,
    /// The SYN or the SYN-ACK was seen, so the direction is known and not inferred.
    pub handshake_seen: bool,
    /// Only one direction passes this observation point.
    pub one_sided: bool,
    /// Which end is the client was guessed from ports, no handshake having been seen.
    pub direction_inferred: bool,
    /// How much was folded into this record.
    pub detail: Detail,

    /// The end that sent the SYN, as seen at this observation point.
    pub client: Endpoint,
    /// The other end, as seen at this observation point.
    pub server: Endpoint,

    /// Time of the first packet, microseconds since the epoch; the interval's start without packets.
    #[serde(rename = "first_seen")]
    pub first_seen_us: u64,
    /// Time of the last packet, microseconds since the epoch; the interval's start without packets.
    #[serde(rename = "last_seen")]
    pub last_seen_us: u64,
    /// Age of the connection at `last_seen_us` (a heartbeat: at the interval's end), microseconds.
    #[serde(rename = "age")]
    pub age_us: u64,

    /// Client to server.
    pub sent: Counters,
    /// Server to client.
    pub received: Counters,

    /// This record holds the connection's SYN; once per life.
    pub opened: u32,
    /// First record of a flow whose SYN was not seen; once per life.
    pub joined: u32,
    /// The connection was open when the interval began; once per interval.
    pub open_at_start: u32,
    /// How it ended; once per life.
    pub closed: Closed,

    /// SYN to SYN-ACK.
    #[serde(rename = "syn_to_synack", skip_serializing_if = "Measure::is_empty")]
    pub syn_to_synack: Measure,
    /// SYN-ACK to the client's first ACK.
    #[serde(skip_serializing_if = "Measure::is_empty")]
    pub synack_to_ack: Measure,
    /// The client's first payload to the server's first payload.
    #[serde(skip_serializing_if = "Measure::is_empty")]
    pub first_response: Measure,
    /// First to last packet, at close.
    #[serde(skip_serializing_if = "Measure::is_empty")]
    pub duration: Measure,
}

/// An observation point: one interface on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Interface {
    /// The kernel's name of it, or the file's name in `--read`.
    #[serde(rename = "interface")]
    pub name: String,
    /// What it leads to.
    #[serde(rename = "interface_kind")]
    pub kind: InterfaceKind,
}

/// One end of a connection. `port` is 0 where a summary folded the client ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Endpoint {
    /// Address as in the packets; IPv4 stays IPv4.
    pub ip: IpAddr,
    /// TCP port.
    pub port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip(), port: address.port() }
    }
}

/// The counters of one direction, in a record and, summed, in an answer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Counters {
    /// IP packet lengths: IP header included, link layer excluded (IPFIX octetDeltaCount, IE 1).
    pub bytes: u64,
    /// TCP payload.
    pub payload_bytes: u64,
    /// Packets, as the interface saw them (with segmentation offload one may stand for many).
    pub packets: u64,
    /// Packets whose sequence numbers had been sent before.
    pub retransmitted_packets: u64,
    /// Packets that announced a receive window of zero.
    pub zero_window_packets: u64,
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.payload_bytes += other.payload_bytes;
        self.packets += other.packets;
        self.retransmitted_packets += other.retransmitted_packets;
        self.zero_window_packets += other.zero_window_packets;
    }
}

/// Closes by reason, as counts, so that records add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Both FINs acknowledged.
    pub fin: u32,
    /// RST sent by the client.
    pub reset_by_client: u32,
    /// RST sent by the server.
    pub reset_by_server: u32,
    /// SYN answered by RST.
    pub refused: u32,
    /// No answer 10 s after the last SYN.
    pub unanswered: u32,
    /// No packet for the idle timeout.
    pub idle: u32,
    /// A new connection took the tuple.
    pub superseded: u32,
    /// The flow table was full.
    pub evicted: u32,
}

impl Closed {
    /// Every reason with its count, in the order of the design, named as in JSON and SQL.
    pub fn reasons(&self) -> [(&'static str, u32); 8] {
        [
            ("fin", self.fin),
            ("reset_by_client", self.reset_by_client),
            ("reset_by_server", self.reset_by_server),
            ("refused", self.refused),
            ("unanswered", self.unanswered),
            ("idle", self.idle),
            ("superseded", self.superseded),
            ("evicted", self.evicted),
        ]
    }

    /// Closes of any reason.
    pub fn total(&self) -> u32 {
        self.reasons().iter().map(|(_, count)| count).sum()
    }
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

impl Serialize for Closed {
    /// An object of reason → count, with the reasons that occurred.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (reason, count) in self.reasons().into_iter().filter(|(_, count)| *count > 0) {
            map.serialize_entry(reason, &count)?;
        }
        map.end()
    }
}

/// A sum of durations in microseconds: an ordinary record holds one sample at most, a summary may
/// hold more. In JSON it is the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Sum of the samples, microseconds.
    pub sum_us: u64,
    /// Number of samples.
    pub count: u32,
    /// Largest sample, microseconds.
    pub max_us: u64,
}

impl Measure {
    /// One sample.
    pub fn sample(duration_us: u64) -> Self {
        Self { sum_us: duration_us, count: 1, max_us: duration_us }
    }

    /// Nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl AddAssign for Measure {
    fn add_assign(&mut self, other: Self) {
        self.sum_us += other.sum_us;
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
    }
}

impl Serialize for Measure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.sum_us)
    }
}

/// Declares an enum of the contract once: its words (JSON, SQL) and its numbers (protobuf, Enum8).
macro_rules! word_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal, $word:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $number,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word for it in JSON, SQL and the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The number for it in protobuf and in ClickHouse's `Enum8`.
            pub fn number(self) -> i8 {
                self as i8
            }

            /// ClickHouse's type of a column of them.
            pub fn sql_type() -> String {
                let words: Vec<_> = Self::ALL
                    .iter()
                    .map(|value| format!("'{}' = {}", value.as_str(), value.number()))
                    .collect();
                format!("Enum8({})", words.join(", "))
            }

            /// The value of a number, if there is one.
            pub fn from_number(number: i32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use word_enum;

word_enum! {
    /// What an interface leads to.
    InterfaceKind {
        /// A veth whose peer is in another network namespace.
        Pod = 1, "pod";
        /// The way out of the node (default route).
        Uplink = 2, "uplink";
        /// Anything else, also a capture file.
        Other = 3, "other";
    }
}

word_enum! {
    /// Which side of the connection an observation point leads to.
    Reporter {
        /// The interface leads to the client.
        Client = 1, "client";
        /// The interface leads to the server.
        Server = 2, "server";
        /// Neither end is there: the packets pass through.
        Transit = 3, "transit";
    }
}

word_enum! {
    /// What a connection id is made of.
    IdKind {
        /// Both initial sequence numbers.
        Complete = 1, "complete";
        /// The client's initial sequence number; the server's half is 0 so far.
        Partial = 2, "partial";
        /// A hash of the tuple: joined midstream, or the id was in use on the same interface.
        TupleHash = 3, "tuple_hash";
    }
}

word_enum! {
    /// How much was folded into a record.
    Detail {
        /// One flow, one interval.
        Flow = 1, "flow";
        /// Flows of one client address, server address, server port and observation; one interval.
        Summary = 2, "summary";
        /// The same over one minute.
        MinuteSummary = 3, "minute_summary";
    }
}
