//! Batches into Kafka: librdkafka's own mock cluster.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use flowtrail_capture::{Agent, CaptureError, KafkaOutput, Output, OutputError, Summary};
use flowtrail_schema::topic::{FLOWS_TOPIC, partition_of};
use flowtrail_schema::{Detail, FlowBatch, wire};
use flowtrail_service::admin::Readiness;
use flowtrail_service::kafka::KafkaArgs;
use flowtrail_service::metrics::Metrics;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::files::write_pcap;
use crate::live::{count_packets, counted, node_and_pod, sum};
use crate::support::{Namespace, PATIENCE, config, records, wait_until};

const PARTITIONS: i32 = 3;

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(FLOWS_TOPIC, PARTITIONS, 1).unwrap();
    cluster
}

/// Reads a file of so many connections into a topic.
async fn publish(
    brokers: &str,
    topic: &str,
    connections: u16,
    metrics: &Metrics,
    shutdown: CancellationToken,
) -> Result<Summary, CaptureError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.pcap");
    write_pcap(&path, connections);
    let args = KafkaArgs { kafka_topic: topic.to_owned(), ..KafkaArgs::at(brokers.to_owned()) };
    let output = Output::Kafka(KafkaOutput::new(&args, metrics).unwrap());
    let agent = Agent::new(config(&["--read", path.to_str().unwrap()]), output, metrics).unwrap();
    agent.run(Readiness::default().part("capture"), shutdown).await
}

/// Everything in the topic.
fn consume(brokers: &str) -> Vec<FlowBatch> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "test")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    let mut expected = 0;
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(FLOWS_TOPIC, partition, Offset::Beginning).unwrap();
        expected += consumer.fetch_watermarks(FLOWS_TOPIC, partition, PATIENCE).unwrap().1;
    }
    consumer.assign(&assignment).unwrap();
    let mut batches = Vec::new();
    while (batches.len() as i64) < expected {
        let message = consumer.poll(PATIENCE).expect("a message").unwrap();
        assert!(message.key().is_none());
        let batch = wire::decode(message.payload().unwrap()).unwrap().batch;
        assert_eq!(batch.partition, message.partition() as u32);
        batches.push(batch);
    }
    batches
}

#[tokio::test]
async fn every_batch_arrives_once_in_its_partition() {
    let cluster = cluster();
    // A broker that fails and answers late makes the producer retry; no batch may come twice.
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 2],
    );
    cluster.broker_round_trip_time(1, Duration::from_millis(5)).unwrap();
    let brokers = cluster.bootstrap_servers();
    let metrics = Metrics::new();
    let summary =
        publish(&brokers, FLOWS_TOPIC, 100, &metrics, CancellationToken::new()).await.unwrap();

    let batches = consume(&brokers);
    let records = records(&batches);
    assert_eq!(records.len() as u64, summary.records);
    assert_eq!(records.iter().map(|record| record.opened).sum::<u32>(), 100);
    for batch in &batches {
        assert_eq!((&*batch.agent, &*batch.node), ("node-a", "node-a"));
        for record in &batch.records {
            let partition = partition_of(record.connection_id, record.id_kind, PARTITIONS as u32);
            assert_eq!(partition, batch.partition);
        }
    }
    let reports = |partition| {
        let own = batches.iter().filter(move |batch| batch.partition == partition);
        own.map(|batch| batch.coverage.len()).sum::<usize>()
    };
    assert_eq!((reports(0), reports(1), reports(2)), (100, 100, 100));
    let delivered = format!("capture_kafka_messages_delivered_total {}", batches.len());
    assert!(metrics.encode().contains(&delivered), "{}", metrics.encode());
}

#[tokio::test]
async fn a_missing_topic_is_named_with_the_command_that_makes_it() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.topic_error("absent", RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let brokers = cluster.bootstrap_servers();
    let result = publish(&brokers, "absent", 1, &Metrics::new(), CancellationToken::new()).await;
    let error = result.unwrap_err().to_string();
    assert!(error.contains("kafka-topics.sh"), "{error}");
    assert!(error.contains("--topic absent"), "{error}");
}

#[tokio::test]
async fn a_shutdown_ends_the_waiting_for_kafka() {
    let shutdown = CancellationToken::new();
    // Port 1 of this machine: nobody listens.
    let metrics = Metrics::new();
    let waiting = publish("127.0.0.1:1", FLOWS_TOPIC, 1, &metrics, shutdown.clone());
    tokio::pin!(waiting);
    tokio::select! {
        ended = &mut waiting => panic!("{ended:?}"),
        () = tokio::task::yield_now() => shutdown.cancel(),
    }
    assert_eq!(waiting.await.unwrap(), Summary::default());
}

/// Time jumps whenever everything waits, so the bound on the waiting is no time.
#[tokio::test(start_paused = true)]
async fn what_kafka_did_not_take_before_the_end_is_said() {
    let cluster = cluster();
    let metrics = Metrics::new();
    let brokers = cluster.bootstrap_servers();
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 10_000],
    );
    let shutdown = CancellationToken::new();
    let publishing = publish(&brokers, FLOWS_TOPIC, 1, &metrics, shutdown.clone());
    tokio::pin!(publishing);
    let in_flight = async {
        let line = format!("capture_kafka_messages_in_flight {PARTITIONS}");
        while !metrics.encode().contains(&line) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = &mut publishing => panic!("{ended:?}"),
        () = in_flight => shutdown.cancel(),
    }
    match publishing.await {
        Err(CaptureError::Output(OutputError::Undelivered { messages, .. })) => {
            assert_eq!(messages, PARTITIONS as u64);
        }
        other => panic!("{other:?}"),
    }
}

/// Caps that a few hundred connections are too many for; but none is dropped.
const SMALL: &[&str] = &["--max-queued-records", "20", "--max-queued-summaries", "2"];

/// Answers connections until one asks for nothing.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut request = [0; 100];
        let length = stream.read(&mut request).unwrap();
        if length == 0 {
            return;
        }
        stream.write_all(&request).unwrap();
    }
}

/// A live agent that starts before its broker can be reached, and loses it once more later.
struct Outages {
    cluster: Cluster,
    metrics: Arc<Metrics>,
    server: SocketAddr,
    connections: u32,
}

impl Outages {
    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.encode();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// TCP packets that the agent has read.
    fn packets(&self) -> u64 {
        let text = self.metrics.encode();
        let skipped = "flowtrail_capture_packets_skipped_total{";
        let skipped = text.lines().filter(|line| line.starts_with(skipped));
        let skipped = skipped.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
        self.metric("flowtrail_capture_packets_total") - skipped.sum::<u64>()
    }

    fn connect(&mut self) {
        let mut stream = TcpStream::connect(self.server).unwrap();
        stream.write_all(b"who is there?").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        self.connections += 1;
        // No faster than the agent reads, whatever else the machine does: else the kernel's ring would
        // be what overflows. Each connection is more than 8 packets, and the ring takes 200,000.
        let most = 8 * u64::from(self.connections);
        wait_until("the agent keeps up", || self.packets() + 20_000 > most);
    }

    /// Connects until summaries are folded into those of their minutes.
    fn load_until_folded(&mut self) {
        let folded = |outages: &Self| outages.metric("flowtrail_capture_summaries_folded_total");
        let before = folded(self);
        while folded(self) == before {
            self.connect();
        }
    }

    /// Brings the broker back, and goes on connecting until nothing waits any more.
    fn load_until_delivered(&mut self) {
        self.cluster.broker_up(1).unwrap();
        wait_until("all has been delivered", || {
            let waiting = ["records_waiting", "summaries_waiting", "kafka_messages_in_flight"];
            let waiting = waiting.map(|name| self.metric(&format!("flowtrail_capture_{name}")));
            waiting == [0; 3]
        });
        self.connect();
    }

    /// From the thread of the namespace that the agent watches.
    fn run(node: &Namespace, server: SocketAddr) -> (Summary, Vec<FlowBatch>, u32) {
        let cluster = cluster();
        cluster.broker_down(1).unwrap();
        let metrics = Arc::new(Metrics::new());
        let brokers = cluster.bootstrap_servers();
        let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let args = KafkaArgs {
            kafka_property: vec![
                property("queue.buffering.max.messages", "2"),
                property("reconnect.backoff.max.ms", "100"),
            ],
            ..KafkaArgs::at(brokers.clone())
        };
        let (readiness, shutdown) = (Readiness::default(), CancellationToken::new());
        let (ready, stop) = (readiness.part("capture"), shutdown.clone());
        let its_metrics = Arc::clone(&metrics);
        let agent = thread::spawn(move || {
            let output = Output::Kafka(KafkaOutput::new(&args, &its_metrics).unwrap());
            let agent = Agent::new(config(SMALL), output, &its_metrics).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(agent.run(ready, stop))
        });
        wait_until("the agent captures", || readiness.waiting_for().is_empty());

        let mut outages = Self { cluster, metrics, server, connections: 0 };
        outages.load_until_folded();
        outages.load_until_delivered();
        outages.cluster.broker_down(1).unwrap();
        outages.load_until_folded();
        outages.load_until_delivered();
        // One that asks for nothing ends the server.
        TcpStream::connect(server).unwrap().shutdown(std::net::Shutdown::Write).unwrap();
        outages.connections += 1;
        // The broker's outages are what is tested here, not what is still in the ring at a shutdown.
        wait_until("the agent has read everything", || {
            let (sent, received) = (counted(node, "to_server_out"), counted(node, "to_client_in"));
            outages.packets() == sent.0 + received.0
        });
        shutdown.cancel();
        let summary = agent.join().unwrap().unwrap();
        (summary, consume(&brokers), outages.connections)
    }
}

#[test]
fn totals_are_exact_though_the_broker_was_away_at_the_start_and_later() {
    let (node, pod) = node_and_pod("fd00:7::");
    let node = Arc::new(node);
    // For the broker's address to resolve: a host without IPv4 has no 127.0.0.1.
    node.ip("addr add 192.0.2.1/24 dev vethpod");
    count_packets(&node);
    let server: SocketAddr = "[fd00:7::2]:9000".parse().unwrap();
    let listener = pod.spawn(move || TcpListener::bind(server).unwrap()).join().unwrap();
    let served = pod.spawn(move || serve(&listener));
    let inside = Arc::clone(&node);
    let (summary, batches, connections) =
        node.spawn(move || Outages::run(&inside, server)).join().unwrap();
    served.join().unwrap();

    assert_eq!(summary.dropped, 0, "the kernel dropped packets: there is nothing to compare");
    assert_eq!((summary.records_dropped, summary.records_undelivered), (0, 0));
    let records = records(&batches);
    let details: BTreeSet<_> = records.iter().map(|record| record.detail).collect();
    assert!(details.contains(&Detail::Flow) && details.contains(&Detail::MinuteSummary));
    assert_eq!(records.iter().map(|record| record.opened).sum::<u32>(), connections);
    assert!(connections > 100, "{connections}");
    let (sent, received) = (sum(&records, |r| r.sent), sum(&records, |r| r.received));
    assert_eq!((sent.packets, sent.bytes), counted(&node, "to_server_out"));
    assert_eq!((received.packets, received.bytes), counted(&node, "to_client_in"));
}
