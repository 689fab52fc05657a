//! The Kafka source: one member of a consumer group. What the group assigns is read from where the
//! pipeline says; a chunk is begun and finished by commits under the group's generation.

mod commits;
mod mark;
mod topic;
mod topic_id;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use flowtrail_schema::topic::DEAD_LETTER_TOPIC;
use flowtrail_service::kafka::{KafkaArgs, what_to_check};
use flowtrail_service::telemetry::Seldom;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::lag::Lag;
use super::{Envelope, Event, Offered, Topic};
use crate::error::IngestError;
use crate::metrics::IngestMetrics;
pub(crate) use commits::KafkaCommits;
pub(crate) use mark::{Mark, Pending};
use topic::{describe, list, numbers, offered, watch_topic};

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

/// Pause between attempts when Kafka does not answer, or answers that there is no such topic.
const RETRY: Duration = Duration::from_secs(1);

/// Messages fetched ahead, at most, in KiB over all partitions; librdkafka then stops to fetch.
const MAX_FETCHED_AHEAD_KIB: &str = "32768";

/// While ClickHouse is away a chunk is retried for hours, and the consumer does not poll: that is no
/// reason to leave the group (dead processes are told by their heartbeat). Kafka's largest value, ms.
const MAX_POLL_INTERVAL_MS: &str = "86400000";

pub(crate) struct KafkaFeed {
    consumer: Arc<StreamConsumer<Rebalances>>,
    notices: mpsc::UnboundedReceiver<Notice>,
    topic: Topic,
    /// What the group gave and the pipeline does not read yet: librdkafka waits for the answer.
    unanswered: Vec<u32>,
    reading: BTreeSet<u32>,
    metrics: IngestMetrics,
    lag: Lag,
    failure_log: Seldom,
    _watching: DropGuard,
}

/// News that is no message. There are as many as rebalances, and one at a time waits for its answer.
#[derive(Debug)]
enum Notice {
    Assigned(Vec<u32>),
    Revoked(Vec<u32>),
    /// Positions are worth nothing any more.
    TopicChanged,
}

/// Tells of partitions that the group gives and takes away.
struct Rebalances {
    notices: mpsc::UnboundedSender<Notice>,
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
    /// An assignment is answered later, by [`KafkaFeed::read_from`]: first it must be known where to read.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let partitions = numbers(list);
        let notice = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            info!(?partitions, "partitions assigned");
            Notice::Assigned(partitions)
        } else {
            let lost = consumer.assignment_lost();
            info!(?partitions, lost, "partitions given up");
            if let Err(error) = consumer.incremental_unassign(list) {
                // Those that were assigned and not read yet are not known to librdkafka.
                info!(%error, "partitions were not read yet");
            }
            Notice::Revoked(partitions)
        };
        // If the feed is gone, so is the interest.
        let _ = self.notices.send(notice);
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
        let (sender, notices) = mpsc::unbounded_channel();
        let consumer: Arc<StreamConsumer<Rebalances>> = Arc::new(
            configuration(kafka, args)
                .create_with_context(Rebalances {
                    notices: sender.clone(),
                    connection_log: Seldom::default(),
                })
                .map_err(IngestError::KafkaSetup)?,
        );
        let topic = loop {
            let (asked, name) = (Arc::clone(&consumer), kafka.kafka_topic.clone());
            match blocking(move || describe(&asked, name)).await {
                Ok(topic) => break topic,
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
        };
        consumer.subscribe(&[&topic.name]).map_err(IngestError::KafkaSetup)?;
        info!(topic = topic.name, id = %topic.id, partitions = topic.partitions, "consuming");
        let end = CancellationToken::new();
        let watch = watch_topic(Arc::downgrade(&consumer), topic.clone(), sender);
        let ended = end.clone();
        tokio::spawn(async move { ended.run_until_cancelled(watch).await });
        let lag = Lag::watch(&consumer, &topic.name, metrics);
        Ok(Some(Self {
            consumer,
            lag,
            notices,
            topic,
            unanswered: Vec::new(),
            reading: BTreeSet::new(),
            metrics: metrics.clone(),
            failure_log: Seldom::default(),
            _watching: end.drop_guard(),
        }))
    }

    pub(super) async fn next(&mut self) -> Result<Event, IngestError> {
        loop {
            let received = tokio::select! {
                biased;
                Some(notice) = self.notices.recv() => return Ok(self.heed(notice)),
                received = self.consumer.recv() => received,
            };
            match received {
                Ok(message) => {
                    let payload = Bytes::copy_from_slice(message.payload().unwrap_or_default());
                    // Kafka numbers both from 0.
                    let partition = message.partition().try_into().unwrap_or(0);
                    let offset = message.offset().try_into().unwrap_or(0);
                    let time_ms = message.timestamp().to_millis();
                    let time_ms = time_ms.and_then(|time_ms| time_ms.try_into().ok());
                    self.lag.read(partition, time_ms);
                    return Ok(Event::Message(Envelope { partition, offset, time_ms, payload }));
                }
                Err(error @ KafkaError::MessageConsumptionFatal(_)) => {
                    return Err(IngestError::Kafka(error));
                }
                Err(error) => {
                    self.metrics.source_failures.inc();
                    if is_about_offsets(&error) {
                        warn!(%error, "kafka has other offsets than expected, looking anew where to read");
                        return Ok(self.heed(Notice::TopicChanged));
                    }
                    if self.failure_log.is_due() {
                        warn!(%error, "kafka failed, librdkafka retries");
                    }
                }
            }
        }
    }

    fn heed(&mut self, notice: Notice) -> Event {
        match notice {
            Notice::Assigned(partitions) => {
                self.unanswered.extend(&partitions);
                Event::Assigned(partitions)
            }
            Notice::Revoked(partitions) => {
                self.unanswered.retain(|partition| !partitions.contains(partition));
                self.reading.retain(|partition| !partitions.contains(partition));
                Event::Revoked(partitions)
            }
            Notice::TopicChanged => {
                let partitions: Vec<u32> = std::mem::take(&mut self.reading).into_iter().collect();
                let list =
                    list(&self.topic.name, partitions.iter().map(|partition| (*partition, None)));
                if let Err(error) = self.consumer.incremental_unassign(&list) {
                    warn!(%error, "cannot stop reading");
                }
                Event::Assigned(partitions)
            }
        }
    }

    /// Asks Kafka what it has of partitions, and what was committed. The topic may be another by now.
    pub(super) async fn offered(
        &mut self,
        partitions: &[u32],
    ) -> Result<BTreeMap<u32, Offered>, String> {
        let (consumer, name) = (Arc::clone(&self.consumer), self.topic.name.clone());
        let partitions = partitions.to_vec();
        let asked = blocking(move || {
            let topic = describe(&consumer, name)?;
            // One that is made anew may have fewer.
            let there = partitions.into_iter().filter(|partition| *partition < topic.partitions);
            let list = list(&topic.name, there.map(|partition| (partition, None)));
            let offered = offered(&consumer, &topic.name, list).map_err(|error| error.to_string());
            Ok::<_, String>((topic, offered?))
        });
        let (topic, offered) = asked.await?;
        self.topic = topic;
        Ok(offered)
    }

    /// Reads on from offsets: answers an assignment.
    pub(super) fn read_from(&mut self, offsets: &[(u32, u64)]) -> KafkaResult<()> {
        let list = list(
            &self.topic.name,
            offsets.iter().map(|(partition, offset)| (*partition, Some(*offset))),
        );
        self.consumer.incremental_assign(&list)?;
        // One answer is to all that was assigned, also of partitions that are there no more.
        self.unanswered.clear();
        self.reading.extend(offsets.iter().map(|(partition, _)| partition));
        Ok(())
    }

    /// What chunks of the topic as it is now are begun and finished with.
    pub(super) fn commits(&self) -> KafkaCommits {
        KafkaCommits {
            consumer: Arc::clone(&self.consumer),
            topic: self.topic.clone(),
            metrics: self.metrics.clone(),
        }
    }

    pub(super) fn topic(&self) -> &Topic {
        &self.topic
    }

    pub(super) async fn close(mut self) {
        while let Ok(notice) = self.notices.try_recv() {
            self.heed(notice);
        }
        if !self.unanswered.is_empty() {
            // librdkafka leaves the group only once it has its answer.
            let unanswered = std::mem::take(&mut self.unanswered);
            let list =
                list(&self.topic.name, unanswered.into_iter().map(|partition| (partition, None)));
            if let Err(error) = self.consumer.incremental_assign(&list) {
                warn!(%error, "cannot answer an assignment");
            }
        }
        let Self { consumer, lag, .. } = self;
        lag.close().await;
        // The last handle leaves the group, which waits for the broker.
        blocking(move || drop(consumer)).await;
    }
}

fn configuration(kafka: &KafkaArgs, args: &KafkaSourceArgs) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("queued.max.messages.kbytes", MAX_FETCHED_AHEAD_KIB)
        .set("max.poll.interval.ms", MAX_POLL_INTERVAL_MS);
    for (name, value) in kafka.properties() {
        config.set(name, value);
    }
    // Not for users to change: the pipeline says what is committed and where to read, and a range that
    // Kafka no longer has is recorded, not skipped.
    config
        .set("group.id", &args.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("partition.assignment.strategy", "cooperative-sticky");
    config
}

/// Whether Kafka does not have what was to be read next.
fn is_about_offsets(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange
        )
    )
}

/// Runs what waits for a broker on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
