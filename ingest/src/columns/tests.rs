//! What the engine reads out of a block is what was put in.

use std::net::{IpAddr, Ipv4Addr};

use clickhouse::{Client, Row};
use fastrand::Rng;
use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::row::FlowRow;
use flowtrail_schema::{Closed, Counters, Endpoint, Interface, Measure};
use flowtrail_service::store::ClickHouseArgs;
use serde::Deserialize;

use super::*;
use crate::naming::End;
use crate::native::{insert_native, read_native};
use crate::row::micros;

#[path = "../../tests/ingest/engine.rs"]
mod engine;

/// 2026-01-01T00:00:00Z.
const START_US: u64 = 1_767_225_600_000_000;
const DAY_US: u64 = 86_400_000_000;
/// Records are of this many days, so that inserts make this many parts.
const DAYS: u64 = 3;

#[tokio::test]
async fn the_engine_reads_what_was_written_and_takes_back_what_it_read() {
    let folder = std::env::current_exe().unwrap().with_file_name("ingest-unit-engine");
    let url = engine::start_engine(folder, |_| ());
    let (one, other) = (store(&url, "one").await, store(&url, "other").await);
    same_columns(&one).await;

    many_words(&one).await;

    // Dictionaries whose numbers take one byte and two.
    for (start, rows) in [(0, 1), (1, 100), (2, 1_000)] {
        let chunk = ChunkId { partition: 7, start };
        let (block, expected) = random_block(&mut Rng::with_seed(start), chunk, rows);
        assert_eq!(block.count, rows);
        for _again in 0..2 {
            insert(&one, &block, &start.to_string()).await;
        }
        let read = read_rows(&one, start).await;
        assert!(read == expected, "{:?}", differing(&read, &expected));
        assert!(parts(&one).await <= DAYS * (start + 1), "a block made several parts in a day");

        let select = one
            .query("SELECT * FROM flows WHERE chunk_start = ? SETTINGS max_block_size = 64")
            .bind(start);
        let verbatim = Rows { count: rows, pieces: vec![read_native(select).await.unwrap()] };
        for _again in 0..2 {
            insert(&other, &verbatim, &start.to_string()).await;
        }
        let read = read_rows(&other, start).await;
        assert!(read == expected, "{:?}", differing(&read, &expected));
        assert!(parts(&other).await <= DAYS * (start + 1), "blocks were not put together");
    }
}

async fn store(url: &str, database: &str) -> Client {
    let at = ClickHouseArgs::at(url.to_owned());
    let store = ClickHouseArgs { clickhouse_database: database.to_owned(), ..at };
    store.migrate().await.unwrap();
    store.keep_forever().await.unwrap();
    store.client().query_raw("SYSTEM STOP MERGES").execute().await.unwrap();
    store.client()
}

async fn insert(client: &Client, rows: &Rows, token: &str) {
    let mut insert = insert_native(client, "flows")
        .with_setting("insert_deduplication_token", token)
        .with_setting("max_insert_threads", "1")
        .with_setting("min_insert_block_size_rows", "1048449")
        .with_setting("min_insert_block_size_bytes", "0");
    rows.send(&mut insert).await.unwrap();
    insert.end().await.unwrap();
}

/// A column that was forgotten, or is of another type, would be filled with defaults or converted.
async fn same_columns(client: &Client) {
    #[derive(Row, Deserialize)]
    struct Named {
        name: String,
        sql_type: String,
    }
    let query = "SELECT name, type AS sql_type FROM system.columns \
         WHERE database = currentDatabase() AND table = 'flows' AND default_kind != 'ALIAS' ORDER BY position";
    let table: Vec<_> = client.query(query).fetch_all::<Named>().await.unwrap();
    let mut table: Vec<_> = table.iter().map(|c| (c.name.as_str(), c.sql_type.clone())).collect();
    let mut written = FlowColumns::names_and_types();
    table.sort();
    written.sort();
    assert_eq!(written, table);
}

/// A dictionary whose numbers take four bytes.
async fn many_words(client: &Client) {
    let rows = 70_000;
    let (mut numbers, mut words) =
        (Plain::<u32>::with_capacity(rows), Numbered::with_capacity(rows));
    for number in 0..rows as u32 {
        numbers.push(number);
        words.push(&Arc::from(format!("text-{number}")));
    }
    let mut block = Block::new(2, rows);
    block.plain("number", numbers);
    words.words("word", |text: &str| text, &mut block);
    let table = "CREATE TABLE words (number UInt32, word LowCardinality(String)) ENGINE = Memory";
    client.query(table).execute().await.unwrap();
    let mut insert = insert_native(client, "words");
    block.finish().send(&mut insert).await.unwrap();
    insert.end().await.unwrap();
    let right = "SELECT countIf(word = concat('text-', toString(number))) FROM words";
    assert_eq!(client.query(right).fetch_one::<u64>().await.unwrap(), rows as u64);
}

async fn read_rows(client: &Client, chunk_start: u64) -> Vec<FlowRow> {
    let query = "SELECT ?fields FROM flows WHERE chunk_start = ? ORDER BY connection_id";
    client.query(query).bind(chunk_start).fetch_all::<FlowRow>().await.unwrap()
}

async fn parts(client: &Client) -> u64 {
    let query = "SELECT count() FROM system.parts \
         WHERE active AND database = currentDatabase() AND table = 'flows'";
    client.query(query).fetch_one::<u64>().await.unwrap()
}

fn differing<'a>(
    read: &'a [FlowRow],
    expected: &'a [FlowRow],
) -> Option<(&'a FlowRow, &'a FlowRow)> {
    assert_eq!(read.len(), expected.len());
    read.iter().zip(expected).find(|(read, expected)| read != expected)
}

/// Rows that differ in everything, with as many names as rows; some names are equal texts in
/// different places.
fn random_block(rng: &mut Rng, chunk: ChunkId, rows: usize) -> (Rows, Vec<FlowRow>) {
    let texts: Vec<Arc<str>> = (0..rows).map(|index| format!("text-{index}").into()).collect();
    let topic_id = Arc::from("topic");
    let mut columns = FlowColumns::with_capacity(rows);
    let mut expected = Vec::with_capacity(rows);
    for text in &texts {
        let mut record = FlowRecord { connection_id: expected.len() as u64, ..random_record(rng) };
        let mut names = random_names(rng, &texts);
        for (seen, real) in
            [(&mut record.client, names.client.real), (&mut record.server, names.server.real)]
        {
            *seen = match rng.u8(..4) {
                0 => *seen,
                1 => Endpoint { ip: real.ip, ..*seen },
                2 => Endpoint { port: real.port, ..*seen },
                _ => real,
            };
        }
        if rng.bool() {
            record.duration.sum_us = record.age_us;
        }
        // Each at least once.
        let client = Identity::clone(&names.client.identity);
        names.client.identity = Identity { name: Arc::clone(text), ..client }.into();
        let (agent, node) = (random_text(rng, &texts), random_text(rng, &texts));
        let point = Point::new(agent, node, Arc::clone(&record.interface)).into();
        let named = NamedRecord {
            record: Cow::Borrowed(&record),
            names: names.into(),
            primary: rng.bool(),
            point: &point,
            topic_id: &topic_id,
            chunk,
        };
        expected.push(flow_row(&named));
        columns.extend(&[named]);
    }
    (columns.finish(), expected)
}

fn random_names(rng: &mut Rng, texts: &[Arc<str>]) -> ConnectionNames {
    let client = random_end(rng, texts);
    let server = random_end(rng, texts);
    let service = rng.bool().then(|| random_end(rng, texts).identity);
    ConnectionNames { client, server, service }
}

fn random_end(rng: &mut Rng, texts: &[Arc<str>]) -> End {
    let kind = pick(rng, EntityKind::ALL);
    let uncertain = rng.bool();
    let mut text = || random_text(rng, texts);
    let identity = Identity {
        kind,
        namespace: text(),
        name: text(),
        workload: text(),
        workload_kind: text(),
        node: text(),
        uncertain,
    };
    End { real: random_endpoint(rng), identity: identity.into() }
}

fn random_text(rng: &mut Rng, texts: &[Arc<str>]) -> Arc<str> {
    let text = &texts[rng.usize(..texts.len())];
    match rng.u8(..4) {
        0 => Arc::default(),
        // Gone by the next row: another text may come to lie in its place.
        1 => text[..rng.usize(..text.len())].into(),
        2 => text.to_string().into(),
        _ => Arc::clone(text),
    }
}

/// A record that is random in everything.
pub(crate) fn random_record(rng: &mut Rng) -> FlowRecord {
    let at_us = START_US + rng.u64(..DAYS * DAY_US);
    let interval = IntervalLength::default().interval_at(at_us);
    let name = format!("veth{}", rng.u8(..));
    FlowRecord {
        interval,
        interface: Arc::new(Interface { name, kind: pick(rng, InterfaceKind::ALL) }),
        reporter: pick(rng, Reporter::ALL),
        local_primary: rng.bool(),
        connection_id: 0,
        id_kind: pick(rng, IdKind::ALL),
        handshake_seen: rng.bool(),
        one_sided: rng.bool(),
        direction_inferred: rng.bool(),
        detail: pick(rng, Detail::ALL),
        client: random_endpoint(rng),
        server: random_endpoint(rng),
        first_seen_us: at_us,
        last_seen_us: interval.end_us() - 1,
        age_us: rng.u64(..),
        sent: random_counters(rng),
        received: random_counters(rng),
        opened: rng.u32(..),
        joined: rng.u32(..),
        open_at_start: rng.u32(..),
        closed: Closed {
            fin: rng.u32(..),
            reset_by_client: rng.u32(..),
            reset_by_server: rng.u32(..),
            refused: rng.u32(..),
            unanswered: rng.u32(..),
            idle: rng.u32(..),
            superseded: rng.u32(..),
            evicted: rng.u32(..),
        },
        syn_to_synack: random_measure(rng),
        synack_to_ack: random_measure(rng),
        first_response: random_measure(rng),
        duration: random_measure(rng),
    }
}

fn random_counters(rng: &mut Rng) -> Counters {
    Counters {
        bytes: rng.u64(..),
        payload_bytes: rng.u64(..),
        packets: rng.u64(..),
        retransmitted_packets: rng.u64(..),
        zero_window_packets: rng.u64(..),
    }
}

fn random_measure(rng: &mut Rng) -> Measure {
    let sum_us = rng.u64(..);
    match rng.u8(..3) {
        0 => Measure::default(),
        1 => Measure { sum_us, count: 1, max_us: sum_us },
        _ => Measure { sum_us, count: rng.u32(..), max_us: rng.u64(..) },
    }
}

fn random_endpoint(rng: &mut Rng) -> Endpoint {
    let ip = if rng.bool() {
        IpAddr::V4(Ipv4Addr::from_bits(rng.u32(..)))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(rng.u128(..)))
    };
    Endpoint { ip, port: rng.u16(..) }
}

fn pick<T: Copy>(rng: &mut Rng, values: &[T]) -> T {
    values[rng.usize(..values.len())]
}

/// The row that a record is to become.
fn flow_row(named: &NamedRecord<'_>) -> FlowRow {
    let NamedRecord { record, names, primary, point, topic_id, chunk } = named;
    let ConnectionNames { client, server, service } = &**names;
    let (service_namespace, service_name) = match service {
        Some(called) => (called.namespace.to_string(), called.name.to_string()),
        None => Default::default(),
    };
    FlowRow {
        interval_start: seconds(record.interval.start_s()),
        interval_s: seconds_short(record.interval.length().seconds()),
        first_seen: micros(record.first_seen_us),
        last_seen: micros(record.last_seen_us),

        node: point.node.to_string(),
        agent: point.agent.to_string(),
        interface: point.interface.name.clone(),
        interface_kind: record.interface.kind.number(),
        reporter: record.reporter.number(),
        local_primary: record.local_primary,
        primary: *primary,
        detail: record.detail.number(),

        connection_id: record.connection_id,
        id_kind: record.id_kind.number(),
        handshake_seen: record.handshake_seen,
        one_sided: record.one_sided,
        direction_inferred: record.direction_inferred,
        age_us: record.age_us,

        client_ip: mapped(record.client.ip),
        client_port: record.client.port,
        client_kind: client.identity.kind.number(),
        client_namespace: client.identity.namespace.to_string(),
        client_name: client.identity.name.to_string(),
        client_workload: client.identity.workload.to_string(),
        client_workload_kind: client.identity.workload_kind.to_string(),
        client_node: client.identity.node.to_string(),
        client_uncertain: client.identity.uncertain,
        client_real_ip: mapped(client.real.ip),
        client_real_port: client.real.port,

        server_ip: mapped(record.server.ip),
        server_port: record.server.port,
        server_kind: server.identity.kind.number(),
        server_namespace: server.identity.namespace.to_string(),
        server_name: server.identity.name.to_string(),
        server_workload: server.identity.workload.to_string(),
        server_workload_kind: server.identity.workload_kind.to_string(),
        server_node: server.identity.node.to_string(),
        server_uncertain: server.identity.uncertain,
        server_real_ip: mapped(server.real.ip),
        server_real_port: server.real.port,
        service_namespace,
        service_name,

        sent_bytes: record.sent.bytes,
        sent_payload_bytes: record.sent.payload_bytes,
        sent_packets: record.sent.packets,
        sent_retransmitted_packets: record.sent.retransmitted_packets,
        sent_zero_window_packets: record.sent.zero_window_packets,
        received_bytes: record.received.bytes,
        received_payload_bytes: record.received.payload_bytes,
        received_packets: record.received.packets,
        received_retransmitted_packets: record.received.retransmitted_packets,
        received_zero_window_packets: record.received.zero_window_packets,

        opened: record.opened,
        joined: record.joined,
        open_at_start: record.open_at_start,
        closed_fin: record.closed.fin,
        closed_reset_by_client: record.closed.reset_by_client,
        closed_reset_by_server: record.closed.reset_by_server,
        closed_refused: record.closed.refused,
        closed_unanswered: record.closed.unanswered,
        closed_idle: record.closed.idle,
        closed_superseded: record.closed.superseded,
        closed_evicted: record.closed.evicted,

        syn_to_synack_us: record.syn_to_synack.sum_us,
        syn_to_synack_count: record.syn_to_synack.count,
        syn_to_synack_max_us: record.syn_to_synack.max_us,
        synack_to_ack_us: record.synack_to_ack.sum_us,
        synack_to_ack_count: record.synack_to_ack.count,
        synack_to_ack_max_us: record.synack_to_ack.max_us,
        first_response_us: record.first_response.sum_us,
        first_response_count: record.first_response.count,
        first_response_max_us: record.first_response.max_us,
        duration_us: record.duration.sum_us,
        duration_count: record.duration.count,
        duration_max_us: record.duration.max_us,

        topic_id: topic_id.to_string(),
        partition: chunk.partition,
        chunk_start: chunk.start,
    }
}
