//! Messages to Kafka: idempotent, acknowledged by all replicas, never timed out, and never produced
//! twice by us. Waiting is librdkafka's; a message that it gives up is counted and logged.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use flowtrail_schema::topic::Message;
use flowtrail_service::kafka::{KafkaArgs, what_to_check};
use flowtrail_service::metrics::Metrics;
use flowtrail_service::telemetry::Seldom;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::OutputError;

/// Kilobytes of messages that librdkafka holds while Kafka is away: 32 MiB, some 300,000 records. When
/// they are full publishing waits, the queue of batches fills up, and records wait in the batcher, where
/// they take more room but can be folded.
const QUEUE_KILOBYTES: &str = "32768";

/// How long one question for the topic's partitions may take, and the pause before the next.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
const METADATA_RETRY: Duration = Duration::from_secs(2);

/// The way to Kafka. Connects when the agent runs.
pub struct KafkaOutput {
    topic: String,
    brokers: String,
    producer: ThreadedProducer<Deliveries>,
}

impl KafkaOutput {
    /// A producer by the flags that capture and ingest share.
    ///
    /// # Errors
    /// If librdkafka does not take a property.
    pub fn new(args: &KafkaArgs, metrics: &Metrics) -> Result<Self, OutputError> {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "flowtrail-capture")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "0")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.kbytes", QUEUE_KILOBYTES)
            // A topic made by asking for it would have whatever number of partitions.
            .set("allow.auto.create.topics", "false");
        for (name, value) in args.properties() {
            config.set(name, value);
        }
        let producer = config
            .create_with_context(Deliveries::new(metrics))
            .map_err(|source| OutputError::Configuration { source })?;
        let (topic, brokers) = (args.kafka_topic.clone(), args.kafka_brokers.clone());
        Ok(Self { topic, brokers, producer })
    }

    /// Asks for the topic's partitions until Kafka answers; `None` if the shutdown comes first.
    pub(super) async fn connect(
        &self,
        shutdown: &CancellationToken,
    ) -> Result<Option<u32>, OutputError> {
        let answered = async {
            loop {
                match self.partitions().await {
                    Ok(partitions) => return Ok(partitions),
                    Err(Unanswered::ForGood(error)) => return Err(error),
                    Err(Unanswered::Yet(reason)) => {
                        let brokers = &self.brokers;
                        let check = self.producer.context().what_to_check();
                        warn!(brokers, reason, check, "kafka does not answer, will retry");
                    }
                }
                sleep(METADATA_RETRY).await;
            }
        };
        let partitions = shutdown.run_until_cancelled(answered).await.transpose()?;
        if let Some(partitions) = partitions {
            info!(topic = self.topic, partitions, "kafka answers");
        }
        Ok(partitions)
    }

    async fn partitions(&self) -> Result<u32, Unanswered> {
        let (producer, topic) = (self.producer.clone(), self.topic.clone());
        let answer = tokio::task::spawn_blocking(move || {
            let metadata = producer.client().fetch_metadata(Some(&topic), METADATA_TIMEOUT)?;
            let topic = metadata.topics().first();
            Ok((
                topic.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from),
                topic.map_or(0, |topic| topic.partitions().len() as u32),
            ))
        });
        let refused = |reason| OutputError::Refused { topic: self.topic.clone(), reason };
        match answer.await.map_err(|error| Unanswered::Yet(error.to_string()))? {
            Ok((None, partitions)) if partitions > 0 => Ok(partitions),
            Ok((Some(RDKafkaErrorCode::UnknownTopicOrPartition), _)) => {
                Err(Unanswered::ForGood(OutputError::UnknownTopic {
                    brokers: self.brokers.clone(),
                    topic: self.topic.clone(),
                }))
            }
            Ok((
                Some(
                    code @ (RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::InvalidTopic),
                ),
                _,
            )) => Err(Unanswered::ForGood(refused(code.to_string()))),
            Ok((Some(code), _)) => Err(Unanswered::Yet(code.to_string())),
            Ok((None, _)) => Err(Unanswered::Yet("the topic has no partitions yet".to_owned())),
            Err(KafkaError::MetadataFetch(code)) => Err(Unanswered::Yet(code.to_string())),
            Err(error) => Err(Unanswered::Yet(error.to_string())),
        }
    }

    /// Hands a message to librdkafka, waiting while its queue is full.
    pub(super) async fn publish(&self, message: &Message) -> Result<(), OutputError> {
        let deliveries = self.producer.context();
        loop {
            let progress = deliveries.progress.notified();
            tokio::pin!(progress);
            // Before asking, so that no delivery between the answer and the waiting is missed.
            progress.as_mut().enable();
            deliveries.in_flight.inc();
            let record = BaseRecord::<(), [u8]>::to(&self.topic)
                .partition(message.partition.cast_signed())
                .payload(&message.payload);
            let Err((error, _)) = self.producer.send(record) else { return Ok(()) };
            deliveries.in_flight.dec();
            self.check_fatal()?;
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => progress.await,
                error => {
                    deliveries.failed(&error);
                    return Ok(());
                }
            }
        }
    }

    /// Waits until every message has been acknowledged or given up.
    pub(super) async fn flush(&self) -> Result<(), OutputError> {
        let deliveries = self.producer.context();
        loop {
            let progress = deliveries.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if self.in_flight() == 0 {
                return self.check_fatal();
            }
            progress.await;
        }
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.producer.context().in_flight.get().max(0).cast_unsigned()
    }

    /// After a fatal error an idempotent producer delivers nothing more.
    fn check_fatal(&self) -> Result<(), OutputError> {
        match self.producer.client().fatal_error() {
            Some((_, reason)) => Err(OutputError::Refused { topic: self.topic.clone(), reason }),
            None => Ok(()),
        }
    }
}

/// Why there is no number of partitions.
enum Unanswered {
    Yet(String),
    ForGood(OutputError),
}

/// What became of the messages; librdkafka calls it back.
struct Deliveries {
    /// librdkafka tells of every attempt to connect, several a second.
    connection_log: Seldom,
    refusal_log: Seldom,
    /// The last thing that librdkafka said when it could not connect.
    problem: Mutex<String>,
    /// Something left the queue.
    progress: Notify,
    in_flight: Gauge,
    messages_delivered: Counter,
    messages_failed: Counter,
}

impl Deliveries {
    fn new(metrics: &Metrics) -> Self {
        let deliveries = Self {
            connection_log: Seldom::default(),
            refusal_log: Seldom::default(),
            problem: Mutex::default(),
            progress: Notify::new(),
            in_flight: Gauge::default(),
            messages_delivered: Counter::default(),
            messages_failed: Counter::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "capture_kafka_messages_delivered",
                "Messages that Kafka acknowledged",
                deliveries.messages_delivered.clone(),
            );
            registry.register(
                "capture_kafka_messages_failed",
                "Messages that Kafka refused: their records are lost",
                deliveries.messages_failed.clone(),
            );
            registry.register(
                "capture_kafka_messages_in_flight",
                "Messages that wait for Kafka's acknowledgement",
                deliveries.in_flight.clone(),
            );
        });
        deliveries
    }

    fn what_to_check(&self) -> &'static str {
        what_to_check(&self.problem.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn failed(&self, error: &KafkaError) {
        self.messages_failed.inc();
        if self.refusal_log.is_due() {
            error!(%error, "kafka refused a message, its records are lost");
        }
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        reason.clone_into(&mut self.problem.lock().unwrap_or_else(PoisonError::into_inner));
        if self.connection_log.is_due() {
            let check = what_to_check(reason);
            warn!(%error, reason, check, "kafka connection failed, will retry");
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.messages_delivered.inc();
            }
            Err((error, _)) => self.failed(error),
        }
        self.in_flight.dec();
        self.progress.notify_waiters();
    }
}
