//! The Kafka source: one member of a consumer group, committing only what is in the tables.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use flowtrail_schema::topic::DEAD_LETTER_TOPIC;
use flowtrail_service::kafka::{KafkaArgs, what_to_check};
use flowtrail_service::telemetry::Seldom;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{
    BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::lag::Lag;
use super::{Envelope, Topic};
use crate::error::IngestError;
use crate::metrics::IngestMetrics;

/// How ingest consumes the topic.
#[derive(Args, Clone, Debug)]
pub struct KafkaSourceArgs {
    /// Consumer group: all ingests that share the work have the same.
    #[arg(
        long,
        env = "FLOWTRAIL_GROUP",
        default_value = "flowtrail-ingest",
        value_name = "NAME",
        help_heading = "Kafka"
    )]
    pub group: String,

    /// Topic for what is rejected: undecodable messages, and those with records from impossible times.
    /// Empty for none.
    #[arg(long, env = "FLOWTRAIL_DEAD_LETTER_TOPIC", default_value = DEAD_LETTER_TOPIC, value_name = "NAME", help_heading = "Kafka")]
    pub dead_letter_topic: String,
}

/// How long Kafka is waited for before that is said and tried again.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between attempts when Kafka answers that there is no such topic.
const RETRY: Duration = Duration::from_secs(1);

/// Messages fetched ahead, at most, in KiB over all partitions; librdkafka then stops to fetch.
const MAX_FETCHED_AHEAD_KIB: &str = "32768";

/// While ClickHouse is away a chunk is retried for hours, and the consumer does not poll: that is no
/// reason to leave the group (dead processes are told by their heartbeat). Kafka's largest value, ms.
const MAX_POLL_INTERVAL_MS: &str = "86400000";

pub(crate) struct KafkaFeed {
    consumer: Arc<StreamConsumer<Rebalances>>,
    topic: Topic,
    metrics: IngestMetrics,
    lag: Lag,
    failure_log: Seldom,
}

/// Notes the partitions that the group takes away.
#[derive(Default)]
struct Rebalances {
    revoked: Mutex<Vec<u32>>,
    /// librdkafka tells of every attempt to connect, several a second.
    connection_log: Seldom,
}

impl ClientContext for Rebalances {
    fn error(&self, error: KafkaError, reason: &str) {
        if self.connection_log.is_due() {
            let check = what_to_check(reason);
            warn!(%error, reason, check, "kafka connection failed, will retry");
        }
    }
}

impl ConsumerContext for Rebalances {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Revoke(list) => {
                let partitions: Vec<u32> = list
                    .elements()
                    .iter()
                    .filter_map(|element| element.partition().try_into().ok())
                    .collect();
                info!(?partitions, "partitions given up");
                self.revoked.lock().unwrap_or_else(PoisonError::into_inner).extend(partitions);
            }
            Rebalance::Assign(list) => info!(partitions = list.count(), "partitions assigned"),
            Rebalance::Error(error) => warn!(%error, "rebalance failed"),
        }
    }
}

impl KafkaFeed {
    /// Joins the group once Kafka knows the topic; until then says what is missing and tries again.
    pub(super) async fn open(
        kafka: &KafkaArgs,
        args: &KafkaSourceArgs,
        metrics: &IngestMetrics,
        shutdown: &CancellationToken,
    ) -> Result<Option<Self>, IngestError> {
        let consumer: Arc<StreamConsumer<Rebalances>> = Arc::new(
            configuration(kafka, args)
                .create_with_context(Rebalances::default())
                .map_err(IngestError::KafkaSetup)?,
        );
        loop {
            let (asked, name) = (Arc::clone(&consumer), kafka.kafka_topic.clone());
            match blocking(move || describe(&asked, name)).await {
                Ok(topic) => {
                    consumer.subscribe(&[&topic.name]).map_err(IngestError::KafkaSetup)?;
                    info!(topic = topic.name, partitions = topic.partitions, "consuming");
                    let lag = Lag::watch(&consumer, &topic.name, metrics);
                    let metrics = metrics.clone();
                    return Ok(Some(Self {
                        consumer,
                        topic,
                        metrics,
                        lag,
                        failure_log: Seldom::default(),
                    }));
                }
                Err(problem) => warn!(
                    brokers = kafka.kafka_brokers,
                    topic = kafka.kafka_topic,
                    problem,
                    "kafka does not know the topic yet, trying again; check --kafka-brokers and --kafka-topic"
                ),
            }
            metrics.source_failures.inc();
            // Errors are told to who receives, and there is nothing else to receive yet.
            let tell = async {
                loop {
                    let _ = consumer.recv().await;
                }
            };
            let told = tokio::time::timeout(RETRY, tell);
            if shutdown.run_until_cancelled(told).await.is_none() {
                return Ok(None);
            }
        }
    }

    pub(super) async fn next(&mut self) -> Result<Envelope, IngestError> {
        loop {
            match self.consumer.recv().await {
                Ok(message) => {
                    let payload = Bytes::copy_from_slice(message.payload().unwrap_or_default());
                    // Kafka numbers both from 0.
                    let partition = message.partition().try_into().unwrap_or(0);
                    let offset = message.offset().try_into().unwrap_or(0);
                    let time_ms = message.timestamp().to_millis();
                    let time_ms = time_ms.and_then(|time_ms| time_ms.try_into().ok());
                    self.lag.read(partition, time_ms);
                    return Ok(Envelope { partition, offset, time_ms, payload });
                }
                Err(error @ KafkaError::MessageConsumptionFatal(_)) => {
                    return Err(IngestError::Kafka(error));
                }
                Err(error) => {
                    self.metrics.source_failures.inc();
                    if self.failure_log.is_due() {
                        warn!(%error, "kafka failed, librdkafka retries");
                    }
                }
            }
        }
    }

    pub(super) fn take_revoked(&self) -> Vec<u32> {
        let mut revoked =
            self.consumer.context().revoked.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *revoked)
    }

    /// Commits, waiting for the broker. If that fails the next commit covers it; should there be none,
    /// the messages come again and their rows are told by the token.
    pub(super) async fn commit(&self, partition: u32, offset: u64) {
        let consumer = Arc::clone(&self.consumer);
        let name = self.topic.name.clone();
        let committed = blocking(move || {
            let mut list = TopicPartitionList::with_capacity(1);
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
            list.add_partition_offset(&name, partition, offset)?;
            consumer.commit(&list, CommitMode::Sync)
        });
        if let Err(error) = committed.await {
            self.metrics.commit_failures.inc();
            warn!(partition, offset, %error, "offset not committed, the next commit covers it");
        }
    }

    pub(super) fn topic(&self) -> &Topic {
        &self.topic
    }

    pub(super) async fn close(self) {
        let Self { consumer, lag, .. } = self;
        lag.close().await;
        // The last handle leaves the group, which waits for the broker.
        blocking(move || drop(consumer)).await;
    }
}

fn configuration(kafka: &KafkaArgs, args: &KafkaSourceArgs) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("auto.offset.reset", "earliest")
        .set("queued.max.messages.kbytes", MAX_FETCHED_AHEAD_KIB)
        .set("max.poll.interval.ms", MAX_POLL_INTERVAL_MS);
    for (name, value) in kafka.properties() {
        config.set(name, value);
    }
    // Not for users to change: only what is in the tables is committed.
    config
        .set("group.id", &args.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false");
    config
}

/// The topic with its number of partitions. The id is the cluster's with the name; blocks.
fn describe(consumer: &StreamConsumer<Rebalances>, name: String) -> Result<Topic, String> {
    let metadata = consumer
        .fetch_metadata(Some(&name), METADATA_TIMEOUT)
        .map_err(|error| error.to_string())?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    let partitions = topic.map_or(0, |topic| topic.partitions().len());
    if partitions == 0 {
        let error = topic.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
        return Err(error.map_or_else(|| "no such topic".to_owned(), |code| code.to_string()));
    }
    let cluster = consumer.client().fetch_cluster_id(METADATA_TIMEOUT).unwrap_or_default();
    let partitions = partitions.try_into().unwrap_or(u32::MAX);
    Ok(Topic { id: format!("{cluster}/{name}"), name, partitions })
}

/// Runs what waits for a broker on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
