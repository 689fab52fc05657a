//! A real broker that is away for a minute under load: everything that was counted arrives in the end,
//! folded, and nothing is lost. Needs root, Java 17 and Maven: `make test-kafka`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is the failing assertion, in helpers too"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use flowtrail_e2e::broker::Broker;
use flowtrail_e2e::flowtrail::{Process, free_address, get};
use flowtrail_e2e::lab::{Lab, Namespace, Pod, run};
use flowtrail_e2e::relay;
use flowtrail_e2e::scenario::flowtrail_beside;
use flowtrail_e2e::workload::Transferred;
use flowtrail_schema::topic::FLOWS_TOPIC;
use flowtrail_schema::{Closed, Counters, Detail, FlowRecord, wire};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

const READY: Duration = Duration::from_secs(60);
const OUTAGE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;
/// Programs that connect, each to a port of its own: so many pairs are in each interval's summaries.
const CLIENTS: u16 = 12;
const FIRST_PORT: u16 = 8_000;

/// Caps that every level but dropping is reached with, and queues behind them that fill up at once.
const SMALL: &[&str] = &[
    "--interval=1s",
    "--max-queued-records=200",
    "--max-queued-summaries=60",
    "--kafka-property=queue.buffering.max.messages=20",
    "--kafka-property=reconnect.backoff.max.ms=500",
];

/// A program with its standard input open; it ends with that.
struct Program(Child);

impl Program {
    fn start(namespace: &Namespace, demo: &Path, words: &[&str]) -> Self {
        let mut command = namespace.command(demo);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// Makes a client stop asking: what it has transferred.
    fn stop_asking(&mut self) -> Transferred {
        self.0.stdin.as_mut().unwrap().write_all(b"stop\n").unwrap();
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn words_of_client(server: &Pod, number: u16) -> [String; 4] {
    let to = SocketAddr::from((server.ip, FIRST_PORT + number)).to_string();
    [
        "call".to_owned(),
        format!("--to={to}"),
        "--pause-ms=20".to_owned(),
        "--response=3000".to_owned(),
    ]
}

/// Counts the TCP packets that leave and enter a namespace.
const COUNTERS: &str = "table ip count {
  counter sent { }
  counter received { }
  chain output { type filter hook output priority 0; ip protocol tcp counter name sent; }
  chain input { type filter hook input priority 0; ip protocol tcp counter name received; }
}";

/// (packets, bytes) of a counter.
fn counted(namespace: &Namespace, counter: &str) -> (u64, u64) {
    let words = ["ip", "netns", "exec", namespace.name(), "nft", "list", "counter", "ip", "count"];
    let text = run(words.into_iter().chain([counter])).unwrap();
    let after = |word| {
        let mut words = text.split_whitespace().skip_while(|other| *other != word);
        words.nth(1).unwrap().parse().unwrap()
    };
    (after("packets"), after("bytes"))
}

fn metric(admin: SocketAddr, name: &str) -> u64 {
    let text = get(&format!("http://{admin}/metrics")).unwrap();
    let name = format!("flowtrail_capture_{name} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name));
    value.unwrap_or_else(|| panic!("no {name}in {text}")).parse().unwrap()
}

/// The records of all batches in the topic, after checking that no sequence number is missing or twice.
fn consume(brokers: &str) -> Vec<FlowRecord> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "t")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    let mut expected = 0;
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(FLOWS_TOPIC, partition, Offset::Beginning).unwrap();
        expected += consumer.fetch_watermarks(FLOWS_TOPIC, partition, READY).unwrap().1;
    }
    consumer.assign(&assignment).unwrap();
    let (mut next, mut records) = (BTreeMap::<u32, u64>::new(), Vec::new());
    for _ in 0..expected {
        let message = consumer.poll(READY).expect("a message").unwrap();
        let decoded = wire::decode(message.payload().unwrap()).unwrap();
        assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
        let next = next.entry(decoded.batch.partition).or_default();
        assert_eq!(decoded.batch.sequence, *next);
        *next += 1;
        records.extend(decoded.batch.records);
    }
    records
}

#[test]
#[ignore = "needs Apache Kafka: make test-kafka"]
fn nothing_is_lost_while_the_broker_is_away() {
    let demo = Path::new(env!("CARGO_BIN_EXE_flowtrail-demo"));
    let flowtrail = flowtrail_beside(demo).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(directory.path()).unwrap();
    broker.create_topic(FLOWS_TOPIC, PARTITIONS).unwrap();
    let brokers = broker.address().to_string();

    let mut lab = Lab::new("flowtrail-outage-test").unwrap();
    let fabric = lab.fabric().unwrap();
    let node = lab.node(&fabric, "node-a", 1).unwrap();
    let server = lab.pod(&node, "server", 10).unwrap();
    let client = lab.pod(&node, "client", 11).unwrap();
    client.namespace.nft(COUNTERS).unwrap();

    let (inside, admin) = (Some(&node.namespace), free_address().unwrap());
    relay::open((inside, broker.address()), (None, broker.address())).unwrap();
    relay::open((None, admin), (inside, admin)).unwrap();
    let admin_text = admin.to_string();
    let words =
        ["capture", "--node=node-a", "--kafka-brokers", &brokers, "--admin-listen", &admin_text];
    let words = words.into_iter().chain(SMALL.iter().copied());
    let log = directory.path().join("agent.log");
    let mut agent = Process::start(&flowtrail, words, inside, log).unwrap();
    agent.wait_ready(admin, READY).unwrap();

    let listen = |number| SocketAddr::from(([0, 0, 0, 0], FIRST_PORT + number)).to_string();
    let _servers: Vec<_> = (0..CLIENTS)
        .map(|number| {
            Program::start(&server.namespace, demo, &["serve", "--listen", &listen(number)])
        })
        .collect();
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let words = words_of_client(&server, number);
            Program::start(&client.namespace, demo, &words.each_ref().map(String::as_str))
        })
        .collect();
    let delivered = || metric(admin, "kafka_messages_delivered_total") > 10;
    agent.wait_until("delivering", READY, delivered).unwrap();

    broker.kill();
    std::thread::sleep(OUTAGE);
    assert!(metric(admin, "summaries_folded_total") > 0, "{}", agent.output());
    broker.start_again().unwrap();
    let waiting =
        || metric(admin, "summaries_waiting") == 0 && metric(admin, "records_waiting") == 0;
    agent.wait_until("done with what waited", READY, waiting).unwrap();

    let done: Vec<_> = clients.iter_mut().map(Program::stop_asking).collect();
    drop(clients);
    let (packets, _) = counted(&client.namespace, "sent");
    let (more, _) = counted(&client.namespace, "received");
    // Both ends of each connection are on pod interfaces, so the agent sees all of it twice. What is
    // still in its ring at a shutdown is not what is tested here.
    let seen = || metric(admin, "packets_total") >= 2 * (packets + more);
    agent.wait_until("seeing the last packet", READY, seen).unwrap();
    assert_eq!(
        (metric(admin, "packets_dropped_total"), metric(admin, "records_dropped_total")),
        (0, 0)
    );
    agent.stop().unwrap();

    let records = consume(&brokers);
    for detail in Detail::ALL {
        assert!(records.iter().any(|record| record.detail == *detail), "no {detail}");
    }
    let ours = |record: &&FlowRecord| record.local_primary && record.client.ip == client.ip;
    let (mut sent, mut received) = (Counters::default(), Counters::default());
    let (mut opened, mut closed) = (0, Closed::default());
    for record in records.iter().filter(ours) {
        sent += record.sent;
        received += record.received;
        opened += u64::from(record.opened);
        closed += record.closed;
    }
    let connections: u64 = done.iter().map(|transferred| transferred.connections).sum();
    // Clients may be quicker than their servers at the start.
    let failed: u64 = done.iter().map(|transferred| transferred.failed).sum();
    assert_eq!(opened, connections + failed);
    let expected = Closed { fin: connections as u32, refused: failed as u32, ..Closed::default() };
    assert_eq!(closed, expected);
    assert_eq!((sent.packets, sent.bytes), counted(&client.namespace, "sent"));
    assert_eq!((received.packets, received.bytes), counted(&client.namespace, "received"));
    assert!(connections > 1_000, "{connections}");
}
