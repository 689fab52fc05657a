//! What Kafka says of the topic: its id and partitions, what is there of each, and where it was left.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc;
use tracing::warn;

use super::topic_id::topic_id;
use super::{Notice, Rebalances, blocking};
use crate::source::{Offered, Topic};

/// How long Kafka is waited for before that is said and tried again.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked whether the topic is still the same and has as many partitions.
const TOPIC_CHECK: Duration = Duration::from_secs(30);

/// Says when the topic is no longer the one it was, or has more partitions.
pub(super) async fn watch_topic(
    consumer: Weak<StreamConsumer<Rebalances>>,
    mut known: Topic,
    notices: mpsc::UnboundedSender<Notice>,
) {
    loop {
        tokio::time::sleep(TOPIC_CHECK).await;
        let (weak, name) = (Weak::clone(&consumer), known.name.clone());
        let described = blocking(move || weak.upgrade().map(|consumer| describe(&consumer, name)));
        match described.await {
            Some(Ok(topic)) if topic != known => {
                warn!(was = ?known, is = ?topic, "the topic has changed");
                known = topic;
                let _ = notices.send(Notice::TopicChanged);
            }
            // Without an answer nothing is known to have changed.
            Some(_) => {}
            None => return,
        }
    }
}

/// The topic with its id and number of partitions. A broker that knows no ids has the cluster's with
/// the name. Blocks.
pub(super) fn describe(
    consumer: &StreamConsumer<Rebalances>,
    name: String,
) -> Result<Topic, String> {
    let metadata = consumer
        .fetch_metadata(Some(&name), METADATA_TIMEOUT)
        .map_err(|error| error.to_string())?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    let partitions = topic.map_or(0, |topic| topic.partitions().len());
    if partitions == 0 {
        let error = topic.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
        return Err(error.map_or_else(|| "no such topic".to_owned(), |code| code.to_string()));
    }
    let partitions = partitions.try_into().unwrap_or(u32::MAX);
    let id = match topic_id(consumer.client(), &name, METADATA_TIMEOUT) {
        Some(id) => id,
        None => {
            let cluster = consumer.client().fetch_cluster_id(METADATA_TIMEOUT);
            format!("{}/{name}", cluster.ok_or("no answer from the controller")?)
        }
    };
    Ok(Topic { id: id.into(), name, partitions })
}

/// Blocks.
pub(super) fn offered(
    consumer: &StreamConsumer<Rebalances>,
    name: &str,
    list: TopicPartitionList,
) -> KafkaResult<BTreeMap<u32, Offered>> {
    let committed = consumer.committed_offsets(list, METADATA_TIMEOUT)?;
    let mut offered = BTreeMap::new();
    for element in committed.elements() {
        element.error()?;
        let (low, high) = consumer.fetch_watermarks(name, element.partition(), METADATA_TIMEOUT)?;
        let committed = match element.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        };
        let number = |offset: i64| u64::try_from(offset).unwrap_or(0);
        offered.insert(
            element.partition().try_into().unwrap_or(0),
            Offered {
                committed: committed.map(|offset| (offset, element.metadata().parse().ok())),
                low: number(low),
                high: number(high),
            },
        );
    }
    Ok(offered)
}

/// Partitions of a topic, each with its offset if it has one.
pub(super) fn list(
    topic: &str,
    partitions: impl Iterator<Item = (u32, Option<u64>)>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        let mut element = list.add_partition(topic, partition);
        if let Some(offset) = offset {
            // An offset has a number, so this cannot fail.
            let _ = element.set_offset(at(offset));
        }
    }
    list
}

pub(super) fn numbers(list: &TopicPartitionList) -> Vec<u32> {
    list.elements().iter().filter_map(|element| element.partition().try_into().ok()).collect()
}

pub(super) fn at(offset: u64) -> Offset {
    Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX))
}
