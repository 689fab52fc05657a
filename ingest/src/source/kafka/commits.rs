//! What chunks are begun and finished with: commits under the group's generation.

use std::sync::Arc;
use std::time::Duration;

use flowtrail_service::telemetry::Seldom;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::mark::{Mark, Pending};
use super::topic::at;
use super::{Rebalances, blocking};
use crate::metrics::IngestMetrics;
use crate::source::{Lost, Topic};

/// Pause between attempts to begin a chunk: what makes them fail is most often a rebalance, soon over.
const COMMIT_RETRY: Duration = Duration::from_millis(200);

/// Commits of one topic. Held only while a chunk is on its way: the last handle leaves the group.
pub(crate) struct KafkaCommits {
    pub(super) consumer: Arc<StreamConsumer<Rebalances>>,
    pub(super) topic: Topic,
    pub(super) metrics: IngestMetrics,
}

impl KafkaCommits {
    /// Says where a chunk begins and what it is, waiting for the broker; tries until the group has
    /// taken it or has given the partition to another.
    pub(in crate::source) async fn begin(
        &self,
        partition: u32,
        start: u64,
        pending: Pending,
        stop: &CancellationToken,
    ) -> Result<(), Lost> {
        let mark = Mark { topic_id: self.topic.id.to_string(), pending: Some(pending) };
        let failure_log = Seldom::default();
        loop {
            // librdkafka may be on its way back into the group: what it commits then is of no generation.
            if self.consumer.assignment_lost() {
                return Err(Lost);
            }
            let Err(error) = self.commit(partition, start, &mark).await else { return Ok(()) };
            self.metrics.commit_failures.inc();
            if failure_log.is_due() {
                warn!(partition, start, %error, "chunk not begun, its offset was not committed; trying again");
            }
            if stop.run_until_cancelled(tokio::time::sleep(COMMIT_RETRY)).await.is_none() {
                return Err(Lost);
            }
        }
    }

    /// Commits that everything before `offset` is in the tables, waiting for the broker. If that fails
    /// the next commit covers it; should there be none, `deliveries` tells.
    pub(in crate::source) async fn finish(&self, partition: u32, offset: u64) {
        let mark = Mark { topic_id: self.topic.id.to_string(), pending: None };
        if let Err(error) = self.commit(partition, offset, &mark).await {
            self.metrics.commit_failures.inc();
            warn!(partition, offset, %error, "offset not committed, the next commit covers it");
        }
    }

    async fn commit(&self, partition: u32, offset: u64, mark: &Mark) -> KafkaResult<()> {
        let consumer = Arc::clone(&self.consumer);
        let (name, metadata) = (self.topic.name.clone(), mark.to_string());
        blocking(move || {
            let mut list = TopicPartitionList::with_capacity(1);
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            let mut element = list.add_partition(&name, partition);
            element.set_offset(at(offset))?;
            element.set_metadata(metadata);
            consumer.commit(&list, CommitMode::Sync)
        })
        .await
    }
}
