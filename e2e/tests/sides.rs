//! Both sides, one connection: two nodes with an agent each, every way that a connection may take between
//! them, and one edge for each, with what the programs and the kernel counted; also with one of the
//! agents away, or started anew. Needs root, Java 17 and Maven: `make test-kafka`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is the failing assertion, in helpers too"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chrono::DateTime;
use flowtrail_e2e::broker::Broker;
use flowtrail_e2e::cluster::{Cluster, HTTP_PORT, OUTSIDE_PORT, PodPlan, ServiceSpec};
use flowtrail_e2e::expectation::differences;
use flowtrail_e2e::flowtrail::{Process, free_address, get};
use flowtrail_e2e::lab::Node;
use flowtrail_e2e::relay;
use flowtrail_e2e::scenario::{Scenario, flowtrail_beside, write_names};
use flowtrail_e2e::store::Store;
use flowtrail_e2e::traffic::{Outcome, Traffic, Truth};
use serde_json::Value;

const READY: Duration = Duration::from_secs(60);
/// From a packet to its row: an interval of a second, the cut, the spread, the chunk; and a busy machine.
const VISIBLE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;
/// Long enough for some intervals, and some ten connections of each client.
const TRAFFIC: Duration = Duration::from_secs(3);
/// Seconds of reports of all agents, after which nothing more is on its way: the spread is two.
const SETTLED_S: i64 = 4;

const PODS: &[PodPlan] = &[
    (1, "shop", "here", Some(HTTP_PORT)),
    (2, "data", "there", Some(HTTP_PORT)),
    (1, "apps", "near", None),
    (1, "apps", "far", None),
    (1, "apps", "near-by-service", None),
    (1, "apps", "far-by-service", None),
    (1, "apps", "outward", None),
    (2, "apps", "backward", None),
    (1, "apps", "steady", None),
];

const HERE: ServiceSpec =
    ServiceSpec { node_port: Some(30_080), ..ServiceSpec::of("shop", "here", 10, 80, HTTP_PORT) };
const THERE: ServiceSpec =
    ServiceSpec { node_port: Some(30_090), ..ServiceSpec::of("data", "there", 20, 80, HTTP_PORT) };

const OUTSIDE: (&str, &str) = ("", "203.0.113.10");
const NODE_A: (&str, &str) = ("", "node-a");

const fn traffic(
    name: &'static str,
    client: (&'static str, &'static str),
    server: (&'static str, &'static str),
) -> Traffic {
    Traffic {
        name,
        client,
        server,
        service: None,
        by_node_port: false,
        flags: &["--request", "300", "--response", "5000", "--pause-ms", "150"],
        port: HTTP_PORT,
        outcome: Outcome::Closed,
    }
}

const fn by_service(traffic: Traffic) -> Traffic {
    Traffic { service: Some(traffic.server.1), ..traffic }
}

const fn by_node_port(traffic: Traffic) -> Traffic {
    Traffic { by_node_port: true, ..by_service(traffic) }
}

/// Every way, each with ends of its own.
const WAYS: &[Traffic] = &[
    traffic("near", ("apps", "near"), ("shop", "here")),
    traffic("far", ("apps", "far"), ("data", "there")),
    by_service(traffic("near-service", ("apps", "near-by-service"), ("shop", "here"))),
    by_service(traffic("far-service", ("apps", "far-by-service"), ("data", "there"))),
    by_service(traffic("back-service", ("apps", "backward"), ("shop", "here"))),
    by_service(traffic("own-service", ("shop", "here"), ("shop", "here"))),
    Traffic { port: OUTSIDE_PORT, ..traffic("outward", ("apps", "outward"), OUTSIDE) },
    by_node_port(traffic("node-port-here", OUTSIDE, ("shop", "here"))),
    by_node_port(traffic("node-port-there", OUTSIDE, ("data", "there"))),
    traffic("node-near", NODE_A, ("shop", "here")),
    traffic("node-far", NODE_A, ("data", "there")),
];

/// The ways between the nodes that the server's alone can tell of: not what comes by a NodePort of
/// the other one, which hides who it is.
const TO_THERE: &[Traffic] = &[WAYS[1], WAYS[3], WAYS[10]];

/// Two connections that stay open, to either node.
const STEADY: &[Traffic] = &[
    Traffic {
        flags: &["--keep-open", "--request", "700", "--response", "1200", "--pause-ms", "100"],
        outcome: Outcome::StaysOpen,
        ..by_service(traffic("steady-far", ("apps", "steady"), ("data", "there")))
    },
    Traffic {
        flags: &["--keep-open", "--request", "700", "--response", "1200", "--pause-ms", "100"],
        outcome: Outcome::StaysOpen,
        ..by_service(traffic("steady-near", ("apps", "steady"), ("shop", "here")))
    },
];

/// The whole of it. Dropped from the first to the last.
struct Deployment {
    agents: [Option<Process>; 2],
    ingest: Process,
    _query: Process,
    listen: SocketAddr,
    admins: [SocketAddr; 2],
    cluster: Cluster,
    store: Store,
    broker: Broker,
    flowtrail: PathBuf,
    demo: PathBuf,
    directory: tempfile::TempDir,
}

impl Deployment {
    fn new() -> Self {
        let demo = PathBuf::from(env!("CARGO_BIN_EXE_flowtrail-demo"));
        let flowtrail = flowtrail_beside(&demo).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let log = |name: &str| directory.path().join(format!("{name}.log"));
        let broker = Broker::start(directory.path()).unwrap();
        broker.create_topic(flowtrail_schema::topic::FLOWS_TOPIC, PARTITIONS).unwrap();
        let store = Store::start(directory.path()).unwrap();
        let (brokers, clickhouse) = (broker.address().to_string(), store.url());

        let words = ["schema", "apply", "--clickhouse-url", &clickhouse];
        let mut apply = Process::start(&flowtrail, words, None, log("schema")).unwrap();
        assert!(apply.wait(READY).unwrap().success(), "{}", apply.output());

        let cluster = Cluster::of("flowtrail-sides-test", PODS, &[HERE, THERE]).unwrap();
        let names = write_names(&cluster, directory.path()).unwrap().display().to_string();
        let (admin, listen) = (free_address().unwrap(), free_address().unwrap());
        let (admin_text, listen_text) = (admin.to_string(), listen.to_string());
        let words = ["ingest", "--kafka-brokers", &brokers, "--clickhouse-url", &clickhouse];
        let words = words.into_iter().chain(["--names", &names, "--admin-listen", &admin_text]);
        let mut ingest = Process::start(&flowtrail, words, None, log("ingest")).unwrap();
        ingest.wait_ready(admin, READY).unwrap();
        let words = ["query", "--clickhouse-url", &clickhouse, "--listen", &listen_text];
        let mut query = Process::start(&flowtrail, words, None, log("query")).unwrap();
        query.wait_ready(listen, READY).unwrap();

        let admins = cluster.nodes().map(|node| {
            // The broker is outside the node's namespace: a door in, and one out to ask if ready.
            let (inside, admin) = (Some(&node.namespace), free_address().unwrap());
            relay::open((inside, broker.address()), (None, broker.address())).unwrap();
            relay::open((None, admin), (inside, admin)).unwrap();
            admin
        });
        let agents = [None, None];
        let mut all = Self {
            agents,
            ingest,
            _query: query,
            listen,
            admins,
            cluster,
            store,
            broker,
            flowtrail,
            demo,
            directory,
        };
        all.start(0);
        all.start(1);
        all
    }

    fn node(&self, agent: usize) -> &Node {
        self.cluster.nodes()[agent]
    }

    /// Starts an agent, with the connections that it had when it was stopped.
    fn start(&mut self, agent: usize) {
        let (node, admin) = (self.node(agent).clone(), self.admins[agent]);
        let state = self.directory.path().join(format!("{}.state", node.name));
        let (brokers, admin_text) = (self.broker.address().to_string(), admin.to_string());
        let words = ["capture", "--interval=1s", "--node", &node.name, "--kafka-brokers", &brokers];
        let state = state.display().to_string();
        let words = words.into_iter().chain(["--admin-listen", &admin_text, "--state-dir", &state]);
        let log = self.directory.path().join(format!("{}.log", node.name));
        let mut process =
            Process::start(&self.flowtrail, words, Some(&node.namespace), log).unwrap();
        process.wait_ready(admin, READY).unwrap();
        self.agents[agent] = Some(process);
    }

    fn stop(&mut self, agent: usize) {
        self.agents[agent].take().unwrap().stop().unwrap();
    }

    /// Stops an agent, and waits until the leases of what it announced have run out: three intervals
    /// from its last, and one for the clock's fraction.
    fn stop_for_good(&mut self, agent: usize) {
        self.stop(agent);
        self.wait_reported(chrono::Utc::now().timestamp() + 4);
    }

    fn ask(&self, sql: &str) -> String {
        self.store.ask(sql).unwrap()
    }

    /// Waits until a query answers with something that will do.
    fn wait(&mut self, what: &str, sql: &str, will_do: impl Fn(&str) -> bool) {
        let Self { ingest, store, agents, .. } = self;
        let waited =
            ingest.wait_until(what, VISIBLE, || store.ask(sql).is_ok_and(|it| will_do(&it)));
        if let Err(error) = waited {
            let agents = agents.iter().flatten().map(Process::output).collect::<String>();
            panic!("{error:#}\n{sql}: {:?}\n{agents}", store.ask(sql));
        }
    }

    /// Waits until all agents that run have reported on everything until a time, in seconds.
    fn wait_reported(&mut self, until_s: i64) {
        for agent in 0..self.agents.len() {
            if self.agents[agent].is_some() {
                let agent = &self.node(agent).name;
                let sql = format!(
                    "SELECT toUnixTimestamp(max(interval_start)) FROM coverage WHERE agent = '{agent}'"
                );
                self.wait(&format!("done until {until_s}"), &sql, |newest| {
                    newest.parse::<i64>().is_ok_and(|newest_s| newest_s >= until_s)
                });
            }
        }
    }

    fn begin(&self, ways: &[Traffic]) -> Scenario {
        Scenario::of(&self.cluster, &self.demo, ways).unwrap()
    }

    /// The graph of what programs did, once nothing of it is on its way any more.
    fn graph(&mut self, scenario: &Scenario) -> Value {
        let [_, (_, to)] = scenario.window();
        self.wait_reported(DateTime::parse_from_rfc3339(&to).unwrap().timestamp() + SETTLED_S);
        serde_json::from_str(&get(&scenario.url(self.listen)).unwrap()).unwrap()
    }

    /// Lets programs talk for a while, and compares the graph with what happened.
    fn judge(&mut self, what: &str, ways: &[Traffic], change: impl Fn(&mut Truth)) {
        let mut scenario = self.begin(ways);
        std::thread::sleep(TRAFFIC);
        let mut truths = scenario.stop_asking().unwrap();
        truths.iter_mut().for_each(change);
        let graph = self.graph(&scenario);
        let differences = differences(&graph, &truths);
        assert!(differences.is_empty(), "{what}:\n  {}\n{}", differences.join("\n  "), self.rows());
        for truth in &truths {
            assert!(truth.transferred.connections > 5, "{what}: {truth:?}");
        }
        drop(scenario);
        // Programs that end may send a last packet: it is of this window, or of none.
        self.wait_reported(chrono::Utc::now().timestamp() + 1);
    }

    /// The latest rows, for a failure's message.
    fn rows(&self) -> String {
        self.ask(
            "SELECT interval_start, agent, interface, reporter, local_primary, primary, id_kind, \
             hex(connection_id), client_ip, client_port, client_name, server_ip, server_port, server_name, \
             service_name, opened, joined FROM flows WHERE opened + joined > 0 \
             ORDER BY interval_start DESC, connection_id LIMIT 40 FORMAT TSV",
        )
    }
}

#[test]
#[ignore = "needs Apache Kafka: make test-kafka"]
fn every_connection_is_one_edge_from_whichever_side() {
    let mut all = Deployment::new();

    // Until a node's address is announced, what it masquerades may count from the other side, where
    // it is the node's.
    let warm = all.begin(WAYS);
    let own = all.node(0).ip;
    let announced =
        format!("SELECT countIf(has(announced_addresses, toIPv6('::ffff:{own}'))) FROM coverage");
    all.wait("announcing the node's address", &announced, |count| count != "0");
    drop(warm);
    all.wait_reported(chrono::Utc::now().timestamp() + 1);

    all.judge("both agents", WAYS, |_| ());
    let conflicts = "SELECT count() FROM flows WHERE id_kind = 'tuple_hash'";
    assert_eq!(all.ask(conflicts), "0", "{}", all.rows());

    an_agent_that_starts_anew_changes_no_count(&mut all);

    all.stop_for_good(0);
    // Only the client's side shows the Service.
    all.judge("the server's agent alone", TO_THERE, |truth| truth.traffic.service = None);

    all.start(0);
    all.stop_for_good(1);
    all.judge("the client's agent alone", WAYS, |truth| {
        if truth.traffic.client.1 == "backward" {
            truth.traffic.service = None;
        }
    });

    // Whatever happened: one observation of a connection counts, at most.
    let twice = "SELECT count() FROM (SELECT connection_id FROM flows WHERE primary GROUP BY connection_id \
                 HAVING uniqExact(agent, interface, client_port, server_port) > 1)";
    assert_eq!(all.ask(twice), "0", "{}", all.rows());
    every_interval_is_reported(&mut all);
}

fn an_agent_that_starts_anew_changes_no_count(all: &mut Deployment) {
    let mut steady = all.begin(STEADY);
    let opened = "SELECT uniqExact(connection_id) FROM flows WHERE primary AND opened > 0 \
                  AND client_workload = 'steady'";
    all.wait("telling of the connections", opened, |count| count == "2");
    all.stop(0);
    all.start(0);
    std::thread::sleep(TRAFFIC);
    let truths = steady.stop_asking().unwrap();
    let graph = all.graph(&steady);
    let edges = graph["edges"].as_array().unwrap();
    assert_eq!(edges.len(), truths.len(), "{graph:#}");
    for edge in edges {
        let count = |field: &str| edge[field].as_u64().unwrap();
        assert_eq!((count("connections"), count("opened"), count("joined")), (1, 1, 0), "{edge:#}");
        let mut closed = edge["closed"].as_object().unwrap().values();
        assert!(closed.all(|count| *count == 0), "{edge:#}");
    }
    let close =
        "SELECT countIf(closed_fin > 0) FROM flows WHERE primary AND client_workload = 'steady'";
    drop(steady);
    all.wait("telling of their end", close, |count| count == "2");
}

/// Each agent's reports follow each other without a gap or a repetition, from each start to its stop.
fn every_interval_is_reported(all: &mut Deployment) {
    all.wait_reported(chrono::Utc::now().timestamp());
    let reports = all.ask(
        "SELECT agent, count(), uniqExact(interval_start), \
         toUnixTimestamp(max(interval_start)) - toUnixTimestamp(min(interval_start)) + 1 \
         FROM coverage GROUP BY agent, agent_start ORDER BY agent, agent_start FORMAT TSV",
    );
    let starts: Vec<Vec<&str>> = reports.lines().map(|line| line.split('\t').collect()).collect();
    let agents: Vec<&str> = starts.iter().map(|start| start[0]).collect();
    assert_eq!(agents, ["node-a", "node-a", "node-a", "node-b"]);
    for start in &starts {
        assert!(start[1] == start[2] && start[2] == start[3], "{reports}");
        assert!(start[1].parse::<u32>().unwrap() > 5, "{reports}");
    }
    let dropped = all.ask("SELECT sum(packets_dropped) + sum(records_dropped) FROM coverage");
    assert_eq!(dropped, "0");
}
