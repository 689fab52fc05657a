//! Messages that ingest rejects, or records of, kept for people: the original bytes on a topic of their own.
//!
//! At least once: letters are acknowledged before the chunk that their messages are in is done, and a
//! chunk that is done again sends them again. Their headers tell which is which. But good data does not
//! wait for a topic that is missing or fails: that is counted, and said.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use flowtrail_service::kafka::{KafkaArgs, what_to_check};
use flowtrail_service::telemetry::Seldom;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::error::IngestError;
use crate::metrics::IngestMetrics;
use crate::source::Envelope;

/// Bytes of a message that are kept, at most: with its headers a letter stays below the 1,000,000 bytes
/// that librdkafka, and about what brokers, take by default. A longer one is cut, and says its length.
const MAX_VALUE_BYTES: usize = 900 * 1024;

/// Letters that wait for their acknowledgement, at most, in KiB and in number; more are lost, counted.
const MAX_QUEUED_KIB: &str = "16384";
const MAX_QUEUED: &str = "10000";

/// How long a letter is tried to be delivered, in milliseconds: a broker that restarts is back by then.
const DELIVERY_TIMEOUT_MS: &str = "60000";

/// Where rejected messages go, if anywhere.
pub(crate) struct DeadLetters {
    publisher: Option<Publisher>,
}

struct Publisher {
    topic: String,
    /// The topic that the messages are from.
    source_topic: String,
    producer: ThreadedProducer<Fates>,
}

impl DeadLetters {
    /// For a source without Kafka.
    pub(crate) fn off() -> Self {
        Self { publisher: None }
    }

    /// Letters to a topic; none if it has no name.
    ///
    /// # Errors
    /// If librdkafka does not take a property.
    pub(crate) fn to(
        topic: &str,
        kafka: &KafkaArgs,
        metrics: &IngestMetrics,
    ) -> Result<Self, IngestError> {
        if topic.is_empty() {
            return Ok(Self::off());
        }
        let mut config = ClientConfig::new();
        config.set("client.id", "flowtrail-ingest-dead-letters").set("compression.type", "lz4");
        for (name, value) in kafka.properties() {
            config.set(name, value);
        }
        // Not for users to change: the user's properties are meant for the consumer too.
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", DELIVERY_TIMEOUT_MS)
            .set("queue.buffering.max.kbytes", MAX_QUEUED_KIB)
            .set("queue.buffering.max.messages", MAX_QUEUED)
            .set("allow.auto.create.topics", "false");
        let producer = config
            .create_with_context(Fates::new(topic, metrics))
            .map_err(IngestError::KafkaSetup)?;
        let (topic, source_topic) = (topic.to_owned(), kafka.kafka_topic.clone());
        Ok(Self { publisher: Some(Publisher { topic, source_topic, producer }) })
    }

    /// Sends a message that was rejected, or records of it, for these reasons. Does not wait.
    pub(crate) fn send(&self, envelope: &Envelope, reasons: &[String]) {
        let Some(Publisher { topic, source_topic, producer }) = &self.publisher else { return };
        let reasons: BTreeSet<&str> = reasons.iter().map(String::as_str).collect();
        let reason = reasons.into_iter().collect::<Vec<_>>().join("; ");
        let mut headers = OwnedHeaders::new()
            .insert(text("reason", &reason))
            .insert(text("topic", source_topic))
            .insert(text("partition", &envelope.partition.to_string()))
            .insert(text("offset", &envelope.offset.to_string()));
        if let Some(time_ms) = envelope.time_ms {
            headers = headers.insert(text("time", &time_ms.to_string()));
        }
        let length = envelope.payload.len();
        if length > MAX_VALUE_BYTES {
            headers = headers.insert(text("original_bytes", &length.to_string()));
        }
        let value = &envelope.payload[..length.min(MAX_VALUE_BYTES)];
        let fates = producer.context();
        fates.in_flight.fetch_add(1, Ordering::SeqCst);
        let letter = BaseRecord::<(), [u8]>::to(topic).payload(value).headers(headers);
        if let Err((error, _)) = producer.send(letter) {
            fates.failed(&error);
        }
    }

    /// Waits until every letter has been acknowledged or given up; not longer than `at_most`, and not at
    /// all as long as the topic takes none.
    pub(crate) async fn flush(&self, at_most: Duration) {
        let Some(Publisher { producer, .. }) = &self.publisher else { return };
        let fates = producer.context();
        if fates.failing.load(Ordering::SeqCst) {
            return;
        }
        let answered = async {
            loop {
                let progress = fates.progress.notified();
                tokio::pin!(progress);
                // Before asking, so that no answer between the asking and the waiting is missed.
                progress.as_mut().enable();
                if fates.in_flight.load(Ordering::SeqCst) == 0 {
                    return;
                }
                progress.await;
            }
        };
        if tokio::time::timeout(at_most, answered).await.is_err() {
            fates.failing.store(true, Ordering::SeqCst);
            let waiting = fates.in_flight.load(Ordering::SeqCst);
            warn!(
                topic = fates.topic,
                waiting, "dead letters are not acknowledged, going on without them"
            );
        }
    }
}

fn text<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a str> {
    Header { key, value: Some(value) }
}

/// What became of the letters; librdkafka calls it back.
struct Fates {
    topic: String,
    in_flight: AtomicU64,
    /// A letter's fate is known.
    progress: Notify,
    /// The last that was heard of the topic is that it takes no letters.
    failing: AtomicBool,
    failure_log: Seldom,
    connection_log: Seldom,
    metrics: IngestMetrics,
}

impl Fates {
    fn new(topic: &str, metrics: &IngestMetrics) -> Self {
        Self {
            topic: topic.to_owned(),
            in_flight: AtomicU64::new(0),
            progress: Notify::new(),
            failing: AtomicBool::new(false),
            failure_log: Seldom::default(),
            connection_log: Seldom::default(),
            metrics: metrics.clone(),
        }
    }

    fn delivered(&self) {
        self.metrics.dead_letter("delivered");
        self.failing.store(false, Ordering::SeqCst);
        self.settled();
    }

    fn failed(&self, error: &KafkaError) {
        self.metrics.dead_letter("failed");
        self.failing.store(true, Ordering::SeqCst);
        if self.failure_log.is_due() {
            let topic = &self.topic;
            warn!(
                topic,
                %error,
                "a dead letter is lost: make the topic, or turn it off with --dead-letter-topic ''"
            );
        }
        self.settled();
    }

    fn settled(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.progress.notify_waiters();
    }
}

impl ClientContext for Fates {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(?level, facility, message, "librdkafka, dead letters");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if self.connection_log.is_due() {
            let check = what_to_check(reason);
            warn!(%error, reason, check, "kafka connection for dead letters failed, will retry");
        }
    }
}

impl ProducerContext for Fates {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.delivered(),
            Err((error, _)) => self.failed(error),
        }
    }
}

#[cfg(test)]
mod tests;
