//! The golden captures: real traffic with records that were derived from its packets by people, not
//! taken from the agent (see `tests/golden/README.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Parser;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use flowtrail_capture::{Agent, Config, Output};
use flowtrail_schema::{Counters, Endpoint, FlowRecord, IdKind, Measure, Reporter, connection_id};
use flowtrail_service::admin::Readiness;
use flowtrail_service::metrics::Metrics;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::{batches, records};

/// The intervals that the expected records are of, seconds.
const INTERVAL_S: u32 = 10;

/// Others that must come to the same, but for where they are cut.
const OTHER_INTERVALS_S: [u32; 3] = [1, 5, 60];

/// What the captures may take in the repository, bytes.
const MAX_BYTES: u64 = 300_000;

/// One connection seen at two places.
const PAIRS: [[&str; 2]; 5] = [
    ["nat_client", "nat_server"],
    ["simultaneous_open_low", "simultaneous_open_high"],
    ["one_direction_sent", "one_direction_received"],
    ["loss_client", "loss_server"],
    ["reordering_client", "reordering_server"],
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn path(name: &str, extension: &str) -> PathBuf {
    directory().join(name).with_extension(extension)
}

/// Names of the captures, in order.
fn names() -> BTreeSet<String> {
    let files = std::fs::read_dir(directory()).unwrap().map(|file| file.unwrap().path());
    let captures = files.filter(|path| path.extension().is_some_and(|it| it == "pcap"));
    captures.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Reads a capture with the agent: how many packets, and all records.
async fn read(name: &str, interval_s: u32) -> (u64, Vec<FlowRecord>) {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }
    let (path, interval) = (path(name, "pcap"), format!("{interval_s}s"));
    let arguments = ["capture", "--node", "n", "--interval", &interval, "--read"];
    let arguments = arguments.iter().map(AsRef::as_ref).chain([path.as_os_str()]);
    let config = Cli::parse_from(arguments).config;
    let (sender, receiver) = mpsc::channel(1);
    let output = Output::Channel { sender, partitions: 1 };
    let agent = Agent::new(config, output, &Metrics::new()).unwrap();
    let ready = Readiness::default().part("capture");
    let (summary, batches) =
        tokio::join!(agent.run(ready, CancellationToken::new()), batches(receiver));
    let summary = summary.unwrap();
    assert!(summary.skipped.is_empty(), "{name}: {:?}", summary.skipped);
    (summary.packets, records(&batches))
}

/// Records of one flow and interval, as one: a late packet may come in a record of its own.
fn sum(records: &[FlowRecord]) -> Vec<FlowRecord> {
    let mut sums: BTreeMap<_, FlowRecord> = BTreeMap::new();
    for record in records {
        let key = (record.interval.start_us(), record.connection_id, record.client, record.server);
        sums.entry(key).and_modify(|sum| add(sum, record)).or_insert_with(|| record.clone());
    }
    sums.into_values().collect()
}

fn add(sum: &mut FlowRecord, record: &FlowRecord) {
    // A record without packets has no time of its own.
    if packets_of(sum) == 0 {
        (sum.first_seen_us, sum.last_seen_us) = (record.first_seen_us, record.last_seen_us);
    } else if packets_of(record) > 0 {
        sum.first_seen_us = sum.first_seen_us.min(record.first_seen_us);
        sum.last_seen_us = sum.last_seen_us.max(record.last_seen_us);
    }
    sum.sent += record.sent;
    sum.received += record.received;
    sum.opened += record.opened;
    sum.joined += record.joined;
    sum.open_at_start += record.open_at_start;
    let (closed, other) = (&mut sum.closed, record.closed);
    closed.fin += other.fin;
    closed.reset_by_client += other.reset_by_client;
    closed.reset_by_server += other.reset_by_server;
    closed.refused += other.refused;
    closed.unanswered += other.unanswered;
    closed.idle += other.idle;
    closed.superseded += other.superseded;
    closed.evicted += other.evicted;
    sum.syn_to_synack += record.syn_to_synack;
    sum.synack_to_ack += record.synack_to_ack;
    sum.first_response += record.first_response;
    sum.duration += record.duration;
    sum.one_sided = record.one_sided;
}

fn packets_of(record: &FlowRecord) -> u64 {
    record.sent.packets + record.received.packets
}

/// What is compared: all of a record's line that does not depend on who reads it. `age` is
/// informational.
fn compared(record: &FlowRecord) -> Map<String, Value> {
    let Value::Object(mut line) = json!(record) else { panic!("a record is an object") };
    for field in ["interface", "interface_kind", "reporter", "local_primary", "detail", "age"] {
        assert!(line.remove(field).is_some(), "{field}");
    }
    line.retain(|field, _| !field.starts_with("interval") || field == "interval_start");
    line
}

/// Keyed by interval, connection id, and its two ends.
type Lines = BTreeMap<(u64, u64, String), Map<String, Value>>;

fn keyed(lines: impl Iterator<Item = Map<String, Value>>) -> Lines {
    let key = |line: &Map<String, Value>| {
        let [interval, id] =
            ["interval_start", "connection_id"].map(|field| line[field].as_u64().unwrap());
        (interval, id, format!("{} to {}", line["client"], line["server"]))
    };
    lines.map(|line| (key(&line), line)).collect()
}

fn expected(name: &str) -> Lines {
    let text = std::fs::read_to_string(path(name, "json")).unwrap();
    keyed(text.lines().map(|line| serde_json::from_str(line).unwrap()))
}

/// Every difference, as (field, line for people).
fn differences(expected: &Lines, got: &Lines) -> Vec<(String, String)> {
    let keys: BTreeSet<_> = expected.keys().chain(got.keys()).collect();
    let mut differences = Vec::new();
    for key in keys {
        let (interval, id, ends) = key;
        let record = format!("interval {interval}, connection {id:016x}, {ends}");
        match (expected.get(key), got.get(key)) {
            (Some(_), None) => differences.push((String::new(), format!("{record}: missing"))),
            (None, Some(_)) => differences.push((String::new(), format!("{record}: not expected"))),
            (Some(expected), Some(got)) => {
                let fields: BTreeSet<_> = expected.keys().chain(got.keys()).collect();
                for field in fields {
                    let [expected, got] = [expected, got].map(|line| line.get(field));
                    if expected != got {
                        let [expected, got] = [expected, got]
                            .map(|value| value.map_or("nothing".to_owned(), Value::to_string));
                        let line = format!("{record}: {field} should be {expected}, is {got}");
                        differences.push((field.clone(), line));
                    }
                }
            }
            (None, None) => {}
        }
    }
    differences
}

#[tokio::test]
async fn records_are_what_was_derived_from_the_packets() {
    let mut wrong = Vec::new();
    for name in names() {
        let (_, records) = read(&name, INTERVAL_S).await;
        let got = keyed(sum(&records).iter().map(compared));
        let differences = differences(&expected(&name), &got);
        wrong.extend(differences.into_iter().map(|(_, it)| format!("{name}: {it}")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Packets and IP bytes from one end to the other.
type Sent = BTreeMap<(Endpoint, Endpoint), (u64, u64)>;

/// Counts a capture without the agent's code.
fn count(name: &str) -> Sent {
    let file = std::fs::read(path(name, "pcap")).unwrap();
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    assert_eq!(word(0), 0xa1b2_c3d4, "{name}: not pcap in microseconds");
    let mut sent = Sent::new();
    let mut at = 24;
    while at < file.len() {
        let [captured, length] = [word(at + 8) as usize, word(at + 12) as usize];
        let frame = &file[at + 16..at + 16 + captured];
        let (ends, bytes) = parse(word(20), frame, length);
        let counted = sent.entry(ends).or_default();
        *counted = (counted.0 + 1, counted.1 + bytes);
        at += 16 + captured;
    }
    sent
}

fn parse(link_type: u32, frame: &[u8], length: usize) -> ((Endpoint, Endpoint), u64) {
    let packet = match link_type {
        1 => LaxSlicedPacket::from_ethernet(frame).unwrap(),
        // Of all interfaces (SLL2): 20 bytes before the packet.
        276 => LaxSlicedPacket::from_ip(&frame[20..]).unwrap(),
        other => panic!("link type {other}"),
    };
    let link = 14 + 4 * packet.link_exts.len();
    let (ips, bytes): ([IpAddr; 2], usize) = match packet.net.unwrap() {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let ips = [header.source_addr().into(), header.destination_addr().into()];
            (ips, header.total_len().into())
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            let ips = [header.source_addr().into(), header.destination_addr().into()];
            let bytes = match header.payload_length() {
                0 => length - link,
                payload => usize::from(payload) + 40,
            };
            (ips, bytes)
        }
        LaxNetSlice::Arp(_) => panic!("not IP"),
    };
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("not TCP") };
    let ports = [tcp.source_port(), tcp.destination_port()];
    let [from, to] = [0, 1].map(|end| Endpoint { ip: ips[end], port: ports[end] });
    ((from, to), bytes as u64)
}

#[tokio::test]
async fn every_packet_is_in_one_record_however_intervals_are_cut() {
    for name in names() {
        let counted = count(&name);
        for interval_s in [&OTHER_INTERVALS_S[..], &[INTERVAL_S]].concat() {
            let (packets, records) = read(&name, interval_s).await;
            let mut sent = Sent::new();
            for record in &records {
                let FlowRecord { client, server, .. } = *record;
                let both = [((client, server), record.sent), ((server, client), record.received)];
                for (ends, Counters { packets, bytes, .. }) in both {
                    let counted = sent.entry(ends).or_default();
                    *counted = (counted.0 + packets, counted.1 + bytes);
                }
            }
            sent.retain(|_, counted| *counted != (0, 0));
            assert_eq!(sent, counted, "{name}, {interval_s} s");
            assert_eq!(counted.values().map(|counted| counted.0).sum::<u64>(), packets, "{name}");
        }
    }
}

/// A connection, whether its id was complete already or not.
fn connection(record: &FlowRecord) -> (Endpoint, Endpoint, u64) {
    let id = match record.id_kind {
        IdKind::TupleHash => record.connection_id,
        IdKind::Complete | IdKind::Partial => {
            connection_id::client_isn(record.connection_id).into()
        }
    };
    (record.client, record.server, id)
}

/// What does not depend on where a connection's life is cut.
#[derive(Debug, Default, PartialEq)]
struct Life {
    sent: Counters,
    received: Counters,
    opened: u32,
    joined: u32,
    closed: BTreeMap<&'static str, u32>,
    measures: [Measure; 4],
    ids: BTreeSet<u64>,
}

fn lives(records: &[FlowRecord]) -> BTreeMap<(Endpoint, Endpoint, u64), Life> {
    let mut lives: BTreeMap<_, Life> = BTreeMap::new();
    for record in records {
        let life = lives.entry(connection(record)).or_default();
        life.sent += record.sent;
        life.received += record.received;
        life.opened += record.opened;
        life.joined += record.joined;
        for (reason, count) in record.closed.reasons() {
            *life.closed.entry(reason).or_default() += count;
        }
        let FlowRecord { syn_to_synack, synack_to_ack, first_response, duration, .. } = *record;
        let measures = [syn_to_synack, synack_to_ack, first_response, duration];
        for (sum, measure) in life.measures.iter_mut().zip(measures) {
            *sum += measure;
        }
        // Where an attempt is cut before its answer, a record has half the id.
        if record.id_kind != IdKind::Partial {
            life.ids.insert(record.connection_id);
        }
    }
    lives
}

#[tokio::test]
async fn cutting_changes_nothing_of_a_life() {
    for name in names() {
        let (_, records) = read(&name, INTERVAL_S).await;
        let expected = lives(&records);
        for (connection, life) in &expected {
            let closed: u32 = life.closed.values().sum();
            assert!(life.opened + life.joined >= 1, "{name}: {connection:?} has no beginning");
            assert!(closed <= life.opened + life.joined, "{name}: {connection:?} ends too often");
            assert_eq!(life.measures[3].count, closed, "{name}: {connection:?}");
        }
        for interval_s in OTHER_INTERVALS_S {
            let (_, records) = read(&name, interval_s).await;
            assert_eq!(lives(&records), expected, "{name}, {interval_s} s");
        }
    }
}

#[tokio::test]
async fn a_capture_is_one_observation_point_and_counts_connections_that_are_open() {
    for name in names() {
        for interval_s in [1, 5, INTERVAL_S, 60] {
            let (_, records) = read(&name, interval_s).await;
            let mut open: BTreeMap<_, i64> = BTreeMap::new();
            for record in sum(&records) {
                let FlowRecord { interval, first_seen_us, last_seen_us, .. } = record;
                assert!(record.local_primary, "{name}: {record:?}");
                assert_eq!(record.reporter, Reporter::Transit, "{name}: {record:?}");
                assert!(interval.contains(first_seen_us), "{name}: {record:?}");
                assert!(interval.contains(last_seen_us), "{name}: {record:?}");
                assert!(record.open_at_start <= 1, "{name}: {record:?}");
                // Open at an interval's start are those that began before it and have not ended.
                let open = open.entry(connection(&record)).or_default();
                assert!(i64::from(record.open_at_start) <= *open, "{name}: {record:?}");
                *open += i64::from(record.opened + record.joined);
                *open -= i64::from(record.closed.total());
            }
        }
    }
}

#[tokio::test]
async fn both_observations_of_a_connection_have_its_id() {
    for pair in PAIRS {
        let mut ids = [BTreeSet::new(), BTreeSet::new()];
        for (name, ids) in pair.iter().zip(&mut ids) {
            let (_, records) = read(name, INTERVAL_S).await;
            assert!(records.iter().all(|record| record.id_kind == IdKind::Complete), "{name}");
            ids.extend(records.iter().map(|record| record.connection_id));
        }
        assert!(!ids[0].is_empty());
        assert_eq!(ids[0], ids[1], "{pair:?}");
    }
}

#[test]
fn every_capture_is_small_and_explained() {
    let about = std::fs::read_to_string(directory().join("README.md")).unwrap();
    let names = names();
    assert!(names.len() >= 30, "{names:?}");
    let mut bytes = 0;
    for name in &names {
        assert!(about.contains(&format!("`{name}`")), "README.md says nothing about {name}");
        bytes += std::fs::metadata(path(name, "pcap")).unwrap().len();
    }
    assert!(bytes <= MAX_BYTES, "{bytes} bytes");
}
