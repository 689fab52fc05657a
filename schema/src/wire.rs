//! The wire format: `FlowBatch` to protobuf bytes and back (`proto/flow.proto`).
//!
//! Decoding trusts nothing. A message that is not a batch is an error; a record in it that breaks the
//! contract is a reject with its reason, and the good records around it are kept. Encoding is prost's.
//! Decoding is ours, into records at once: it is most of what ingest does for a record, and prost's way
//! there is by two allocations and twice the memory.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;

use crate::batch::{Coverage, FlowBatch};
use crate::record::{Closed, Counters, FlowRecord, Interface, Measure};
pub use decode::decode;
pub use protobuf::Malformed;

mod decode;
mod protobuf;

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/flowtrail.v1.rs"));
}

/// A message that is no batch at all: it goes to the dead-letter topic.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum DecodeError {
    /// Not protobuf, or not this message.
    #[error("not a FlowBatch: {0}")]
    Protobuf(#[from] Malformed),
    /// A field without which the batch cannot be accounted for.
    #[error("FlowBatch without {0}")]
    Missing(&'static str),
    /// An interface, a report or an announcement that breaks the contract.
    #[error("FlowBatch with an invalid {0}")]
    Invalid(&'static str),
}

/// Why one record of a good batch is rejected.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
pub enum RecordError {
    /// The interval does not divide a minute or is not aligned.
    #[error("invalid interval")]
    Interval,
    /// An address that is neither 4 nor 16 bytes.
    #[error("invalid address")]
    Address,
    /// A port over 65535.
    #[error("invalid port")]
    Port,
    /// An index without an interface.
    #[error("unknown interface")]
    Interface,
    /// An enum value that this version does not know.
    #[error("unknown {0}")]
    Enum(&'static str),
    /// A packet time outside the interval.
    #[error("packet time outside the interval")]
    Time,
}

/// A decoded message: the batch with its good records, and what was rejected of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The batch.
    pub batch: FlowBatch,
    /// Index in the message and reason of each rejected record.
    pub rejected: Vec<(usize, RecordError)>,
}

/// Encodes a batch. The inverse of [`decode`].
pub fn encode(batch: &FlowBatch) -> Bytes {
    let mut interfaces = InterfaceTable::default();
    let message = proto::FlowBatch {
        agent: batch.agent.to_string(),
        node: batch.node.to_string(),
        agent_start_us: batch.agent_start_us,
        partition: batch.partition,
        sequence: batch.sequence,
        records: batch
            .records
            .iter()
            .map(|record| encode_record(record, &mut interfaces))
            .collect(),
        interfaces: interfaces.encoded,
        coverage: batch.coverage.iter().map(encode_coverage).collect(),
        announced_addresses: batch.announced_addresses.iter().copied().map(encode_ip).collect(),
    };
    message.encode_to_vec().into()
}

/// The interfaces of a batch, each once. Batches see few: a scan beats a map.
#[derive(Default)]
struct InterfaceTable {
    seen: Vec<Arc<Interface>>,
    encoded: Vec<proto::Interface>,
}

impl InterfaceTable {
    fn index(&mut self, interface: &Arc<Interface>) -> u32 {
        let known =
            self.seen.iter().position(|seen| Arc::ptr_eq(seen, interface) || seen == interface);
        let index = known.unwrap_or_else(|| {
            self.encoded.push(proto::Interface {
                name: interface.name.clone(),
                kind: interface.kind.number().into(),
            });
            self.seen.push(Arc::clone(interface));
            self.seen.len() - 1
        });
        index as u32
    }
}

fn encode_record(record: &FlowRecord, interfaces: &mut InterfaceTable) -> proto::FlowRecord {
    let start_us = record.interval.start_us();
    proto::FlowRecord {
        interval_start_s: record.interval.start_s() as u32,
        interval_s: record.interval.length().seconds(),
        interface: interfaces.index(&record.interface),
        reporter: record.reporter.number().into(),
        local_primary: record.local_primary,
        connection_id: record.connection_id,
        id_kind: record.id_kind.number().into(),
        handshake_seen: record.handshake_seen,
        one_sided: record.one_sided,
        direction_inferred: record.direction_inferred,
        detail: record.detail.number().into(),
        client_address: encode_ip(record.client.ip),
        client_port: record.client.port.into(),
        server_address: encode_ip(record.server.ip),
        server_port: record.server.port.into(),
        first_packet_offset_us: record.first_seen_us.saturating_sub(start_us) as u32,
        last_packet_offset_us: record.last_seen_us.saturating_sub(start_us) as u32,
        age_us: record.age_us,
        sent: encode_counters(&record.sent),
        received: encode_counters(&record.received),
        opened: record.opened,
        joined: record.joined,
        open_at_start: record.open_at_start,
        closed: (record.closed != Closed::default()).then(|| encode_closed(&record.closed)),
        syn_to_synack: encode_measure(&record.syn_to_synack),
        synack_to_ack: encode_measure(&record.synack_to_ack),
        first_response: encode_measure(&record.first_response),
        duration: encode_measure(&record.duration),
    }
}

fn encode_ip(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn encode_counters(counters: &Counters) -> Option<proto::Counters> {
    (*counters != Counters::default()).then_some(proto::Counters {
        bytes: counters.bytes,
        payload_bytes: counters.payload_bytes,
        packets: counters.packets,
        retransmitted_packets: counters.retransmitted_packets,
        zero_window_packets: counters.zero_window_packets,
    })
}

fn encode_closed(closed: &Closed) -> proto::Closed {
    let &Closed {
        fin,
        reset_by_client,
        reset_by_server,
        refused,
        unanswered,
        idle,
        superseded,
        evicted,
    } = closed;
    proto::Closed {
        fin,
        reset_by_client,
        reset_by_server,
        refused,
        unanswered,
        idle,
        superseded,
        evicted,
    }
}

fn encode_measure(measure: &Measure) -> Option<proto::Measure> {
    (!measure.is_empty()).then_some(proto::Measure {
        sum_us: measure.sum_us,
        count: measure.count,
        max_us: measure.max_us,
    })
}

fn encode_coverage(coverage: &Coverage) -> proto::Coverage {
    proto::Coverage {
        interval_start_s: coverage.interval.start_s() as u32,
        interval_s: coverage.interval.length().seconds(),
        interfaces: coverage.interfaces,
        packets_seen: coverage.packets_seen,
        packets_dropped: coverage.packets_dropped,
        flows_evicted: coverage.flows_evicted,
        records_emitted: coverage.records_emitted,
        records_dropped: coverage.records_dropped,
    }
}

#[cfg(test)]
mod tests;
