//! Where messages come from: Kafka, or a channel from an agent in the same process.

mod channel;
mod kafka;
mod lag;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use flowtrail_schema::topic::Message;
use flowtrail_service::kafka::KafkaArgs;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::dead_letters::DeadLetters;
use crate::error::IngestError;
use crate::metrics::IngestMetrics;
use channel::ChannelFeed;
pub use kafka::KafkaSourceArgs;
use kafka::{KafkaCommits, KafkaFeed};
pub(crate) use kafka::{Mark, Pending};

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

/// What a source has to say.
#[derive(Debug)]
pub(crate) enum Event {
    /// The next message of a partition that is read.
    Message(Envelope),
    /// Partitions to read from now on; what was in hand of them is void.
    Assigned(Vec<u32>),
    /// Partitions that are another's: what is in hand of them is its to insert.
    Revoked(Vec<u32>),
    /// There will be no more.
    End,
}

/// What Kafka has of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offered {
    /// The group's offset, and what it says about itself; `None` there if Flowtrail did not commit it.
    pub(crate) committed: Option<(u64, Option<Mark>)>,
    /// First offset that is there.
    pub(crate) low: u64,
    /// First offset that is not there yet.
    pub(crate) high: u64,
}

/// The partition is no longer this process's, or it is to stop.
#[derive(Debug)]
pub(crate) struct Lost;

/// The log that messages are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) name: String,
    /// Tells it from another log of the same name.
    pub(crate) id: Arc<str>,
    pub(crate) partitions: u32,
}

/// The group's offsets, as far as the chunks of a partition are concerned.
pub(crate) enum Commits {
    Kafka(Box<KafkaCommits>),
    /// Nobody else could read the messages, nor deliver them again.
    None,
}

impl Commits {
    /// A chunk of a partition is about to be inserted: from now on whoever reads the partition knows
    /// which one. If not, nothing of it may be inserted.
    pub(crate) async fn begin(
        &self,
        partition: u32,
        start: u64,
        pending: Pending,
        stop: &CancellationToken,
    ) -> Result<(), Lost> {
        match self {
            Self::Kafka(commits) => commits.begin(partition, start, pending, stop).await,
            Self::None => Ok(()),
        }
    }

    /// Everything of a partition before `offset` is in the tables.
    pub(crate) async fn finish(&self, partition: u32, offset: u64) {
        if let Self::Kafka(commits) = self {
            commits.finish(partition, offset).await;
        }
    }
}

/// An open source.
pub(crate) enum Feed {
    Kafka(Box<KafkaFeed>),
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
                let feed = KafkaFeed::open(&kafka, &consumer, metrics, shutdown).await?;
                feed.map(Box::new).map(Feed::Kafka)
            }
            Self::Channel { receiver, topic_id, partitions } => {
                Some(Feed::Channel(ChannelFeed::new(receiver, topic_id, partitions)))
            }
        })
    }
}

impl Feed {
    /// What comes next. Loses nothing if it is cancelled.
    pub(crate) async fn next(&mut self) -> Result<Event, IngestError> {
        match self {
            Self::Kafka(feed) => feed.next().await,
            Self::Channel(feed) => Ok(feed.next().await),
        }
    }

    /// What there is of partitions that were assigned, and where they were left.
    ///
    /// # Errors
    /// If Kafka does not tell now.
    pub(crate) async fn offered(
        &mut self,
        partitions: &[u32],
    ) -> Result<BTreeMap<u32, Offered>, String> {
        match self {
            Self::Kafka(feed) => feed.offered(partitions).await,
            Self::Channel(_) => {
                let new = Offered { committed: None, low: 0, high: 0 };
                Ok(partitions.iter().map(|partition| (*partition, new.clone())).collect())
            }
        }
    }

    /// Reads partitions that were assigned, each from an offset on.
    ///
    /// # Errors
    /// If librdkafka refuses.
    pub(crate) fn read_from(&mut self, offsets: &[(u32, u64)]) -> Result<(), IngestError> {
        match self {
            Self::Kafka(feed) => feed.read_from(offsets).map_err(IngestError::Kafka),
            Self::Channel(_) => Ok(()),
        }
    }

    /// What chunks are begun and finished with.
    pub(crate) fn commits(&self) -> Commits {
        match self {
            Self::Kafka(feed) => Commits::Kafka(Box::new(feed.commits())),
            Self::Channel(_) => Commits::None,
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
