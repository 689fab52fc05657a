//! The distributed shape: an agent on each of two nodes → a real Apache Kafka broker → ingest →
//! ClickHouse → query, as processes of their own. Needs root, Java 17 and Maven: `make test-kafka`.

use std::path::Path;
use std::time::Duration;

use flowtrail_e2e::broker::Broker;
use flowtrail_e2e::cluster::Cluster;
use flowtrail_e2e::flowtrail::{Process, free_address, get};
use flowtrail_e2e::relay;
use flowtrail_e2e::scenario::{Scenario, flowtrail_beside, write_names};
use flowtrail_e2e::store::Store;

const READY: Duration = Duration::from_secs(60);
/// The dropped attempts are given up 10 s after their last SYN.
const TRAFFIC: Duration = Duration::from_secs(16);
const PARTITIONS: i32 = 4;

#[test]
#[ignore = "needs Apache Kafka: make test-kafka"]
fn two_agents_one_truth() {
    let demo = Path::new(env!("CARGO_BIN_EXE_flowtrail-demo"));
    let flowtrail = flowtrail_beside(demo).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let log = |name: &str| directory.path().join(format!("{name}.log"));

    let broker = Broker::start(directory.path()).unwrap();
    broker.create_topic(flowtrail_schema::topic::FLOWS_TOPIC, PARTITIONS).unwrap();
    let store = Store::start(directory.path()).unwrap();
    let (brokers, clickhouse) = (broker.address().to_string(), store.url());

    let words = ["schema", "apply", "--clickhouse-url", &clickhouse];
    let mut apply = Process::start(&flowtrail, words, None, log("schema")).unwrap();
    assert!(apply.wait(READY).unwrap().success(), "{}", apply.output());

    let cluster = Cluster::new("flowtrail-kafka-test").unwrap();
    let names = write_names(&cluster, directory.path()).unwrap().display().to_string();
    let admin = free_address().unwrap();
    let words = [
        "ingest",
        "--kafka-brokers",
        &brokers,
        "--clickhouse-url",
        &clickhouse,
        "--names",
        &names,
        "--admin-listen",
        &admin.to_string(),
    ];
    let mut ingest = Process::start(&flowtrail, words, None, log("ingest")).unwrap();
    ingest.wait_ready(admin, READY).unwrap();

    let listen = free_address().unwrap();
    let words = ["query", "--clickhouse-url", &clickhouse, "--listen", &listen.to_string()];
    let mut query = Process::start(&flowtrail, words, None, log("query")).unwrap();
    query.wait_ready(listen, READY).unwrap();

    let mut agents: Vec<Process> = [&cluster.node_a, &cluster.node_b]
        .into_iter()
        .map(|node| {
            // The broker is outside the node's namespace: a door in, and one out to ask if ready.
            let (inside, admin) = (Some(&node.namespace), free_address().unwrap());
            relay::open((inside, broker.address()), (None, broker.address())).unwrap();
            relay::open((None, admin), (inside, admin)).unwrap();
            let admin_text = admin.to_string();
            let words = [
                "capture",
                "--node",
                &node.name,
                "--kafka-brokers",
                &brokers,
                "--admin-listen",
                &admin_text,
            ];
            let log = log(&node.name);
            let mut agent = Process::start(&flowtrail, words, Some(&node.namespace), log).unwrap();
            agent.wait_ready(admin, READY).unwrap();
            agent
        })
        .collect();

    let mut scenario = Scenario::start(&cluster, demo).unwrap();
    std::thread::sleep(TRAFFIC);
    let truths = scenario.stop_asking().unwrap();
    if let Err(error) = scenario.judge(listen, &mut query, &truths) {
        panic!("{error:#}\n{}\n{}", ingest.output(), agents[0].output());
    }

    let metrics = get(&format!("http://{admin}/metrics")).unwrap();
    assert!(metrics.contains("flowtrail_"), "{metrics}");
    // How long after its end an interval's rows can be seen, reports alone aside. Said, not asserted.
    let latency = "SELECT count(), quantile(0.5)(s), max(s) FROM (SELECT dateDiff('millisecond', \
                   toDateTime64(max_interval_start, 3, 'UTC') + INTERVAL 10 SECOND, inserted_at) / 1000 AS s \
                   FROM flowtrail.deliveries WHERE records > 0)";
    println!("chunks, seconds to rows (median, longest): {}", store.ask(latency).unwrap());
    drop(scenario);
    for agent in agents.drain(..) {
        agent.stop().unwrap();
    }
    ingest.stop().unwrap();
    query.stop().unwrap();
}
