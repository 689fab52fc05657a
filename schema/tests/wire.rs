//! The wire format: what is encoded comes back, garbage is refused without a panic, and the bytes of
//! version 1 are pinned by a golden file.

#![allow(clippy::unwrap_used, reason = "tests: helpers too")]

use std::net::IpAddr;
use std::sync::Arc;

use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::record::{Closed, Counters, Detail, Endpoint, FlowRecord, IdKind, Measure};
use flowtrail_schema::wire::{DecodeError, decode, encode};
use flowtrail_schema::{Coverage, FlowBatch, Interface, InterfaceKind, Reporter};
use proptest::prelude::*;

const START_US: u64 = 1_700_000_000_000_000;

fn record(interface: &str) -> FlowRecord {
    let counters = |factor| Counters {
        bytes: 1_500 * factor,
        payload_bytes: 1_448 * factor,
        packets: factor,
        retransmitted_packets: 1,
        zero_window_packets: 2,
    };
    FlowRecord {
        interval: IntervalLength::default().interval_at(START_US),
        interface: Arc::new(Interface { name: interface.into(), kind: InterfaceKind::Pod }),
        reporter: Reporter::Client,
        local_primary: true,
        connection_id: 0xdead_beef_0bad_cafe,
        id_kind: IdKind::Complete,
        handshake_seen: true,
        one_sided: false,
        direction_inferred: false,
        detail: Detail::Flow,
        client: Endpoint { ip: "10.1.0.5".parse().unwrap(), port: 40_000 },
        server: Endpoint { ip: "2001:db8::7".parse().unwrap(), port: 443 },
        first_seen_us: START_US + 1_000,
        last_seen_us: START_US + 9_999_999,
        age_us: 10_000_000,
        sent: counters(3),
        received: counters(70_000),
        opened: 1,
        joined: 0,
        open_at_start: 0,
        closed: Closed { fin: 1, ..Closed::default() },
        syn_to_synack: Measure::sample(180),
        synack_to_ack: Measure::sample(20),
        first_response: Measure::default(),
        duration: Measure::sample(9_998_999),
    }
}

fn batch() -> FlowBatch {
    FlowBatch {
        agent: "node-a".into(),
        node: "node-a".into(),
        agent_start_us: START_US - 5,
        partition: 3,
        sequence: 42,
        records: vec![record("veth1"), record("veth2"), record("veth1")],
        coverage: vec![Coverage {
            interval: IntervalLength::default().interval_at(START_US),
            interfaces: 2,
            packets_seen: 10,
            packets_dropped: 1,
            flows_evicted: 0,
            records_emitted: 3,
            records_dropped: 0,
        }],
        announced_addresses: vec!["10.1.0.5".parse().unwrap(), "2001:db8::5".parse().unwrap()],
    }
}

#[test]
fn a_batch_comes_back_whole() {
    let decoded = decode(&encode(&batch())).unwrap();
    assert_eq!(decoded.batch, batch());
    assert_eq!(decoded.rejected, []);
}

#[test]
fn the_bytes_of_version_1_are_pinned() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/flow_batch.hex");
    let hex: String = encode(&batch()).iter().map(|byte| format!("{byte:02x}")).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, hex.clone() + "\n").unwrap();
    }
    let pinned = std::fs::read_to_string(golden).unwrap();
    assert_eq!(hex, pinned.trim(), "the wire format changed: fields may only be added");
}

#[test]
fn json_has_the_words_of_the_design() {
    let json = serde_json::to_value(record("veth1")).unwrap();
    assert_eq!(json["interval_start"], START_US);
    assert_eq!(json["interface_kind"], "pod");
    assert_eq!(json["client"], serde_json::json!({"ip": "10.1.0.5", "port": 40_000}));
    assert_eq!(json["closed"], serde_json::json!({"fin": 1}));
    assert_eq!(json["sent"]["payload_bytes"], 4_344);
    assert_eq!(json["syn_to_synack"], 180);
    assert_eq!(json.get("first_response"), None);
}

#[test]
fn a_batch_without_an_agent_is_refused() {
    let nameless = FlowBatch { agent: "".into(), ..batch() };
    assert_eq!(decode(&encode(&nameless)), Err(DecodeError::Missing("agent")));
}

#[test]
fn a_bad_record_is_rejected_and_its_neighbours_are_kept() {
    let mut bad = batch();
    bad.records[1].last_seen_us = bad.records[1].interval.end_us();
    let decoded = decode(&encode(&bad)).unwrap();
    assert_eq!(decoded.batch.records.len(), 2);
    assert_eq!(decoded.rejected.len(), 1);
    assert_eq!(decoded.rejected[0].0, 1);
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_damaged_batch_never_panics(position in 0_usize..400, value: u8) {
        let mut bytes = encode(&batch()).to_vec();
        let position = position % bytes.len();
        bytes[position] = value;
        let _ = decode(&bytes);
    }

    #[test]
    fn any_counters_and_addresses_come_back(
        bytes: u64, packets: u64, opened: u32, ip: IpAddr, port: u16, age_us: u64,
    ) {
        let mut batch = batch();
        let record = &mut batch.records[0];
        record.sent.bytes = bytes;
        record.received.packets = packets;
        record.opened = opened;
        record.client = Endpoint { ip, port };
        record.age_us = age_us;
        prop_assert_eq!(decode(&encode(&batch)).unwrap().batch, batch);
    }
}
