//! The metrics of edges against the rows that they are of.

use flowtrail_ingest::{Config, Ingest, Source};
use flowtrail_schema::topic::Message;
use flowtrail_schema::{Detail, Measure, Reporter};
use flowtrail_service::admin::Readiness;
use flowtrail_service::metrics::Metrics;
use flowtrail_service::store::ClickHouseArgs;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::common::*;

/// Every sample of the table's rows, as `/metrics` has it.
const EXPECTED: &str = "WITH sum(sent_bytes) AS sent, sum(received_bytes) AS received, \
     sum(opened + joined) AS connections, sum(closed_refused + closed_unanswered) AS failed, \
     sum(duration_us) / 1e6 AS duration, sum(duration_count) AS durations, \
     concat('client_namespace=\"', client_namespace, '\",client_workload=\"', \
     if(client_workload = '', toString(client_kind), client_workload), '\",server_namespace=\"', server_namespace, \
     '\",server_workload=\"', if(server_workload = '', toString(server_kind), server_workload), '\"') AS edge \
     SELECT arrayJoin([\
     concat('bytes_total{', edge, ',direction=\"sent\"} ', toString(sent)), \
     concat('bytes_total{', edge, ',direction=\"received\"} ', toString(received)), \
     concat('connections_total{', edge, '} ', toString(connections)), \
     concat('connections_failed_total{', edge, '} ', toString(failed)), \
     concat('duration_seconds_sum{', edge, '} ', toString(duration)), \
     concat('duration_seconds_count{', edge, '} ', toString(durations)), \
     concat('duration_seconds_bucket{le=\"+Inf\",', edge, '} ', toString(durations))]) AS text \
     FROM flows WHERE primary GROUP BY edge ORDER BY text";

async fn metrics_of(store: &ClickHouseArgs, max: u32, messages: Vec<Message>) -> Vec<String> {
    let (sender, receiver) = mpsc::channel(messages.len().max(1));
    for message in messages {
        sender.send(message).await.unwrap();
    }
    drop(sender);
    let config = Config {
        names: Some(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ingest/names.json").into()),
        edge_metrics_max: max,
        chunk_rows: 2.try_into().unwrap(),
        ..Config::default()
    };
    let source = Source::Channel { receiver, topic_id: "run".to_owned(), partitions: 1 };
    let metrics = Metrics::new();
    let ingest = Ingest::new(config, source, store.clone(), &metrics).unwrap();
    let ready = Readiness::default().part("ingest");
    ingest.run(ready, CancellationToken::new()).await.unwrap();
    let text = metrics.encode();
    let samples = text.lines().filter_map(|line| line.strip_prefix("flowtrail_edge_"));
    let mut samples: Vec<_> = samples.map(str::to_owned).collect();
    samples.sort();
    samples
}

fn messages() -> Vec<Message> {
    let (web, db, service) = ("10.1.0.5:40000", "10.1.1.7:5432", "10.96.0.10:5432");
    let seen = |id, client, server| observed(id, "veth1", Reporter::Client, client, server);
    let mut refused = seen(3, web, service);
    refused.closed.refused = 1;
    let mut bridge = seen(1, web, db);
    bridge.local_primary = false;
    let mut summary = seen(4, web, "8.8.8.8:53");
    (summary.detail, summary.opened) = (Detail::Summary, 20);
    summary.duration = Measure { sum_us: 3_250_000, count: 19, max_us: 1_000_000 };
    let first = batch("node-a", 0, vec![seen(1, web, service), bridge], &["10.1.0.5"]);
    let second = batch("node-a", 1, vec![refused, summary, seen(5, web, "9.9.9.9:443")], &[]);
    let third = batch("node-a", 2, vec![seen(6, db, "8.8.4.4:443")], &[]);
    // One comes twice.
    [&first, &second, &second, &third].map(message).into()
}

#[tokio::test]
async fn series_of_edges_are_what_the_table_sums_to() {
    let store = store("edge_metrics").await;
    let samples = metrics_of(&store, 10, messages()).await;
    let (other, edges): (Vec<_>, Vec<_>) =
        samples.into_iter().partition(|sample| sample.contains("\"other\""));
    let expected = texts(&store, EXPECTED).await;
    assert_eq!((edges.len(), other.len()), (3 * 7, 7), "{edges:?}");
    assert_eq!(edges, expected);
    assert!(other.iter().all(|sample| sample.ends_with("} 0") || sample.ends_with("} 0.0")));
    // Another process finds all of it in the tables.
    assert_eq!(metrics_of(&store, 10, messages()).await, other);
}

#[tokio::test]
async fn what_is_beyond_the_cap_is_in_other() {
    let store = store("edge_metrics_cap").await;
    let samples = metrics_of(&store, 1, messages()).await;
    assert_eq!(samples.len(), 2 * 7, "{samples:?}");
    let connections = samples.iter().filter(|sample| sample.starts_with("connections_total{"));
    let counted = connections.map(|sample| sample.split_once("} ").unwrap().1);
    let counted: u64 = counted.map(|value| value.parse::<u64>().unwrap()).sum();
    assert_eq!(counted, number(&store, "sum(opened + joined)", "flows WHERE primary").await);
    assert!(samples.iter().any(|sample| sample.contains("\"other\"") && !sample.contains("} 0")));
}
