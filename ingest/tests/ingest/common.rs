//! A real engine for all tests of this binary (libchdb takes one a process), a database for each test,
//! and short ways to write batches.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use clickhouse::Row;
use flowtrail_ingest::{Config, Ingest, Source, Summary};
use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::topic::Message;
use flowtrail_schema::{
    Closed, Counters, Coverage, Detail, Endpoint, FlowBatch, FlowRecord, IdKind, Interface,
    InterfaceKind, Measure, Reporter, wire,
};
use flowtrail_service::admin::Readiness;
use flowtrail_service::metrics::Metrics;
use flowtrail_service::store::ClickHouseArgs;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cluster::keeperless::configure;
use crate::engine::start_engine;

/// Start of the interval that all records are in: 2026-01-01T01:00:00Z.
pub(crate) const START_US: u64 = 1_767_229_200_000_000;

/// A database of its own on the shared engine; not made yet.
pub(crate) fn empty_store(database: &str) -> ClickHouseArgs {
    static URL: OnceLock<String> = OnceLock::new();
    let start = || {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        start_engine(folder.join("ingest-engine"), configure)
    };
    let url = URL.get_or_init(start).clone();
    ClickHouseArgs { clickhouse_database: database.to_owned(), ..ClickHouseArgs::at(url) }
}

/// A migrated database of its own on the shared engine.
pub(crate) async fn store(database: &str) -> ClickHouseArgs {
    let store = empty_store(database);
    store.migrate().await.unwrap();
    // The records of these tests are older than any retention.
    store.keep_forever().await.unwrap();
    store
}

/// One number that a query answers.
pub(crate) async fn number(store: &ClickHouseArgs, value: &str, from: &str) -> u64 {
    #[derive(Row, Deserialize)]
    struct Number {
        number: u64,
    }
    let sql = format!("SELECT toUInt64({value}) AS number FROM {from}");
    store.client().query(&sql).fetch_one::<Number>().await.unwrap().number
}

/// Texts that a query answers, one a row.
pub(crate) async fn texts(store: &ClickHouseArgs, sql: &str) -> Vec<String> {
    #[derive(Row, Deserialize)]
    struct Text {
        text: String,
    }
    let rows = store.client().query(sql).fetch_all::<Text>().await.unwrap();
    rows.into_iter().map(|row| row.text).collect()
}

/// One observation of a connection, closed within the interval.
pub(crate) fn observed(
    id: u64,
    interface: &str,
    reporter: Reporter,
    client: &str,
    server: &str,
) -> FlowRecord {
    let counters = |bytes| Counters { bytes, packets: 5, ..Counters::default() };
    let endpoint = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
    FlowRecord {
        interval: IntervalLength::default().interval_at(START_US),
        interface: Arc::new(Interface { name: interface.into(), kind: InterfaceKind::Pod }),
        reporter,
        local_primary: true,
        connection_id: id,
        id_kind: IdKind::Complete,
        handshake_seen: true,
        one_sided: false,
        direction_inferred: false,
        detail: Detail::Flow,
        client: endpoint(client),
        server: endpoint(server),
        first_seen_us: START_US + 1_000,
        last_seen_us: START_US + 9_000,
        age_us: 8_000,
        sent: counters(1_000),
        received: counters(2_000),
        opened: 1,
        joined: 0,
        open_at_start: 0,
        closed: Closed { fin: 1, ..Closed::default() },
        syn_to_synack: Measure::sample(180),
        synack_to_ack: Measure::sample(20),
        first_response: Measure::default(),
        duration: Measure::sample(8_000),
    }
}

/// What an agent says about the interval: its records, a report, and the addresses it announces.
pub(crate) fn batch(
    agent: &str,
    sequence: u64,
    records: Vec<FlowRecord>,
    announced: &[&str],
) -> FlowBatch {
    FlowBatch {
        agent: agent.into(),
        node: agent.into(),
        agent_start_us: START_US - 1,
        partition: 0,
        sequence,
        coverage: vec![Coverage {
            interval: IntervalLength::default().interval_at(START_US),
            interfaces: 1,
            packets_seen: 10,
            packets_dropped: 0,
            flows_evicted: 0,
            records_emitted: records.len() as u64,
            records_dropped: 0,
        }],
        records,
        announced_addresses: announced.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

/// The batch as a message.
pub(crate) fn message(batch: &FlowBatch) -> Message {
    Message {
        partition: batch.partition,
        payload: wire::encode(batch),
        records: batch.records.len() as u32,
    }
}

/// Ingests messages until the channel ends.
pub(crate) async fn ingest(
    store: &ClickHouseArgs,
    config: Config,
    messages: Vec<Message>,
) -> Summary {
    let (sender, receiver) = mpsc::channel(messages.len().max(1));
    for message in messages {
        sender.send(message).await.unwrap();
    }
    drop(sender);
    let source = Source::Channel { receiver, topic_id: "run".to_owned(), partitions: 1 };
    let ingest = Ingest::new(config, source, store.clone(), &Metrics::new()).unwrap();
    let ready = Readiness::default();
    // Shut down from the start: a channel is drained all the same.
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(ingest.run(ready.part("ingest"), shutdown.clone()));
    run.await.unwrap().unwrap()
}
