//! Where messages come from: Kafka, or a channel from an agent in the same process.

mod channel;
mod kafka;
mod lag;

use bytes::Bytes;
use flowtrail_schema::topic::Message;
use flowtrail_service::kafka::KafkaArgs;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::dead_letters::DeadLetters;
use crate::error::IngestError;
use crate::metrics::IngestMetrics;
use channel::ChannelFeed;
use kafka::KafkaFeed;
pub use kafka::KafkaSourceArgs;

/// Where ingest is to read from.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Source {
    /// A topic, as a member of a consumer group.
    Kafka {
        /// How to reach Kafka.
        kafka: KafkaArgs,
        /// How to consume.
        consumer: KafkaSourceArgs,
    },
    /// The agent in the same process. Ends, with everything inserted, when all senders are gone.
    Channel {
        /// The agent's messages.
        receiver: mpsc::Receiver<Message>,
        /// Tells this run's messages from those of other runs on the same store.
        topic_id: String,
        /// Number of partitions that the agent spreads its records over.
        partitions: u32,
    },
}

/// A message with its place in the log, which travels with it.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    /// The time that Kafka has for the message, milliseconds since the epoch.
    pub(crate) time_ms: Option<u64>,
    pub(crate) payload: Bytes,
}

/// The log that messages are read from.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    /// Tells it from another log of the same name.
    pub(crate) id: String,
    pub(crate) partitions: u32,
}

/// An open source.
pub(crate) enum Feed {
    Kafka(KafkaFeed),
    Channel(ChannelFeed),
}

impl Source {
    /// Where messages go that are rejected: to Kafka if they are from there.
    pub(crate) fn dead_letters(&self, metrics: &IngestMetrics) -> Result<DeadLetters, IngestError> {
        match self {
            Self::Kafka { kafka, consumer } => {
                DeadLetters::to(&consumer.dead_letter_topic, kafka, metrics)
            }
            Self::Channel { .. } => Ok(DeadLetters::off()),
        }
    }

    /// Opens the source; waits until Kafka answers. `None` if it was shut down before.
    pub(crate) async fn open(
        self,
        metrics: &IngestMetrics,
        shutdown: &CancellationToken,
    ) -> Result<Option<Feed>, IngestError> {
        Ok(match self {
            Self::Kafka { kafka, consumer } => {
                KafkaFeed::open(&kafka, &consumer, metrics, shutdown).await?.map(Feed::Kafka)
            }
            Self::Channel { receiver, topic_id, partitions } => {
                Some(Feed::Channel(ChannelFeed::new(receiver, topic_id, partitions)))
            }
        })
    }
}

impl Feed {
    /// The next message, or `None` when there will be no more. Loses nothing if it is cancelled.
    pub(crate) async fn next(&mut self) -> Result<Option<Envelope>, IngestError> {
        match self {
            Self::Kafka(feed) => feed.next().await.map(Some),
            Self::Channel(feed) => Ok(feed.next().await),
        }
    }

    /// Partitions that another consumer has taken over since the last call: what is in hand of them
    /// is its to insert.
    pub(crate) fn take_revoked(&mut self) -> Vec<u32> {
        match self {
            Self::Kafka(feed) => feed.take_revoked(),
            Self::Channel(_) => Vec::new(),
        }
    }

    /// Everything of a partition before `offset` is in the tables.
    pub(crate) async fn commit(&mut self, partition: u32, offset: u64) {
        match self {
            Self::Kafka(feed) => feed.commit(partition, offset).await,
            // Nobody could deliver it again.
            Self::Channel(_) => {}
        }
    }

    /// The log.
    pub(crate) fn topic(&self) -> &Topic {
        match self {
            Self::Kafka(feed) => feed.topic(),
            Self::Channel(feed) => feed.topic(),
        }
    }

    /// Says goodbye, so that other consumers take over at once.
    pub(crate) async fn close(self) {
        if let Self::Kafka(feed) = self {
            feed.close().await;
        }
    }
}
