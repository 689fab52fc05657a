//! From messages on a channel to rows in a real engine.

use std::path::PathBuf;
use std::time::Duration;

use flowtrail_ingest::{Config, Ingest, Source, Summary};
use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::topic::Message;
use flowtrail_schema::{Coverage, FlowBatch, IdKind, Reporter};
use flowtrail_service::admin::Readiness;
use flowtrail_service::metrics::Metrics;
use flowtrail_service::store::ClickHouseArgs;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::common::*;

fn names() -> Option<PathBuf> {
    Some(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ingest/names.json")))
}

async fn ingest_batches(store: &ClickHouseArgs, batches: &[FlowBatch]) -> Summary {
    let config = Config { names: names(), ..Config::default() };
    ingest(store, config, batches.iter().map(message).collect()).await
}

/// The edges between workloads, each as a line of text.
const EDGES: &str = "SELECT concat(client_namespace, '/', client_workload_kind, '/', client_workload, ' -> ', \
     server_namespace, '/', server_workload_kind, '/', server_workload, ' ', server_name, \
     ' via ', service_namespace, '/', service_name, ' connections ', toString(sum(opened)), \
     ' bytes ', toString(sum(sent_bytes))) AS text \
     FROM flows WHERE primary \
     GROUP BY client_namespace, client_workload_kind, client_workload, server_namespace, \
     server_workload_kind, server_workload, server_name, service_namespace, service_name";

#[tokio::test]
async fn a_connection_through_a_service_is_one_edge_between_workloads() {
    let store = store("through_a_service").await;
    let (pod, service, backend) = ("10.1.0.5:40000", "10.96.0.10:5432", "10.1.1.7:5432");
    let mut bridge = observed(77, "cni0", Reporter::Transit, pod, backend);
    bridge.local_primary = false;
    let client = vec![observed(77, "veth1", Reporter::Client, pod, service), bridge];
    // Masqueraded on the way: the server's node sees the client's node.
    let server = vec![observed(77, "veth9", Reporter::Server, "192.168.0.1:61000", backend)];
    let summary = ingest_batches(
        &store,
        &[
            batch("node-b", 0, server, &["10.1.1.7"]),
            batch("node-a", 0, client, &["10.1.0.5", "192.168.0.1"]),
        ],
    )
    .await;
    // node-b came first and nobody had announced the client's node yet: the server's side counts.
    assert_eq!((summary.records, summary.primary_records, summary.coverage_reports), (3, 1, 2));
    let edge =
        "shop/Deployment/web -> shop/StatefulSet/db db-0 via shop/db connections 1 bytes 1000";
    assert_eq!(texts(&store, EDGES).await, [edge]);
    let evidence = "SELECT concat(interface, ' ', toString(client_real_ip), ' ', toString(server_real_ip)) AS text \
         FROM flows ORDER BY interface";
    assert_eq!(
        texts(&store, evidence).await,
        ["cni0", "veth1", "veth9"].map(|name| format!("{name} ::ffff:10.1.0.5 ::ffff:10.1.1.7"))
    );
}

#[tokio::test]
async fn the_clients_side_counts_once_its_agent_has_announced_it() {
    let store = store("clients_side").await;
    let (pod, backend) = ("10.1.0.5:40000", "10.1.1.7:5432");
    let summary = ingest_batches(
        &store,
        &[
            batch("node-a", 0, vec![], &["10.1.0.5"]),
            batch(
                "node-b",
                0,
                vec![observed(1, "veth9", Reporter::Server, pod, backend)],
                &["10.1.1.7"],
            ),
            batch(
                "node-a",
                1,
                vec![observed(1, "veth1", Reporter::Client, pod, backend)],
                &["10.1.0.5"],
            ),
        ],
    )
    .await;
    assert_eq!((summary.records, summary.primary_records), (2, 1));
    assert_eq!(texts(&store, "SELECT interface AS text FROM flows WHERE primary").await, ["veth1"]);
}

#[tokio::test]
async fn an_unanswered_call_of_a_service_names_the_services_workload() {
    let store = store("unanswered").await;
    let mut syn = observed(5 << 32, "veth1", Reporter::Client, "10.1.0.5:40000", "10.96.0.10:5432");
    syn.id_kind = IdKind::Partial;
    ingest_batches(&store, &[batch("node-a", 0, vec![syn], &["10.1.0.5"])]).await;
    let edge = "shop/Deployment/web -> shop/StatefulSet/db db via shop/db connections 1 bytes 1000";
    assert_eq!(texts(&store, EDGES).await, [edge]);
}

#[tokio::test]
async fn an_inferred_direction_is_turned_when_only_the_other_end_listens() {
    let store = store("inferred").await;
    let mut guessed = observed(9, "veth1", Reporter::Server, "10.1.1.7:5432", "10.1.0.5:40000");
    guessed.id_kind = IdKind::TupleHash;
    guessed.direction_inferred = true;
    let mut both_unknown = observed(10, "veth1", Reporter::Server, "10.1.1.7:1", "10.1.0.5:40000");
    both_unknown.id_kind = IdKind::TupleHash;
    both_unknown.direction_inferred = true;
    ingest_batches(&store, &[batch("node-a", 0, vec![guessed, both_unknown], &[])]).await;
    let ends = "SELECT concat(client_name, ' ', server_name, ' ', toString(sent_bytes), ' ', toString(reporter)) AS text \
         FROM flows ORDER BY connection_id";
    assert_eq!(
        texts(&store, ends).await,
        ["web-5d9-x db-0 2000 client", "db-0 web-5d9-x 1000 server"]
    );
}

#[tokio::test]
async fn bad_messages_and_records_are_listed_and_their_neighbours_kept() {
    let store = store("rejects").await;
    let good = observed(1, "veth1", Reporter::Client, "10.1.0.5:40000", "8.8.8.8:53");
    let mut late = good.clone();
    late.last_seen_us = late.interval.end_us();
    let garbage = Message { partition: 0, payload: vec![0xff; 9].into(), records: 0 };
    let mixed = message(&batch("node-a", 0, vec![good, late], &[]));
    let messages = vec![garbage, mixed.clone(), mixed];
    let summary = ingest(&store, Config::default(), messages).await;
    let expected = Summary {
        messages: 3,
        duplicate_batches: 1,
        rejected_messages: 1,
        records: 1,
        primary_records: 1,
        rejected_records: 1,
        coverage_reports: 1,
        chunks: 1,
    };
    assert_eq!(summary, expected);
    let delivery = "SELECT toString((chunk_start, chunk_end, records, coverage_reports, duplicate_batches, \
         batches.agent, batches.sequence, rejected.reason, rejected.count)) AS text FROM deliveries";
    assert_eq!(
        texts(&store, delivery).await,
        ["(0,3,1,1,1,['node-a'],[0],['not a FlowBatch','packet time outside the interval'],[1,1])"]
    );
    assert_eq!(
        number(
            &store,
            "count()",
            "flows WHERE server_kind = 'external' AND client_kind = 'unknown'"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn a_repeated_chunk_changes_nothing() {
    let store = store("repeated").await;
    let (pod, backend) = ("10.1.0.5:40000", "10.1.1.7:5432");
    let record = |id| observed(id, "veth1", Reporter::Client, pod, backend);
    let batches =
        [batch("node-a", 0, vec![record(1)], &[]), batch("node-a", 1, vec![record(2)], &[])];
    // Every message is a chunk of its own, so both runs cut alike.
    let config = || Config { chunk_rows: 1.try_into().unwrap(), ..Config::default() };
    for chunks in [2, 0] {
        let summary = ingest(&store, config(), batches.iter().map(message).collect()).await;
        assert_eq!(summary.chunks, chunks);
    }
    for table in ["flows", "coverage", "deliveries"] {
        assert_eq!(number(&store, "count()", table).await, 2, "{table}");
    }
}

#[tokio::test]
async fn a_large_chunk_is_one_block() {
    let store = store("one_block").await;
    let batches: Vec<_> = (0..80)
        .map(|sequence| {
            let records = (0..1_000)
                .map(|id| {
                    observed(
                        (sequence << 32) | (id + 1),
                        "veth1",
                        Reporter::Client,
                        "10.1.0.5:4",
                        "10.1.1.7:5",
                    )
                })
                .collect();
            message(&batch("node-a", sequence, records, &[]))
        })
        .collect();
    let config = Config {
        names: names(),
        chunk_rows: 80_000.try_into().unwrap(),
        chunk_time: Duration::from_secs(600),
        ..Config::default()
    };
    let summary = ingest(&store, config, batches).await;
    assert_eq!((summary.records, summary.chunks), (80_000, 1));
    assert_eq!(number(&store, "count()", "flows").await, 80_000);
    let parts = "system.parts WHERE database = 'one_block' AND table = 'flows' AND level = 0";
    assert_eq!(number(&store, "count()", parts).await, 1);
}

#[tokio::test]
async fn a_failing_insert_is_retried_until_it_succeeds() {
    let store = store("retried").await;
    let (sender, receiver) = mpsc::channel(1);
    let source = Source::Channel { receiver, topic_id: "run".to_owned(), partitions: 1 };
    let metrics = Metrics::new();
    let config = Config { edge_metrics_max: 1, ..Config::default() };
    let ingest = Ingest::new(config, source, store.clone(), &metrics).unwrap();
    let readiness = Readiness::default();
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(ingest.run(readiness.part("ingest"), shutdown.clone()));
    store.client().query("RENAME TABLE flows TO elsewhere").execute().await.unwrap();
    let record = observed(1, "veth1", Reporter::Client, "10.1.0.5:40000", "8.8.8.8:53");
    sender.send(message(&batch("node-a", 0, vec![record], &[]))).await.unwrap();
    until("the insert fails", || {
        metrics.encode().contains("flowtrail_ingest_insert_failures_total{table=\"flows\"}")
    })
    .await;
    assert_eq!(readiness.waiting_for(), ["ingest"]);
    // Shutdown does not cut short what nobody could read again.
    shutdown.cancel();
    drop(sender);
    store.client().query("RENAME TABLE elsewhere TO flows").execute().await.unwrap();
    assert_eq!(run.await.unwrap().unwrap().records, 1);
    assert_eq!(number(&store, "count()", "flows").await, 1);
    assert!(readiness.waiting_for().is_empty());
    let edge = "flowtrail_edge_connections_total{client_namespace=\"\",client_workload=\"unknown\",\
                server_namespace=\"\",server_workload=\"external\"} 1\n";
    assert!(metrics.encode().contains(edge), "{}", metrics.encode());
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let mut polls = 0;
    while !holds() {
        polls += 1;
        assert!(polls < 3_000, "waited 30 s until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_older_schema_is_refused() {
    let mut store = store("older").await;
    store.clickhouse_database = "never_migrated".to_owned();
    let (_sender, receiver) = mpsc::channel(1);
    let source = Source::Channel { receiver, topic_id: "run".to_owned(), partitions: 1 };
    let ingest = Ingest::new(Config::default(), source, store, &Metrics::new()).unwrap();
    let ready = Readiness::default().part("ingest");
    let error = ingest.run(ready, CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("flowtrail schema apply"), "{error}");
}

#[tokio::test]
async fn a_message_of_a_thousand_days_does_not_stop_ingest() {
    let store = store("days").await;
    let mut batch = batch("node-a", 0, vec![], &[]);
    for day in 0..500 {
        let mut record = observed(day + 1, "veth1", Reporter::Client, "10.1.0.5:4", "8.8.8.8:53");
        let ago_us = day * 86_400_000_000;
        record.interval = IntervalLength::default().interval_at(START_US - ago_us);
        record.first_seen_us -= ago_us;
        record.last_seen_us -= ago_us;
        batch.records.push(record);
    }
    let oldest = batch.records[499].interval;
    batch.coverage.push(Coverage { interval: oldest, ..batch.coverage[0] });
    let summary = ingest(&store, Config::default(), vec![message(&batch)]).await;
    // Eight days and the newest; of the two reports one is of the oldest day.
    assert_eq!((summary.records, summary.coverage_reports, summary.rejected_records), (9, 1, 492));
    assert_eq!(number(&store, "count()", "flows").await, 9);
    assert_eq!(number(&store, "count()", "deliveries").await, 1);
}

/// Something that accepts connections and never answers.
async fn silent_server() -> (tokio::net::TcpListener, ClickHouseArgs) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, ClickHouseArgs::at(url))
}

#[tokio::test]
async fn a_store_that_does_not_answer_does_not_hold_up_a_shutdown() {
    let (listener, store) = silent_server().await;
    let (_sender, receiver) = mpsc::channel(1);
    let source = Source::Channel { receiver, topic_id: "run".to_owned(), partitions: 1 };
    let ingest = Ingest::new(Config::default(), source, store, &Metrics::new()).unwrap();
    let shutdown = CancellationToken::new();
    let ready = Readiness::default().part("ingest");
    let run = tokio::spawn(ingest.run(ready, shutdown.clone()));
    let _asked = listener.accept().await.unwrap();
    shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), run).await;
    assert_eq!(ended.expect("it ends").unwrap().unwrap(), Summary::default());
}
