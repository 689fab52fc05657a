//! The output: where batches go. One small seam with the implementations there are.

mod json;
mod kafka;

use flowtrail_schema::topic::Message;
use flowtrail_schema::{FlowBatch, wire};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use kafka::KafkaOutput;

/// Where batches go.
pub enum Output {
    /// To Kafka.
    Kafka(KafkaOutput),
    /// To standard output, one record a line. Only the records: no reports.
    Json,
    /// Nowhere.
    Null,
    /// To a reader in the same process, as what Kafka would carry.
    Channel {
        /// The reader's queue; its length is the reader's choice.
        sender: mpsc::Sender<Message>,
        /// Partitions that the reader takes.
        partitions: u32,
    },
}

/// Why batches did not arrive.
#[derive(Debug, Error)]
pub enum OutputError {
    /// Whoever read the output is gone, and that is theirs to decide.
    #[error("nobody reads the output any more")]
    Closed,
    /// Standard output fails otherwise.
    #[error("cannot write to standard output")]
    Write(#[source] std::io::Error),
    /// A property that librdkafka does not take.
    #[error("librdkafka refuses its configuration: check each --kafka-property")]
    Configuration {
        /// What librdkafka says.
        source: rdkafka::error::KafkaError,
    },
    /// The topic is not there.
    #[error(
        "kafka at {brokers} has no topic {topic}: create it with \
         `kafka-topics.sh --bootstrap-server {brokers} --create --topic {topic} --partitions 8 --config message.timestamp.type=LogAppendTime`, \
         or choose another with --kafka-topic"
    )]
    UnknownTopic {
        /// The brokers asked.
        brokers: String,
        /// The topic asked for.
        topic: String,
    },
    /// Kafka refuses for good: what is waiting cannot be delivered by this process.
    #[error("kafka refuses topic {topic}: {reason}")]
    Refused {
        /// The topic.
        topic: String,
        /// What the broker or librdkafka says.
        reason: String,
    },
    /// The process ends before everything was delivered.
    #[error(
        "{messages} messages, and {records} records that waited behind them, were not delivered within \
         {seconds} s of the shutdown and are lost: check --kafka-brokers"
    )]
    Undelivered {
        /// How many were made.
        messages: u64,
        /// Records for which none was made.
        records: u64,
        /// How long was waited.
        seconds: u64,
    },
}

impl Output {
    /// Waits until the output can be used, and says for how many partitions batches are to be made.
    /// `None` if the shutdown came first.
    pub(crate) async fn connect(
        &self,
        shutdown: &CancellationToken,
    ) -> Result<Option<u32>, OutputError> {
        match self {
            Self::Kafka(kafka) => kafka.connect(shutdown).await,
            Self::Json | Self::Null => Ok(Some(1)),
            Self::Channel { partitions, .. } => Ok(Some(*partitions)),
        }
    }

    /// Hands a batch over, waiting for room as long as it takes.
    pub(crate) async fn publish(&self, batch: FlowBatch) -> Result<(), OutputError> {
        match self {
            Self::Kafka(kafka) => kafka.publish(&message(&batch)).await,
            Self::Json => json::print(batch).await,
            Self::Null => Ok(()),
            Self::Channel { sender, .. } => {
                sender.send(message(&batch)).await.map_err(|_| OutputError::Closed)
            }
        }
    }

    /// Waits until all that was published has arrived.
    pub(crate) async fn flush(&self) -> Result<(), OutputError> {
        match self {
            Self::Kafka(kafka) => kafka.flush().await,
            Self::Json | Self::Null | Self::Channel { .. } => Ok(()),
        }
    }

    /// Messages published that have not arrived yet.
    pub(crate) fn in_flight(&self) -> u64 {
        match self {
            Self::Kafka(kafka) => kafka.in_flight(),
            Self::Json | Self::Null | Self::Channel { .. } => 0,
        }
    }
}

fn message(batch: &FlowBatch) -> Message {
    Message {
        partition: batch.partition,
        payload: wire::encode(batch),
        records: batch.records.len() as u32,
    }
}
