use std::collections::BTreeMap;

use flowtrail_service::metrics::Metrics;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;

use super::*;

const LETTERS: &str = "letters";
const LONG: Duration = Duration::from_secs(60);

fn to(brokers: String, topic: &str, property: &[(&str, &str)]) -> (DeadLetters, Metrics) {
    let metrics = Metrics::new();
    let counted = IngestMetrics::register(&metrics);
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let kafka = KafkaArgs {
        kafka_topic: "flows".to_owned(),
        kafka_property: property.iter().map(owned).collect(),
        ..KafkaArgs::at(brokers)
    };
    (DeadLetters::to(topic, &kafka, &counted).unwrap(), metrics)
}

fn envelope(payload: Vec<u8>) -> Envelope {
    Envelope { partition: 3, offset: 42, time_ms: Some(1_700_000_000_000), payload: payload.into() }
}

fn letters(brokers: &str, expected: usize) -> Vec<(Vec<u8>, BTreeMap<String, String>)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "reader")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(LETTERS, 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    (0..expected)
        .map(|_| {
            let message = consumer.poll(LONG).unwrap().unwrap();
            let headers = message.headers().unwrap().iter().map(|header| {
                let value = String::from_utf8(header.value.unwrap().to_vec()).unwrap();
                (header.key.to_owned(), value)
            });
            (message.payload().unwrap().to_vec(), headers.collect())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_the_message_and_says_where_it_is_from() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(LETTERS, 1, 1).unwrap();
    let (dead_letters, metrics) = to(cluster.bootstrap_servers(), LETTERS, &[]);
    let reasons = ["b", "a", "b"].map(str::to_owned);
    dead_letters.send(&envelope(b"garbage".to_vec()), &reasons);
    dead_letters.send(&envelope(vec![7; MAX_VALUE_BYTES + 1]), &reasons[..1]);
    dead_letters.flush(LONG).await;
    assert!(metrics.encode().contains("dead_letters_total{outcome=\"delivered\"} 2"));

    let read = letters(&cluster.bootstrap_servers(), 2);
    let (value, headers) = &read[0];
    assert_eq!(value, b"garbage");
    let expected = [
        ("reason", "a; b"),
        ("topic", "flows"),
        ("partition", "3"),
        ("offset", "42"),
        ("time", "1700000000000"),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(*headers, BTreeMap::from(expected));
    let (value, headers) = &read[1];
    assert_eq!(value.len(), MAX_VALUE_BYTES);
    assert_eq!(headers["original_bytes"], (MAX_VALUE_BYTES + 1).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_waited_for_once_and_its_letters_arrive_later() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(LETTERS, 1, 1).unwrap();
    cluster.broker_down(1).unwrap();
    let quick = [("reconnect.backoff.max.ms", "100")];
    let (dead_letters, metrics) = to(cluster.bootstrap_servers(), LETTERS, &quick);
    dead_letters.send(&envelope(b"garbage".to_vec()), &[]);
    dead_letters.flush(Duration::from_millis(10)).await;
    // Would wait an hour if it waited.
    let hour = Duration::from_secs(3_600);
    tokio::time::timeout(LONG, dead_letters.flush(hour)).await.unwrap();
    assert!(!metrics.encode().contains("dead_letters_total{"));

    cluster.broker_up(1).unwrap();
    let fates = dead_letters.publisher.as_ref().unwrap().producer.context();
    while fates.in_flight.load(Ordering::SeqCst) > 0 {
        let _ = tokio::time::timeout(LONG, fates.progress.notified()).await;
    }
    assert!(metrics.encode().contains("dead_letters_total{outcome=\"delivered\"} 1"));
    assert!(!fates.failing.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_find_no_room_are_counted() {
    let nowhere = "127.0.0.1:1".to_owned();
    let (dead_letters, metrics) = to(nowhere, LETTERS, &[]);
    let capacity: usize = MAX_QUEUED_KIB.parse::<usize>().unwrap() * 1024 / MAX_VALUE_BYTES;
    for _ in 0..capacity + 5 {
        dead_letters.send(&envelope(vec![0; MAX_VALUE_BYTES]), &[]);
    }
    let encoded = metrics.encode();
    let line = encoded.lines().find(|line| line.contains("dead_letters_total{outcome=\"failed\"}"));
    let failed: usize = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((1..=5).contains(&failed), "{failed}");
}

#[tokio::test]
async fn without_a_topic_there_are_none() {
    let (dead_letters, _) = to("127.0.0.1:1".to_owned(), "", &[]);
    assert!(dead_letters.publisher.is_none());
    dead_letters.send(&envelope(vec![]), &[]);
    dead_letters.flush(LONG).await;
}
