//! One engine for the tests of a program, a database and a served port for each test.

use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use clickhouse::{Row, RowWrite};
use flowtrail_embedded::{Engine, serve};
use flowtrail_query::{Config, Graph, Problem, Query};
use flowtrail_schema::row::{CoverageRow, EntityKind, FlowRow};
use flowtrail_schema::{Detail, IdKind, InterfaceKind, Reporter};
use flowtrail_service::admin::Readiness;
use flowtrail_service::metrics::Metrics;
use flowtrail_service::store::ClickHouseArgs;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A minute's start.
pub(crate) const T0: u32 = 1_700_000_040;

/// Runs what the tests share, for as long as the program runs.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

// Shared with other programs of tests.
#[path = "../../../schema/tests/support/keeperless.rs"]
mod keeperless;
use keeperless::{configure, keeperless};

/// Serves the engine for [`engine_url`] until its standard input ends.
#[test]
#[ignore = "the engine's process, started by the other tests"]
fn engine() {
    let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("query-{}", env!("CARGO_CRATE_NAME")));
    let _ = std::fs::remove_dir_all(&data);
    configure(&data);
    let clickhouse_listen = (Ipv4Addr::LOCALHOST, 0).into();
    let config = flowtrail_embedded::Config { engine: None, data: Some(data), clickhouse_listen };
    let engine = Engine::open(&config).unwrap_or_else(|error| panic!("{error}"));
    runtime().block_on(async move {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        println!("{ENGINE_AT}http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let orphaned = shutdown.clone();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            orphaned.cancel();
        });
        serve(engine, listener, &Metrics::new(), shutdown).await;
    });
    // Nobody is left to read that this test passed.
    std::process::exit(0);
}

const ENGINE_AT: &str = "engine at ";

/// The engine of this program's tests. It has a process of its own, so that it is stopped in order
/// although a test program just exits.
fn engine_url() -> &'static str {
    static ENGINE: OnceLock<(String, Child)> = OnceLock::new();
    let start = || {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["common::engine", "--exact", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let url = lines
            .map_while(Result::ok)
            .find_map(|line| line.split_once(ENGINE_AT).map(|(_, url)| url.to_owned()));
        (url.expect("the engine started: it says above why not"), child)
    };
    &ENGINE.get_or_init(start).0
}

/// A database of its own in the engine; without tables.
pub(crate) fn empty_store(database: &str) -> ClickHouseArgs {
    let mut store = ClickHouseArgs::at(engine_url().to_owned());
    database.clone_into(&mut store.clickhouse_database);
    store
}

/// The service on a database of its own, with the tables.
pub(crate) struct Served {
    pub(crate) store: ClickHouseArgs,
    pub(crate) url: String,
    /// Headers that every request has.
    pub(crate) headers: Vec<(&'static str, String)>,
}

pub(crate) fn config() -> Config {
    Config { listen: (Ipv4Addr::LOCALHOST, 0).into(), ..Config::default() }
}

pub(crate) fn served(database: &str) -> Served {
    served_as(database, config())
}

pub(crate) fn served_as(database: &str, config: Config) -> Served {
    let store = empty_store(database);
    runtime().block_on(async { store.migrate().await.unwrap() });
    serve_store(store, config)
}

/// The service on the tables of a cluster, which are the engine's own.
pub(crate) fn served_on_cluster(cluster: &str, database: &str) -> Served {
    let store = empty_store(database);
    let server = clickhouse::Client::default().with_url(&store.clickhouse_url);
    runtime().block_on(async {
        for (number, statement) in keeperless(cluster, database).iter().enumerate() {
            // The first makes the database.
            let client = if number == 0 { &server } else { &store.client() };
            client.query_raw(statement).execute().await.unwrap();
        }
    });
    serve_store(store, config())
}

/// Takes all that flows tells, of which that stores less.
const FLOWS_GIVEN: &str = "CREATE TABLE flows_given ENGINE = Null EMPTY AS
     SELECT * EXCEPT('^(first_offset|active)_us$|_rest_us$|_seen_(ip|port)$|_header_bytes$') FROM flows
     SETTINGS asterisk_include_alias_columns = 1";

fn serve_store(store: ClickHouseArgs, config: Config) -> Served {
    let url = runtime().block_on(async {
        store.keep_forever().await.unwrap();
        for statement in [FLOWS_GIVEN, include_str!("given.sql")] {
            store.client().query_raw(statement).execute().await.unwrap();
        }
        let (metrics, readiness) = (Metrics::new(), Readiness::default());
        let query = Query::new(config, store.clone(), metrics, readiness).unwrap();
        let listener = query.listen().await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { query.run(listener, CancellationToken::new()).await.unwrap() });
        url
    });
    Served { store, url, headers: Vec::new() }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// The values of a header, separated by commas; empty without it.
    pub(crate) fn header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter().map(|value| value.to_str().unwrap());
        values.collect::<Vec<_>>().join(", ")
    }
}

impl Served {
    pub(crate) fn get(&self, path: &str, pairs: &[(&str, &str)]) -> Answer {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let request = ureq::Agent::new_with_config(config).get(format!("{}{path}", self.url));
        let mut request = request.query_pairs(pairs.iter().copied());
        // What was inserted a moment ago counts, unless a test asks as dashboards do.
        if !self.headers.iter().any(|(name, _)| *name == "cache-control") {
            request = request.header("cache-control", "no-cache");
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let mut response = request.call().unwrap();
        let content_type = response.headers().get("content-type");
        Answer {
            status: response.status().as_u16(),
            content_type: content_type.map_or("", |value| value.to_str().unwrap()).to_owned(),
            headers: response.headers().clone(),
            body: response.body_mut().read_to_string().unwrap(),
        }
    }

    /// The graph of `[from, to)`, seconds.
    pub(crate) fn graph(&self, from: u32, to: u32, pairs: &[(&str, &str)]) -> Graph {
        let (from, to) = (format!("{from}000"), format!("{to}000"));
        let window = [("from", from.as_str()), ("to", to.as_str())];
        let answer = self.get("/api/v1/graph", &[&window, pairs].concat());
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    pub(crate) fn problem(&self, path: &str, pairs: &[(&str, &str)]) -> Problem {
        let answer = self.get(path, pairs);
        assert_eq!(answer.content_type, "application/problem+json", "{}", answer.body);
        let problem: Problem = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(problem.status, answer.status);
        problem
    }

    pub(crate) fn insert<T>(&self, table: &str, rows: &[T])
    where
        T: for<'a> Row<Value<'a> = T> + RowWrite,
    {
        runtime().block_on(async {
            let table = if table == "flows" { "flows_given" } else { table };
            let mut insert = self.store.client().insert::<T>(table).await.unwrap();
            for row in rows {
                insert.write(row).await.unwrap();
            }
            insert.end().await.unwrap();
        });
    }
}

fn ip(last: u8) -> std::net::Ipv6Addr {
    Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped()
}

/// A primary row of a connection from pod `web-1` of Deployment `web` to pod `db-0` of StatefulSet
/// `db` through the Service `db`, all in namespace `shop`, in the interval of 10 s at `start`.
pub(crate) fn row(start: u32, connection_id: u64) -> FlowRow {
    let text = |text: &str| text.to_owned();
    FlowRow {
        interval_start: start,
        interval_s: 10,
        first_seen: i64::from(start) * 1_000_000 + 1_000,
        last_seen: i64::from(start) * 1_000_000 + 9_000_000,
        node: text("n1"),
        agent: text("n1"),
        interface: text("veth1"),
        interface_kind: InterfaceKind::Pod.number(),
        reporter: Reporter::Client.number(),
        local_primary: true,
        primary: true,
        detail: Detail::Flow.number(),
        connection_id,
        id_kind: IdKind::Complete.number(),
        handshake_seen: true,
        one_sided: false,
        direction_inferred: false,
        age_us: 0,
        client_ip: ip(1),
        client_port: 40_000,
        client_kind: EntityKind::Pod.number(),
        client_namespace: text("shop"),
        client_name: text("web-1"),
        client_workload: text("web"),
        client_workload_kind: text("Deployment"),
        client_node: text("n1"),
        client_uncertain: false,
        client_real_ip: ip(1),
        client_real_port: 40_000,
        server_ip: ip(200),
        server_port: 80,
        server_kind: EntityKind::Pod.number(),
        server_namespace: text("shop"),
        server_name: text("db-0"),
        server_workload: text("db"),
        server_workload_kind: text("StatefulSet"),
        server_node: text("n2"),
        server_uncertain: false,
        server_real_ip: ip(2),
        server_real_port: 5_432,
        service_namespace: text("shop"),
        service_name: text("db"),
        sent_bytes: 100,
        sent_payload_bytes: 60,
        sent_packets: 2,
        sent_retransmitted_packets: 0,
        sent_zero_window_packets: 0,
        received_bytes: 1_000,
        received_payload_bytes: 900,
        received_packets: 3,
        received_retransmitted_packets: 1,
        received_zero_window_packets: 0,
        opened: 0,
        joined: 0,
        open_at_start: 0,
        closed_fin: 0,
        closed_reset_by_client: 0,
        closed_reset_by_server: 0,
        closed_refused: 0,
        closed_unanswered: 0,
        closed_idle: 0,
        closed_superseded: 0,
        closed_evicted: 0,
        syn_to_synack_us: 0,
        syn_to_synack_count: 0,
        syn_to_synack_max_us: 0,
        synack_to_ack_us: 0,
        synack_to_ack_count: 0,
        synack_to_ack_max_us: 0,
        first_response_us: 0,
        first_response_count: 0,
        first_response_max_us: 0,
        duration_us: 0,
        duration_count: 0,
        duration_max_us: 0,
        partition: 0,
        chunk_start: 0,
        topic_id: String::new(),
    }
}

/// An agent's report on the interval of 10 s at `start`.
pub(crate) fn report(agent: &str, start: u32) -> CoverageRow {
    CoverageRow {
        interval_start: start,
        interval_s: 10,
        node: agent.to_owned(),
        agent: agent.to_owned(),
        agent_start: 0,
        interfaces: 1,
        packets_seen: 100,
        packets_dropped: 1,
        flows_evicted: 0,
        records_emitted: 10,
        records_dropped: 2,
        announced_addresses: Vec::new(),
        partition: 0,
        chunk_start: 0,
        topic_id: String::new(),
    }
}
