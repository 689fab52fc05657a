//! Batches into Kafka: librdkafka's own mock cluster.

use std::time::Duration;

use flowtrail_capture::{Agent, CaptureError, KafkaOutput, Output, OutputError, Summary};
use flowtrail_schema::topic::{FLOWS_TOPIC, partition_of};
use flowtrail_schema::{FlowBatch, wire};
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
use crate::support::{PATIENCE, config, records};

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
    let args = KafkaArgs {
        kafka_brokers: brokers.to_owned(),
        kafka_topic: topic.to_owned(),
        kafka_property: Vec::new(),
    };
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
