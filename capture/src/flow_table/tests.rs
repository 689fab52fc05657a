//! Tests of the flow table, and the few helpers that write them: a [`Talk`] makes the segments of one
//! connection, a [`Watch`] is a table that sees them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use flowtrail_schema::{Endpoint, FlowRecord, Interface, InterfaceKind};

use super::{FlowTable, FlowTableConfig, Origin, PointId, Shared};
use crate::packet::{Flags, Segment};

mod laws;
mod life;
mod observations;
mod time;

/// A minute begins here; times in tests are seconds since then.
const START_US: u64 = 1_699_999_980 * 1_000_000;

fn us(seconds: f64) -> u64 {
    START_US + (seconds * 1e6).round() as u64
}

fn end(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}
use Side::{Client, Server};

/// A connection as its ends make it: sequence numbers advance by themselves.
#[derive(Clone, Debug)]
struct Talk {
    ends: [Endpoint; 2],
    next: [u32; 2],
}

const CLIENT_ISN: u32 = 1_000;
const SERVER_ISN: u32 = 5_000;

impl Talk {
    fn new() -> Self {
        Self::between("10.0.0.1:40000", "10.0.0.2:80")
    }

    fn between(client: &str, server: &str) -> Self {
        Self { ends: [end(client), end(server)], next: [CLIENT_ISN, SERVER_ISN] }
    }

    fn with_isns(mut self, client: u32, server: u32) -> Self {
        self.next = [client, server];
        self
    }

    /// The next segment of one side. `flags`: any of S, A, F, R.
    fn send(&mut self, side: Side, flags: &str, payload_bytes: u32) -> Segment {
        let (from, to) = (side as usize, 1 - side as usize);
        let flags = Flags {
            syn: flags.contains('S'),
            ack: flags.contains('A'),
            fin: flags.contains('F'),
            rst: flags.contains('R'),
        };
        let sequence = self.next[from];
        let length = payload_bytes + u32::from(flags.syn) + u32::from(flags.fin);
        self.next[from] = sequence.wrapping_add(length);
        Segment {
            source: self.ends[from],
            destination: self.ends[to],
            sequence,
            acknowledgment: if flags.ack { self.next[to] } else { 0 },
            flags,
            window: 1_000,
            ip_bytes: 40 + payload_bytes,
            payload_bytes,
        }
    }
}

/// The same segment with its ends translated, as NAT does.
fn translated(mut segment: Segment, from: &str, to: &str) -> Segment {
    for address in [&mut segment.source, &mut segment.destination] {
        if *address == end(from) {
            *address = end(to);
        }
    }
    segment
}

/// A table with one interface of a file, and what it put out.
struct Watch {
    table: FlowTable,
    shared: Shared,
    point: PointId,
    records: Vec<FlowRecord>,
}

impl Watch {
    fn new() -> Self {
        Self::with(FlowTableConfig::default())
    }

    fn with(config: FlowTableConfig) -> Self {
        let shared = Shared::default();
        let point = add_point(&shared, "file", InterfaceKind::Other);
        Self { table: FlowTable::new(config, shared.clone()), shared, point, records: Vec::new() }
    }

    fn see(&mut self, seconds: f64, segment: Segment) {
        self.table.packet(self.point, Origin::Unknown, us(seconds), &segment);
    }

    /// Packets a millisecond apart.
    fn see_all(&mut self, seconds: f64, segments: impl IntoIterator<Item = Segment>) {
        for (n, segment) in segments.into_iter().enumerate() {
            self.see(seconds + n as f64 / 1e3, segment);
        }
    }

    /// Lets time pass, and takes the records that this brought.
    fn until(&mut self, seconds: f64) -> Vec<FlowRecord> {
        let mut records = Vec::new();
        while !self.table.advance(us(seconds), &mut records) {}
        self.records.extend(records.iter().cloned());
        records
    }

    fn finish(&mut self, seconds: f64) -> Vec<FlowRecord> {
        let mut records = Vec::new();
        while !self.table.finish(us(seconds), &mut records) {}
        self.records.extend(records.iter().cloned());
        records
    }

    /// All that was put out so far, added up.
    fn sum(&self) -> Sum {
        Sum::of(&self.records)
    }
}

fn add_point(shared: &Shared, name: &str, kind: InterfaceKind) -> PointId {
    shared.add_point(Arc::new(Interface { name: name.to_owned(), kind })).unwrap()
}

/// Handshake, request, response, close from both sides.
fn whole(talk: &mut Talk) -> Vec<Segment> {
    let mut segments = open(talk);
    segments.extend([
        talk.send(Client, "A", 100),
        talk.send(Server, "A", 2_000),
        talk.send(Client, "FA", 0),
        talk.send(Server, "FA", 0),
        talk.send(Client, "A", 0),
    ]);
    segments
}

fn open(talk: &mut Talk) -> Vec<Segment> {
    vec![talk.send(Client, "S", 0), talk.send(Server, "SA", 0), talk.send(Client, "A", 0)]
}

/// What records of whatever intervals add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum {
    opened: u32,
    joined: u32,
    closed: Vec<(&'static str, u32)>,
    packets: [u64; 2],
    bytes: [u64; 2],
    payload_bytes: [u64; 2],
    retransmitted: [u64; 2],
    zero_window: [u64; 2],
}

impl Sum {
    fn of<'a>(records: impl IntoIterator<Item = &'a FlowRecord>) -> Self {
        let mut sum = Self::default();
        let mut closed = std::collections::BTreeMap::<_, u32>::new();
        for record in records {
            sum.opened += record.opened;
            sum.joined += record.joined;
            for (reason, count) in record.closed.reasons() {
                *closed.entry(reason).or_default() += count;
            }
            for (side, counters) in [record.sent, record.received].into_iter().enumerate() {
                sum.packets[side] += counters.packets;
                sum.bytes[side] += counters.bytes;
                sum.payload_bytes[side] += counters.payload_bytes;
                sum.retransmitted[side] += counters.retransmitted_packets;
                sum.zero_window[side] += counters.zero_window_packets;
            }
        }
        sum.closed = closed.into_iter().filter(|(_, count)| *count > 0).collect();
        sum
    }

    /// Connections that began, and how they ended.
    fn life(&self) -> (u32, u32, &[(&'static str, u32)]) {
        (self.opened, self.joined, &self.closed)
    }
}

/// Start of a record's interval in seconds.
fn second(record: &FlowRecord) -> u64 {
    (record.interval.start_us() - START_US) / 1_000_000
}

fn node_addresses(addresses: &[&str]) -> HashSet<std::net::IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}
