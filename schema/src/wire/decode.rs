//! Bytes to a batch: what an agent said, checked against the contract.

use std::net::IpAddr;
use std::sync::Arc;

use super::protobuf::{Fields, Malformed};
use super::{DecodeError, Decoded, RecordError};
use crate::batch::{Coverage, FlowBatch, MAX_RECORDS};
use crate::interval::{Interval, IntervalLength};
use crate::record::{
    Closed, Counters, Detail, Endpoint, FlowRecord, IdKind, Interface, InterfaceKind, Measure,
    Reporter,
};

/// Reads a message's fields: each as its number says, those of a newer version not at all. A number
/// known here with a value of another type is an error.
macro_rules! read {
    ($message:expr; $($number:literal: $kind:ident($value:ident) => $take:expr,)+) => {{
        let mut fields = Fields::of($message);
        while let Some(key) = fields.key()? {
            match key {
                $(
                    ($number, wire_type!($kind)) => {
                        let $value = value!(fields, $kind);
                        $take
                    }
                )+
                (number, _) if [$($number),+].contains(&number) => {
                    return Err(Malformed::WireType.into());
                }
                (number, wire_type) => fields.skip(number, wire_type)?,
            }
        }
    }};
}

macro_rules! wire_type {
    (Varint) => {
        0
    };
    (Fixed64) => {
        1
    };
    (Bytes) => {
        2
    };
}

macro_rules! value {
    ($fields:ident, Varint) => {
        $fields.varint()?
    };
    ($fields:ident, Fixed64) => {
        $fields.fixed64()?
    };
    ($fields:ident, Bytes) => {
        $fields.bytes()?
    };
}

/// Decodes a message.
///
/// # Errors
/// If the message is not a batch, or cannot be accounted for; see [`DecodeError`].
pub fn decode(message: &[u8]) -> Result<Decoded, DecodeError> {
    let (mut agent, mut node, mut agent_start_us, mut partition, mut sequence) = ("", "", 0, 0, 0);
    let (mut interfaces, mut coverage) = (Vec::new(), Vec::new());
    // Their fields may stand before those they refer to.
    let (mut encoded_records, mut announced) = (Vec::new(), Vec::new());
    read! { message;
        1: Bytes(text) => agent = utf8(text)?,
        2: Bytes(text) => node = utf8(text)?,
        3: Varint(us) => agent_start_us = us,
        4: Varint(number) => partition = number as u32,
        5: Varint(number) => sequence = number,
        6: Bytes(interface) => interfaces.push(decode_interface(interface)?),
        7: Bytes(record) => encoded_records.push(record),
        8: Bytes(report) => coverage.push(decode_coverage(report)?),
        9: Bytes(address) => announced.push(address),
    }
    let mut records = Vec::with_capacity(encoded_records.len().min(MAX_RECORDS));
    let mut rejected = Vec::new();
    let interfaces_valid: Option<Vec<_>> = interfaces.into_iter().collect();
    let known = interfaces_valid.as_deref().unwrap_or_default();
    for (index, record) in encoded_records.into_iter().enumerate() {
        match decode_record(record, known)? {
            Ok(record) => records.push(record),
            Err(reason) => rejected.push((index, reason)),
        }
    }
    if agent.is_empty() {
        return Err(DecodeError::Missing("agent"));
    }
    if agent_start_us == 0 {
        return Err(DecodeError::Missing("agent_start_us"));
    }
    if interfaces_valid.is_none() {
        return Err(DecodeError::Invalid("interface"));
    }
    let coverage = coverage.into_iter().collect::<Option<Vec<_>>>();
    let coverage = coverage.ok_or(DecodeError::Invalid("coverage"))?;
    let announced_addresses = announced.into_iter().map(decode_ip).collect::<Result<Vec<_>, _>>();
    let announced_addresses =
        announced_addresses.map_err(|_| DecodeError::Invalid("announced address"))?;
    let batch = FlowBatch {
        agent: agent.into(),
        node: node.into(),
        agent_start_us,
        partition,
        sequence,
        records,
        coverage,
        announced_addresses,
    };
    Ok(Decoded { batch, rejected })
}

fn utf8(text: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(text).map_err(|_| Malformed::Utf8)
}

/// `None` if it is of a kind that this version does not know.
fn decode_interface(message: &[u8]) -> Result<Option<Arc<Interface>>, Malformed> {
    let (mut name, mut kind) = ("", 0);
    read! { message;
        1: Bytes(text) => name = utf8(text)?,
        2: Varint(number) => kind = number as i32,
    }
    let kind = InterfaceKind::from_number(kind);
    Ok(kind.map(|kind| Arc::new(Interface { name: name.to_owned(), kind })))
}

/// A record's fields that mean something only together.
#[derive(Default)]
struct Parts<'a> {
    interval_start_s: u32,
    interval_s: u32,
    interface: u32,
    reporter: i32,
    id_kind: i32,
    detail: i32,
    client: (&'a [u8], u32),
    server: (&'a [u8], u32),
    first_packet_offset_us: u32,
    last_packet_offset_us: u32,
}

fn decode_record(
    message: &[u8],
    interfaces: &[Arc<Interface>],
) -> Result<Result<FlowRecord, RecordError>, Malformed> {
    let mut parts = Parts::default();
    let (mut local_primary, mut handshake_seen) = (false, false);
    let (mut one_sided, mut direction_inferred) = (false, false);
    let (mut connection_id, mut age_us) = (0, 0);
    let (mut sent, mut received) = (Counters::default(), Counters::default());
    let (mut opened, mut joined, mut open_at_start) = (0, 0, 0);
    let mut closed = Closed::default();
    let [mut syn_to_synack, mut synack_to_ack, mut first_response, mut duration] =
        [Measure::default(); 4];
    read! { message;
        1: Varint(number) => parts.interval_start_s = number as u32,
        2: Varint(number) => parts.interval_s = number as u32,
        3: Varint(number) => parts.interface = number as u32,
        4: Varint(number) => parts.reporter = number as i32,
        5: Varint(number) => local_primary = number != 0,
        6: Fixed64(id) => connection_id = id,
        7: Varint(number) => parts.id_kind = number as i32,
        8: Varint(number) => handshake_seen = number != 0,
        9: Varint(number) => one_sided = number != 0,
        10: Varint(number) => direction_inferred = number != 0,
        11: Varint(number) => parts.detail = number as i32,
        12: Bytes(address) => parts.client.0 = address,
        13: Varint(number) => parts.client.1 = number as u32,
        14: Bytes(address) => parts.server.0 = address,
        15: Varint(number) => parts.server.1 = number as u32,
        16: Varint(number) => parts.first_packet_offset_us = number as u32,
        17: Varint(number) => parts.last_packet_offset_us = number as u32,
        18: Varint(number) => age_us = number,
        19: Bytes(counters) => read_counters(&mut sent, counters)?,
        20: Bytes(counters) => read_counters(&mut received, counters)?,
        21: Varint(number) => opened = number as u32,
        22: Varint(number) => joined = number as u32,
        23: Varint(number) => open_at_start = number as u32,
        24: Bytes(reasons) => read_closed(&mut closed, reasons)?,
        25: Bytes(measure) => read_measure(&mut syn_to_synack, measure)?,
        26: Bytes(measure) => read_measure(&mut synack_to_ack, measure)?,
        27: Bytes(measure) => read_measure(&mut first_response, measure)?,
        28: Bytes(measure) => read_measure(&mut duration, measure)?,
    }
    let checked = || {
        let interval = decode_interval(parts.interval_start_s, parts.interval_s)
            .ok_or(RecordError::Interval)?;
        let first_seen_us = interval.start_us() + u64::from(parts.first_packet_offset_us);
        let last_seen_us = interval.start_us() + u64::from(parts.last_packet_offset_us);
        if first_seen_us > last_seen_us || !interval.contains(last_seen_us) {
            return Err(RecordError::Time);
        }
        let interface = interfaces.get(parts.interface as usize).ok_or(RecordError::Interface)?;
        Ok(FlowRecord {
            interval,
            interface: Arc::clone(interface),
            reporter: Reporter::from_number(parts.reporter).ok_or(RecordError::Enum("reporter"))?,
            local_primary,
            connection_id,
            id_kind: IdKind::from_number(parts.id_kind).ok_or(RecordError::Enum("id_kind"))?,
            handshake_seen,
            one_sided,
            direction_inferred,
            detail: Detail::from_number(parts.detail).ok_or(RecordError::Enum("detail"))?,
            client: decode_endpoint(parts.client)?,
            server: decode_endpoint(parts.server)?,
            first_seen_us,
            last_seen_us,
            age_us,
            sent,
            received,
            opened,
            joined,
            open_at_start,
            closed,
            syn_to_synack: sampled(syn_to_synack),
            synack_to_ack: sampled(synack_to_ack),
            first_response: sampled(first_response),
            duration: sampled(duration),
        })
    };
    Ok(checked())
}

fn decode_interval(start_s: u32, length_s: u32) -> Option<Interval> {
    let length = IntervalLength::from_seconds(length_s.into()).ok()?;
    let start_us = u64::from(start_s) * 1_000_000;
    let interval = length.interval_at(start_us);
    (interval.start_us() == start_us).then_some(interval)
}

fn decode_endpoint((address, port): (&[u8], u32)) -> Result<Endpoint, RecordError> {
    let port = u16::try_from(port).map_err(|_| RecordError::Port)?;
    Ok(Endpoint { ip: decode_ip(address)?, port })
}

fn decode_ip(bytes: &[u8]) -> Result<IpAddr, RecordError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        Ok(octets.into())
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        Ok(octets.into())
    } else {
        Err(RecordError::Address)
    }
}

fn read_counters(counters: &mut Counters, message: &[u8]) -> Result<(), Malformed> {
    read! { message;
        1: Varint(number) => counters.bytes = number,
        2: Varint(number) => counters.payload_bytes = number,
        3: Varint(number) => counters.packets = number,
        4: Varint(number) => counters.retransmitted_packets = number,
        5: Varint(number) => counters.zero_window_packets = number,
    }
    Ok(())
}

fn read_closed(closed: &mut Closed, message: &[u8]) -> Result<(), Malformed> {
    read! { message;
        1: Varint(number) => closed.fin = number as u32,
        2: Varint(number) => closed.reset_by_client = number as u32,
        3: Varint(number) => closed.reset_by_server = number as u32,
        4: Varint(number) => closed.refused = number as u32,
        5: Varint(number) => closed.unanswered = number as u32,
        6: Varint(number) => closed.idle = number as u32,
        7: Varint(number) => closed.superseded = number as u32,
        8: Varint(number) => closed.evicted = number as u32,
    }
    Ok(())
}

fn read_measure(measure: &mut Measure, message: &[u8]) -> Result<(), Malformed> {
    read! { message;
        1: Varint(number) => measure.sum_us = number,
        2: Varint(number) => measure.count = number as u32,
        3: Varint(number) => measure.max_us = number,
    }
    Ok(())
}

/// Without samples there is nothing, whatever a sum says.
fn sampled(measure: Measure) -> Measure {
    if measure.is_empty() { Measure::default() } else { measure }
}

/// `None` if its interval breaks the contract.
fn decode_coverage(message: &[u8]) -> Result<Option<Coverage>, Malformed> {
    let (mut start_s, mut length_s, mut interfaces) = (0, 0, 0);
    let (mut packets_seen, mut packets_dropped, mut flows_evicted) = (0, 0, 0);
    let (mut records_emitted, mut records_dropped) = (0, 0);
    read! { message;
        1: Varint(number) => start_s = number as u32,
        2: Varint(number) => length_s = number as u32,
        3: Varint(number) => interfaces = number as u32,
        4: Varint(number) => packets_seen = number,
        5: Varint(number) => packets_dropped = number,
        6: Varint(number) => flows_evicted = number,
        7: Varint(number) => records_emitted = number,
        8: Varint(number) => records_dropped = number,
    }
    let interval = decode_interval(start_s, length_s);
    Ok(interval.map(|interval| Coverage {
        interval,
        interfaces,
        packets_seen,
        packets_dropped,
        flows_evicted,
        records_emitted,
        records_dropped,
    }))
}
