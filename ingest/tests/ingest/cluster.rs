//! The schema of a cluster, as far as one engine without Keeper can show it: what is inserted through
//! Distributed tables, what is asked of them, and that ClickHouse takes every statement. And retention.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clickhouse::Client;
use flowtrail_ingest::Config;
use flowtrail_schema::Reporter;
use flowtrail_schema::sql::{Cluster, Form, MIGRATIONS, Retention};
use flowtrail_schema::topic::FLOWS_TOPIC;
use flowtrail_service::store::{ClickHouseArgs, StoreError};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::FutureProducer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::*;
use crate::kafka::{produce, rows_are, start};

#[path = "../../../schema/tests/support/keeperless.rs"]
pub(crate) mod keeperless;

const DAY: Duration = Duration::from_secs(86_400);

/// A database that is laid out for a cluster of this one engine.
async fn on_cluster(cluster: &str, database: &str) -> ClickHouseArgs {
    let store = empty_store(database);
    let server = Client::default().with_url(&store.clickhouse_url);
    for (number, statement) in keeperless::keeperless(cluster, database).iter().enumerate() {
        // The first makes the database.
        let client = if number == 0 { &server } else { &store.client() };
        client.query_raw(statement).execute().await.unwrap();
    }
    store.keep_forever().await.unwrap();
    store
}

/// What was asked for, a text for each piece of a request.
type Asked = Arc<Mutex<Vec<String>>>;

/// A way to the engine that does as if it had the native port by which a shard is reached: the engine is asked
/// to take itself for it.
async fn with_native_port(store: &ClickHouseArgs) -> (ClickHouseArgs, Asked) {
    let engine = store.clickhouse_url.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&engine).await.unwrap();
            tokio::spawn(pass_on(client, server, Arc::clone(&seen)));
        }
    });
    (ClickHouseArgs { clickhouse_url: url, ..store.clone() }, asked)
}

async fn pass_on(client: TcpStream, server: TcpStream, asked: Asked) {
    const REMOTE: &[u8] = b"prefer_localhost_replica=0";
    let ((mut requests, mut answered), (mut answers, mut forward)) =
        (client.into_split(), server.into_split());
    tokio::spawn(async move { tokio::io::copy(&mut answers, &mut answered).await });
    let mut piece = vec![0; 1 << 20];
    while let Ok(length @ 1..) = requests.read(&mut piece).await {
        let bytes = &mut piece[..length];
        if let Some(at) = bytes.windows(REMOTE.len()).position(|text| text == REMOTE) {
            bytes[at + REMOTE.len() - 1] = b'1';
        }
        asked.lock().unwrap().push(String::from_utf8_lossy(bytes).into_owned());
        if forward.write_all(bytes).await.is_err() {
            break;
        }
    }
}

fn messages(numbers: std::ops::Range<u64>) -> Vec<flowtrail_schema::topic::Message> {
    let one = |sequence| {
        let (client, server) = ("10.1.0.5:40000", "10.1.1.7:5432");
        let record = observed(sequence + 1, "veth1", Reporter::Client, client, server);
        message(&batch("node-a", sequence, vec![record], &["10.1.0.5"]))
    };
    numbers.map(one).collect()
}

/// Problems that the audit has with all that these tests insert.
async fn problems(store: &ClickHouseArgs) -> Vec<String> {
    let start_ms = (START_US / 1_000) as i64;
    let report = store.audit(start_ms, start_ms + 10_000).await.unwrap();
    assert!(report.chunks > 0);
    let all = report.checks.iter().flat_map(|check| &check.findings);
    all.map(|finding| format!("{}: {}", finding.place, finding.detail)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_through_distributed_tables_is_there_once() {
    let store = on_cluster("one", "cluster_once").await;
    assert_eq!(store.cluster().await.unwrap().as_deref(), Some("one"));
    let (through, asked) = with_native_port(&store).await;
    let config = Config { chunk_rows: 1.try_into().unwrap(), ..Config::default() };

    let summary = ingest(&through, config.clone(), messages(0..3)).await;
    assert_eq!((summary.chunks, summary.records), (3, 3));
    // The second takes over what the first has left: offsets, and numbers that were seen.
    let again = messages(0..3).into_iter().chain(messages(2..5)).collect();
    let summary = ingest(&through, config, again).await;
    assert_eq!(summary.records, 2);
    for (table, rows) in [("flows", 5), ("flows_local", 5), ("coverage", 5)] {
        assert_eq!(number(&store, "count()", table).await, rows, "{table}");
    }
    for edges in ["edges_1m", "edges_1m_local", "edges_1h"] {
        assert_eq!(number(&store, "sum(records)", edges).await, 5, "{edges}");
    }
    assert_eq!(number(&store, "sum(duplicate_batches)", "deliveries").await, 1);
    assert_eq!(problems(&store).await, [""; 0]);

    let asked = asked.lock().unwrap();
    let inserts: Vec<_> = asked
        .iter()
        .filter(|text| text.contains("flows+FORMAT") || text.contains("flows%60"))
        .collect();
    assert_eq!(inserts.len(), 5);
    for setting in
        ["insert_quorum=auto", "distributed_foreground_insert=1", "load_balancing=in_order"]
    {
        assert!(inserts.iter().all(|insert| insert.contains(setting)), "{inserts:#?}");
    }
}

/// Waits until something holds; the mock of Kafka alone takes 15 s to let a consumer in.
async fn wait(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !holds() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_left_half_done_is_completed_through_distributed_tables() {
    let store = on_cluster("one", "cluster_half").await;
    let (through, asked) = with_native_port(&store).await;
    let run = |statement: &'static str| {
        let client = store.client();
        async move { client.query(statement).execute().await.unwrap() }
    };
    let kafka = MockCluster::new(1).unwrap();
    kafka.create_topic(FLOWS_TOPIC, 1, 1).unwrap();
    let brokers = kafka.bootstrap_servers();
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    produce(&producer, 0, 0).await;

    // The chunk's last table takes nothing, and a view's rows are lost.
    run("ALTER TABLE deliveries_local ADD CONSTRAINT nothing CHECK 0").await;
    let (ingest, shutdown) = start(&brokers, &through);
    let asked_for = |text: &str| asked.lock().unwrap().iter().any(|asked| asked.contains(text));
    wait(|| asked_for("%2Fdeliveries")).await;
    shutdown.cancel();
    ingest.await.unwrap();
    assert_eq!(number(&store, "count()", "flows").await, 1);
    run("TRUNCATE TABLE edges_1m_local").await;
    run("ALTER TABLE deliveries_local DROP CONSTRAINT nothing").await;

    let (ingest, shutdown) = start(&brokers, &through);
    rows_are(&store, 1).await;
    shutdown.cancel();
    ingest.await.unwrap();
    assert_eq!(number(&store, "count()", "deliveries").await, 1);
    assert_eq!(number(&store, "sum(records)", "edges_1h").await, 1);
    assert!(asked_for("clusterAllReplicas('one', system.processes)"));
    assert!(asked_for("ORDER BY connection_id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_question_to_two_shards_is_refused() {
    let store = on_cluster("two", "cluster_two").await;
    let (through, _) = with_native_port(&store).await;
    ingest(&through, Config::default(), messages(0..3)).await;
    ingest(&through, Config::default(), messages(0..4)).await;
    // A chunk goes to one shard, and is read from both, as both are this engine.
    assert_eq!(number(&store, "count()", "flows_local").await, 4);
    assert_eq!(number(&store, "count()", "flows").await, 8);
    assert_eq!(number(&store, "count()", "identities FINAL").await, 0);
    assert!(!problems(&store).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_parses_every_statement_of_a_clusters_schema() {
    let client = empty_store("cluster_parsed").client().with_database("default");
    let parse = |statement: &str| client.query_raw(&format!("EXPLAIN AST ({statement})")).execute();
    let cluster = Cluster::new("main", "flow'trail").unwrap();
    let (database, migrations) = (cluster.create_database(), cluster.schema_migrations());
    let retention = Retention::of_schema();
    let form = Form { cluster: Some(cluster.clone()), retention: retention.clone() };
    // And what steps may be some day.
    let later = [
        "ALTER TABLE flows ADD COLUMN x UInt8 AFTER topic_id, MODIFY SETTING ttl_only_drop_parts = 0",
        "ALTER TABLE edges_1m_view MODIFY QUERY SELECT 1 AS minute FROM flows",
        "DROP TABLE IF EXISTS edges_1m",
        "DROP VIEW edges_1h_view",
    ];
    let later = later.map(str::to_owned);
    let made_by = MIGRATIONS.iter().map(|step| step.statement);
    let mut statements = cluster.forms(&later, made_by.clone()).unwrap().concat();
    let backfill = "INSERT INTO edges_1m (minute) SELECT interval_start FROM flows".to_owned();
    parse(&cluster.forms(&[backfill], made_by).unwrap().concat()[0]).await.unwrap();
    statements.extend([database, migrations]);
    statements.extend(form.steps().unwrap().concat());
    for (table, kept) in retention.tables() {
        statements.extend(form.keep(table, kept.unwrap() * 2).unwrap());
    }
    for statement in &statements {
        parse(statement).await.unwrap_or_else(|error| panic!("{error} in {statement}"));
        let broken = statement.replacen(" ON CLUSTER", " ONN CLUSTER", 1);
        assert!(parse(&broken).await.is_err(), "{broken}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_is_changed_by_applying_again_without_rewriting_rows() {
    let store = empty_store("retention");
    let days = |days: u32| Some(DAY * days);
    let apply = |retention: Retention| {
        let store = store.clone();
        async move { store.apply(&Form { cluster: None, retention }).await }
    };
    let ttl = |table: &'static str| {
        let store = store.clone();
        async move {
            let sql = format!(
                "SELECT create_table_query AS text FROM system.tables WHERE database = currentDatabase() AND name = '{table}'"
            );
            let ddl = texts(&store, &sql).await.remove(0);
            let (_, ttl) = ddl.rsplit_once(" TTL ").unwrap();
            ttl.split(" SETTINGS").next().unwrap().to_owned()
        }
    };
    apply(Retention { flows: days(3), ..Retention::default() }).await.unwrap();
    assert_eq!(ttl("flows").await, "interval_start + toIntervalDay(3)");
    assert_eq!(ttl("edges_1h").await, "start + toIntervalYear(2)");

    let rows = "INSERT INTO flows (interval_start) SELECT now() - number % 60 FROM numbers(1000)";
    store.client().query(rows).execute().await.unwrap();
    // When the rows go, in days from now, and bytes of them that are there.
    let goes = "uniqExact(round((toUnixTimestamp(delete_ttl_info_max) - toUnixTimestamp(now())) / 86400)) + any(round((toUnixTimestamp(delete_ttl_info_max) - toUnixTimestamp(now())) / 86400)) * 10";
    let parts = "system.parts WHERE database = currentDatabase() AND table = 'flows' AND active";
    assert_eq!(number(&store, goes, parts).await, 31);
    let asked = Retention {
        flows: days(20),
        hours: days(800),
        identities: days(30),
        ..Retention::default()
    };
    apply(asked).await.unwrap();
    assert_eq!(ttl("flows").await, "interval_start + toIntervalDay(20)");
    assert_eq!(ttl("edges_1h").await, "start + toIntervalDay(800)");
    assert_eq!(
        ttl("identities").await,
        "toDateTime(greatest(last_seen, released, deleted)) + toIntervalDay(30)"
    );
    assert_eq!(number(&store, goes, parts).await, 201);
    assert_eq!(number(&store, "count()", "flows").await, 1_000);
    let ddl = texts(&store, "SELECT create_table_query AS text FROM system.tables WHERE database = currentDatabase() AND name = 'flows'").await;
    assert!(ddl[0].contains("ttl_only_drop_parts = 1"), "{ddl:?}");

    // What is not said stays; what contradicts what is there is refused before anything is changed.
    apply(Retention::default()).await.unwrap();
    let refused = Retention { minutes: days(19), coverage: days(100), ..Retention::default() };
    let error = apply(refused).await.unwrap_err().to_string();
    assert!(error.contains("--retain-minutes must not be shorter than --retain-flows"), "{error}");
    assert_eq!(ttl("flows").await, "interval_start + toIntervalDay(20)");
    assert_eq!(ttl("coverage").await, "interval_start + toIntervalDay(90)");
    store.keep_forever().await.unwrap();
    apply(Retention { flows: days(5), ..Retention::default() }).await.unwrap();
    assert_eq!(ttl("flows").await, "interval_start + toIntervalDay(5)");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_one_form_are_not_taken_for_those_of_another() {
    let store = empty_store("forms");
    let on = |name: &str| {
        let cluster = Some(Cluster::new(name, "forms").unwrap());
        Form { cluster, retention: Retention::default() }
    };
    let error = store.apply(&on("three")).await.unwrap_err();
    assert!(matches!(error, StoreError::NoCluster { .. }), "{error}");
    assert!(error.to_string().contains("(one, two)"), "{error}");
    store.migrate().await.unwrap();
    let error = store.apply(&on("one")).await.unwrap_err().to_string();
    assert!(error.contains("tables of one server, not of the cluster one"), "{error}");
    assert_eq!(store.cluster().await.unwrap(), None);
}
