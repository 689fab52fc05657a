//! Names across restarts and replicas, through the tables of a real engine; and names that come live.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowtrail_ingest::{Config, Ingest, Source};
use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::row::{EntityKind, IdentitiesSeenRow, IdentityRow};
use flowtrail_schema::{FlowRecord, Reporter};
use flowtrail_service::admin::Readiness;
use flowtrail_service::metrics::Metrics;
use flowtrail_service::store::ClickHouseArgs;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::common::*;
use crate::kubernetes::{Api, pod};
use crate::pipeline::until;

/// A running ingest that reads a channel.
struct Running {
    sender: mpsc::Sender<flowtrail_schema::topic::Message>,
    run: JoinHandle<()>,
    metrics: Metrics,
    sequence: u64,
}

impl Running {
    async fn start(store: &ClickHouseArgs, config: Config, cluster: Option<kube::Client>) -> Self {
        let (sender, receiver) = mpsc::channel(16);
        let source = Source::Channel { receiver, topic_id: run_id(), partitions: 1 };
        let metrics = Metrics::new();
        let mut ingest = Ingest::new(config, source, store.clone(), &metrics).unwrap();
        if let Some(cluster) = cluster {
            ingest = ingest.with_kubernetes(cluster);
        }
        let readiness = Readiness::default();
        let part = readiness.part("ingest");
        let run = tokio::spawn(async move {
            ingest.run(part, CancellationToken::new()).await.unwrap();
        });
        until("ingest is ready", || readiness.waiting_for().is_empty()).await;
        Self { sender, run, metrics, sequence: 0 }
    }

    async fn send(&mut self, records: Vec<FlowRecord>) {
        let batch = batch("node-a", self.sequence, records, &[]);
        self.sequence += 1;
        self.sender.send(message(&batch)).await.unwrap();
    }

    /// Ends it when all is written.
    async fn end(self) -> Metrics {
        drop(self.sender);
        self.run.await.unwrap();
        self.metrics
    }
}

/// Another log each time.
fn run_id() -> String {
    now_us().to_string()
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// A connection between two addresses whose packets were seen at an instant.
fn seen_at(id: u64, client: &str, server: &str, instant_us: u64) -> FlowRecord {
    FlowRecord {
        interval: IntervalLength::default().interval_at(instant_us),
        first_seen_us: instant_us,
        last_seen_us: instant_us,
        ..observed(id << 32 | 1, "veth1", Reporter::Client, client, server)
    }
}

/// Which connection has which server.
async fn servers(store: &ClickHouseArgs) -> Vec<String> {
    let named = "SELECT concat(toString(bitShiftRight(connection_id, 32)), ' ', toString(server_kind), \
         if(server_name = '', '', concat(' ', server_name)), if(server_workload = '', '', concat(' of ', server_workload)), \
         if(server_uncertain, ' uncertain', '')) AS text FROM flows ORDER BY connection_id, interval_start";
    texts(store, named).await
}

fn names_file(directory: &tempfile::TempDir, pods: &[Value]) -> Config {
    let path = directory.path().join("names.json");
    std::fs::write(&path, json!({"kind": "List", "items": pods}).to_string()).unwrap();
    Config { names: Some(path), ..Config::default() }
}

#[tokio::test]
async fn what_an_earlier_run_knew_names_the_records_of_its_time() {
    let store = store("names_restored").await;
    let directory = tempfile::tempdir().unwrap();
    let mut web = pod("web-1-a", "10.1.0.5");
    web["metadata"]["ownerReferences"] =
        json!([{"kind": "ReplicaSet", "name": "web-1", "uid": "r1", "controller": true}]);
    let replica_set = json!({"kind": "ReplicaSet", "metadata": {"name": "web-1", "namespace": "shop", "uid": "r1",
        "ownerReferences": [{"kind": "Deployment", "name": "web", "uid": "d", "controller": true}]}});
    let config = names_file(&directory, &[web, replica_set, pod("stays", "10.1.0.6")]);
    let first = Running::start(&store, config, None).await;
    let known_us = now_us();
    assert!(first.end().await.encode().contains("flowtrail_ingest_names_stored_total 2"));

    // The pod and its ReplicaSet are gone, and its address is another's.
    let mut later = pod("later", "10.1.0.5");
    let hour = 3_600_000_000;
    later["status"]["startTime"] = json!("2100-01-01T00:00:00Z");
    let config = names_file(&directory, &[later, pod("stays", "10.1.0.6")]);
    let mut second = Running::start(&store, config, None).await;
    let client = "10.1.0.6:40000";
    second.send(vec![seen_at(1, client, "10.1.0.5:80", known_us - hour)]).await;
    second.send(vec![seen_at(2, client, "10.1.0.5:80", now_us() + hour)]).await;
    second.send(vec![seen_at(3, "10.1.0.5:40000", "10.1.0.6:80", now_us() + hour)]).await;
    let metrics = second.end().await.encode();
    assert_eq!(
        servers(&store).await,
        ["1 pod web-1-a of web", "2 unknown", "3 pod stays of stays"]
    );
    for expected in [
        "names_restored_total 2",
        "names_ends_total{kind=\"pod\"} 4",
        "names_ends_total{kind=\"unknown\"} 2",
        "names_joins_total{outcome=\"miss\"} 3",
    ] {
        assert!(metrics.contains(expected), "{expected}: {metrics}");
    }
    let ended = "SELECT toString((name, released >= last_seen, released > 0, deleted > 0)) AS text \
         FROM identities FINAL ORDER BY name";
    assert_eq!(
        texts(&store, ended).await,
        ["('later',0,0,0)", "('stays',0,0,0)", "('web-1-a',1,1,0)"]
    );
}

/// What one replica says of a pod's address, times in seconds before `now_us`; 0 for none.
fn told(
    now_us: u64,
    ip: &str,
    name: &str,
    [start, seen, released, deleted]: [u64; 4],
) -> IdentityRow {
    let at = |ago: u64| if ago == 0 { 0 } else { (now_us - ago * 1_000_000) as i64 };
    IdentityRow {
        address: ip.parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped(),
        port: 0,
        uid: format!("uid-of-{ip}"),
        kind: EntityKind::Pod.number(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        node: "n".to_owned(),
        workload: format!("{name}-set"),
        workload_kind: "StatefulSet".to_owned(),
        ports: vec![80],
        start: at(start),
        last_seen: at(seen),
        released: at(released),
        deleted: at(deleted),
    }
}

async fn insert<R: clickhouse::RowOwned + clickhouse::RowWrite>(
    store: &ClickHouseArgs,
    table: &str,
    row: R,
) {
    let mut insert = store.client().insert::<R>(table).await.unwrap();
    insert.write(&row).await.unwrap();
    insert.end().await.unwrap();
}

#[tokio::test]
async fn what_replicas_say_merges_to_the_widest_interval_and_ends_once() {
    let store = store("names_merged").await;
    let now_us = now_us();
    let day = 86_400;
    let rows = [
        // One replica saw it go and another did not, yet: whoever writes last.
        told(now_us, "10.9.0.1", "deleted", [300, 100, 0, 0]),
        told(now_us, "10.9.0.1", "deleted", [300, 150, 0, 150]),
        told(now_us, "10.9.0.2", "deleted", [300, 150, 0, 150]),
        told(now_us, "10.9.0.2", "deleted", [300, 100, 0, 0]),
        // Found missing, and seen to be deleted by the other.
        told(now_us, "10.9.0.3", "missing", [300, 200, 120, 0]),
        told(now_us, "10.9.0.3", "missing", [300, 150, 0, 150]),
        // Given up, and held again.
        told(now_us, "10.9.0.4", "again", [300, 200, 200, 0]),
        told(now_us, "10.9.0.4", "again", [300, 100, 0, 0]),
        // Found missing, by one that was away for longer.
        told(now_us, "10.9.0.5", "gone", [300, 200, 100, 0]),
        told(now_us, "10.9.0.5", "gone", [280, 150, 0, 0]),
        told(now_us, "10.9.0.6", "long ago", [20 * day, 9 * day, 0, 0]),
    ];
    for row in rows {
        insert(&store, "identities", row).await;
    }
    let seen = IdentitiesSeenRow {
        kind: EntityKind::Pod.number(),
        last_seen: (now_us - 50_000_000) as i64,
    };
    insert(&store, "identities_seen", seen).await;
    let lookups = [
        ("10.9.0.1", 160, "pod deleted of deleted-set"),
        ("10.9.0.1", 140, "unknown"),
        ("10.9.0.2", 160, "pod deleted of deleted-set"),
        ("10.9.0.2", 140, "unknown"),
        ("10.9.0.3", 180, "pod missing of missing-set"),
        ("10.9.0.3", 140, "unknown"),
        ("10.9.0.4", 110, "pod again of again-set"),
        ("10.9.0.4", 60, "pod again of again-set"),
        ("10.9.0.4", 40, "pod again of again-set uncertain"),
        ("10.9.0.5", 290, "pod gone of gone-set"),
        ("10.9.0.5", 120, "pod gone of gone-set uncertain"),
        ("10.9.0.5", 90, "unknown"),
        ("10.9.0.6", 10 * day, "unknown"),
        ("10.9.0.7", 1, "external office"),
    ];
    let cidr_names = vec!["office=10.9.0.7/32".parse().unwrap()];
    let mut running =
        Running::start(&store, Config { cidr_names, ..Config::default() }, None).await;
    let mut expected = Vec::new();
    for (number, (address, ago, is)) in (1..).zip(lookups) {
        let instant_us = now_us - ago * 1_000_000;
        running
            .send(vec![seen_at(number, "8.8.8.8:4", &format!("{address}:80"), instant_us)])
            .await;
        expected.push(format!("{number} {is}"));
    }
    let metrics = running.end().await.encode();
    assert_eq!(servers(&store).await, expected);
    assert!(metrics.contains("names_ends_total{kind=\"cidr\"} 1"), "{metrics}");
    assert!(metrics.contains("names_restored_total 5"), "{metrics}");
}

#[tokio::test]
async fn records_do_not_wait_for_the_table_of_identities() {
    let store = store("names_unwritten").await;
    let api = Api::default();
    api.with(|state| state.pods = vec![pod("a", "10.1.0.1").to_string()]);
    let mut running = Running::start(&store, Config::default(), Some(api.client().await)).await;
    store.client().query("RENAME TABLE identities TO elsewhere").execute().await.unwrap();
    until("the pods are watched", || api.with(|state| state.watches.len() == 1)).await;
    api.send("ADDED", pod("b", "10.1.0.2"));
    let metrics = running.metrics.clone();
    let failed = || metrics.encode().contains("flowtrail_ingest_names_store_failures_total 1");
    until("a write fails", failed).await;
    running.send(vec![seen_at(1, "10.1.0.1:4", "10.1.0.2:80", now_us())]).await;
    let inserted = || metrics.encode().contains("ingest_rows_total{table=\"flows\"} 1");
    until("the record is inserted", inserted).await;
    assert_eq!(servers(&store).await, ["1 pod b of b"]);
    store.client().query("RENAME TABLE elsewhere TO identities").execute().await.unwrap();
    running.end().await;
    let kept = "SELECT name AS text FROM identities FINAL ORDER BY name";
    assert_eq!(texts(&store, kept).await, ["a", "b"]);
    let seen = "SELECT toString(kind) AS text FROM identities_seen FINAL WHERE last_seen > now() - 60 ORDER BY kind";
    assert_eq!(texts(&store, seen).await, ["pod", "service", "node"]);
}

#[tokio::test]
async fn a_new_pod_is_named_although_the_news_of_it_comes_after_its_packets() {
    let store = store("names_live").await;
    let api = Api::default();
    api.with(|state| state.pods = vec![pod("a", "10.1.0.1").to_string()]);
    let config = Config { chunk_time: Duration::from_millis(50), ..Config::default() };
    let mut running = Running::start(&store, config, Some(api.client().await)).await;
    until("the pods are watched", || api.with(|state| state.watches.len() == 1)).await;
    let begun = Instant::now();
    running.send(vec![seen_at(1, "10.1.0.1:4", "10.1.0.2:80", now_us())]).await;
    // That the event comes this much later is what is tested.
    tokio::time::sleep(Duration::from_millis(500)).await;
    api.send("ADDED", pod("b", "10.1.0.2"));
    let metrics = running.metrics.clone();
    let inserted = || metrics.encode().contains("ingest_rows_total{table=\"flows\"} 1");
    until("the record is inserted", inserted).await;
    let took = begun.elapsed();
    assert_eq!(servers(&store).await, ["1 pod b of b"]);
    assert!(took < Duration::from_secs(2), "{took:?}");
    let waited = "ingest_names_waits_total{outcome=\"known\"} 1";
    assert!(metrics.encode().contains(waited), "{}", metrics.encode());
    running.end().await;
}
