//! From a Kafka topic (librdkafka's mock cluster) to rows in a real engine, and back to commits.

use std::time::Duration;

use flowtrail_ingest::{Config, Ingest, KafkaSourceArgs, Source, Summary};
use flowtrail_schema::Reporter;
use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::topic::{DEAD_LETTER_TOPIC, FLOWS_TOPIC};
use flowtrail_service::admin::Readiness;
use flowtrail_service::kafka::KafkaArgs;
use flowtrail_service::metrics::Metrics;
use flowtrail_service::store::ClickHouseArgs;
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::common::*;

fn source(brokers: &str) -> Source {
    let kafka = KafkaArgs {
        // The mock cluster lets a group's next member in when the last one's session is over, and its
        // first after 3 s.
        kafka_property: vec![
            ("session.timeout.ms".to_owned(), "5000".to_owned()),
            ("heartbeat.interval.ms".to_owned(), "500".to_owned()),
        ],
        ..KafkaArgs::at(brokers.to_owned())
    };
    let consumer = KafkaSourceArgs {
        group: "ingest-test".to_owned(),
        dead_letter_topic: DEAD_LETTER_TOPIC.to_owned(),
    };
    Source::Kafka { kafka, consumer }
}

pub(crate) fn start(
    brokers: &str,
    store: &ClickHouseArgs,
) -> (JoinHandle<Summary>, CancellationToken) {
    let config = Config { chunk_time: Duration::from_millis(100), ..Config::default() };
    let ingest = Ingest::new(config, source(brokers), store.clone(), &Metrics::new()).unwrap();
    let shutdown = CancellationToken::new();
    let run = ingest.run(Readiness::default().part("ingest"), shutdown.clone());
    (tokio::spawn(async move { run.await.unwrap() }), shutdown)
}

pub(crate) async fn produce(producer: &FutureProducer, partition: u32, sequence: u64) {
    let record = observed(sequence + 1, "veth1", Reporter::Client, "10.1.0.5:40000", "8.8.8.8:53");
    let mut batch = batch("node-a", sequence, vec![record], &["10.1.0.5"]);
    batch.partition = partition;
    publish(producer, partition, &message(&batch).payload).await;
}

async fn publish(producer: &FutureProducer, partition: u32, payload: &[u8]) {
    let to = FutureRecord::<(), _>::to(FLOWS_TOPIC)
        .partition(partition as i32)
        .timestamp((START_US / 1_000) as i64)
        .payload(payload);
    producer.send(to, Duration::from_secs(10)).await.unwrap();
}

pub(crate) async fn rows_are(store: &ClickHouseArgs, expected: u64) {
    for _ in 0..1_500 {
        if number(store, "count()", "deliveries").await > 0
            && number(store, "count()", "flows").await >= expected
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(number(store, "count()", "flows").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_tables_is_committed_and_not_read_again() {
    let store = store("kafka").await;
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(FLOWS_TOPIC, 2, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers).set("group.id", "ingest-test");
    let producer: FutureProducer = config.create().unwrap();

    produce(&producer, 0, 0).await;
    produce(&producer, 1, 0).await;
    produce(&producer, 1, 1).await;
    let (run, shutdown) = start(&brokers, &store);
    rows_are(&store, 3).await;
    shutdown.cancel();
    let summary = run.await.unwrap();
    // Only one of the two partitions writes the agent's coverage.
    let reports = number(&store, "count()", "coverage").await;
    assert!(reports == 1 || reports == 2);
    assert_eq!(number(&store, "uniqExact(partition)", "coverage").await, 1);
    assert_eq!((summary.records, summary.coverage_reports), (3, reports));
    assert_eq!(committed(&config), [Offset::Offset(1), Offset::Offset(2)]);

    produce(&producer, 0, 1).await;
    let (run, shutdown) = start(&brokers, &store);
    rows_are(&store, 4).await;
    shutdown.cancel();
    assert_eq!(run.await.unwrap().messages, 1);
    assert_eq!(committed(&config), [Offset::Offset(2), Offset::Offset(2)]);
}

fn committed(config: &ClientConfig) -> Vec<Offset> {
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_range(FLOWS_TOPIC, 0, 1);
    let offsets = consumer.committed_offsets(list, Duration::from_secs(10)).unwrap();
    offsets.elements().iter().map(|element| element.offset()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_that_waits_for_kafka_can_be_shut_down() {
    let store = store("kafka_away").await;
    // A port that was free a moment ago: nobody answers.
    let brokers =
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (run, shutdown) = start(&brokers, &store);
    shutdown.cancel();
    assert_eq!(run.await.unwrap(), Summary::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_whose_kafka_went_away_can_be_shut_down() {
    let store = store("kafka_gone").await;
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(FLOWS_TOPIC, 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers);
    let producer: FutureProducer = config.create().unwrap();
    produce(&producer, 0, 0).await;
    let (run, shutdown) = start(&brokers, &store);
    rows_are(&store, 1).await;
    drop((producer, cluster));
    shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(25), run).await;
    assert_eq!(ended.expect("within Kubernetes' grace period").unwrap().records, 1);
}

/// Everything in the only partition of the dead-letter topic.
fn dead_letters(brokers: &str) -> Vec<Vec<u8>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "people");
    let consumer: BaseConsumer = config.create().unwrap();
    let timeout = Duration::from_secs(10);
    let (low, high) = consumer.fetch_watermarks(DEAD_LETTER_TOPIC, 0, timeout).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(DEAD_LETTER_TOPIC, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let next = |_| consumer.poll(timeout).unwrap().unwrap().payload().unwrap().to_vec();
    (low..high).map(next).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rejected_is_in_the_dead_letter_topic_once_its_chunk_is_done() {
    let store = store("dead_letters").await;
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(FLOWS_TOPIC, 1, 1).unwrap();
    cluster.create_topic(DEAD_LETTER_TOPIC, 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers);
    let producer: FutureProducer = config.create().unwrap();

    let good = observed(1, "veth1", Reporter::Client, "10.1.0.5:40000", "8.8.8.8:53");
    let mut ahead = observed(2, "veth1", Reporter::Client, "10.1.0.5:40001", "8.8.8.8:53");
    let two_days_us = 2 * 86_400_000_000;
    ahead.interval = IntervalLength::default().interval_at(START_US + two_days_us);
    ahead.first_seen_us += two_days_us;
    ahead.last_seen_us += two_days_us;
    let mixed = message(&batch("node-a", 0, vec![good, ahead], &[])).payload;
    publish(&producer, 0, b"garbage").await;
    publish(&producer, 0, &mixed).await;
    let (run, shutdown) = start(&brokers, &store);
    rows_are(&store, 1).await;
    let letters = dead_letters(&brokers);
    shutdown.cancel();
    let summary = run.await.unwrap();
    assert_eq!((summary.records, summary.rejected_messages, summary.rejected_records), (1, 1, 1));
    assert_eq!(letters, [&b"garbage"[..], &mixed]);
    let reasons = "SELECT arrayJoin(rejected.reason) AS text FROM deliveries ORDER BY text";
    let expected = ["interval after its message", "not a FlowBatch"];
    assert_eq!(texts(&store, reasons).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_dead_letter_topic_does_not_hold_up_good_data() {
    let store = store("no_dead_letters").await;
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(FLOWS_TOPIC, 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers);
    let producer: FutureProducer = config.create().unwrap();
    publish(&producer, 0, b"garbage").await;
    produce(&producer, 0, 0).await;
    let (run, shutdown) = start(&brokers, &store);
    rows_are(&store, 1).await;
    shutdown.cancel();
    assert_eq!(run.await.unwrap().rejected_messages, 1);
}
