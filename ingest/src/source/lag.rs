//! How far ingest is behind the log: asked of Kafka from time to time, also while a chunk that cannot be
//! inserted makes reading wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::Offset;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::kafka::blocking;
use crate::metrics::{IngestMetrics, PartitionLabel};

/// Pause between two rounds of questions: about as often as metrics are collected.
const PAUSE: Duration = Duration::from_secs(10);

/// How long a round may take: what is not answered by then is asked in the next. Closing waits for it.
const ROUND_TIMEOUT: Duration = Duration::from_secs(5);

/// Partitions with a metric of their own: those of a higher number are one series, `other`.
const MAX_LABELLED: u32 = 256;

/// The watch over the lag. Ends when it is dropped or closed.
pub(super) struct Lag {
    /// The time of the last message read of each partition, milliseconds since the epoch.
    read: Arc<Mutex<Times>>,
    stop: DropGuard,
    task: JoinHandle<()>,
}

type Times = BTreeMap<u32, u64>;

/// Messages that are not in the tables yet, of each partition that is this consumer's.
type Behind = BTreeMap<u32, u64>;

impl Lag {
    /// Starts asking.
    pub(super) fn watch<C: ConsumerContext + 'static>(
        consumer: &Arc<StreamConsumer<C>>,
        topic: &str,
        metrics: &IngestMetrics,
    ) -> Self {
        let read = Arc::new(Mutex::new(Times::new()));
        let stop = CancellationToken::new();
        let (topic, metrics) = (topic.to_owned(), metrics.clone());
        let (times, stopped, consumer) = (Arc::clone(&read), stop.clone(), Arc::clone(consumer));
        let task = tokio::spawn(async move {
            let mut behind = Behind::new();
            let mut shown = BTreeMap::new();
            while stopped.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
                let (asked, topic) = (Arc::clone(&consumer), topic.clone());
                match blocking(move || ask(&asked, &topic)).await {
                    Ok(answer) => behind = answer,
                    // The last answer still says that there is more to read; its age grows.
                    Err(error) => debug!(%error, "kafka does not tell the lag"),
                }
                let times = times.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let lags = lags(&behind, &times, now_ms());
                show(&lags, &shown, &metrics);
                shown = lags;
            }
        });
        Self { read, stop: stop.drop_guard(), task }
    }

    /// A message was read.
    pub(super) fn read(&self, partition: u32, time_ms: Option<u64>) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.extend(time_ms.map(|time_ms| (partition, time_ms)));
    }

    /// Ends; after that it has no handle of the consumer any more.
    pub(super) async fn close(self) {
        drop(self.stop);
        // It cannot be cancelled otherwise, and a panic in it is not worth another one.
        let _ = self.task.await;
    }
}

/// What is not committed yet; blocks.
fn ask<C: ConsumerContext>(consumer: &StreamConsumer<C>, topic: &str) -> KafkaResult<Behind> {
    let deadline = Instant::now() + ROUND_TIMEOUT;
    let left = || deadline.saturating_duration_since(Instant::now());
    let committed = consumer.committed(left())?;
    let mut behind = Behind::new();
    for element in committed.elements() {
        let (low, high) = consumer.fetch_watermarks(topic, element.partition(), left())?;
        let done = match element.offset() {
            Offset::Offset(offset) => offset.max(low),
            // Nothing was ever committed.
            _ => low,
        };
        // Kafka numbers both from 0.
        let partition = element.partition().try_into().unwrap_or(0);
        behind.insert(partition, (high - done).try_into().unwrap_or(0));
    }
    Ok(behind)
}

/// Messages, and the seconds since the last message read was written, of each series.
fn lags(
    behind: &Behind,
    read: &Times,
    now_ms: u64,
) -> BTreeMap<PartitionLabel, (u64, Option<f64>)> {
    let mut lags: BTreeMap<PartitionLabel, (u64, Option<f64>)> = BTreeMap::new();
    for (&partition, &messages) in behind {
        let age = |time_ms: &u64| now_ms.saturating_sub(*time_ms) as f64 / 1_000.0;
        let seconds = if messages == 0 { Some(0.0) } else { read.get(&partition).map(age) };
        let name = (partition < MAX_LABELLED).then(|| partition.to_string());
        let label = PartitionLabel { partition: name.unwrap_or_else(|| "other".to_owned()) };
        let lag = lags.entry(label).or_default();
        lag.0 += messages;
        lag.1 = [lag.1, seconds].into_iter().flatten().reduce(f64::max);
    }
    lags
}

/// Shows the lags, and no more of partitions that are another consumer's now.
fn show<L>(
    lags: &BTreeMap<PartitionLabel, (u64, Option<f64>)>,
    before: &BTreeMap<PartitionLabel, L>,
    metrics: &IngestMetrics,
) {
    for (label, (messages, seconds)) in lags {
        metrics.lag_messages.get_or_create(label).set((*messages).try_into().unwrap_or(i64::MAX));
        if let Some(seconds) = seconds {
            metrics.lag_seconds.get_or_create(label).set(*seconds);
        }
    }
    for label in before.keys().filter(|label| !lags.contains_key(*label)) {
        metrics.lag_messages.remove(label);
        metrics.lag_seconds.remove(label);
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use flowtrail_service::metrics::Metrics;

    use super::*;

    fn label(partition: &str) -> PartitionLabel {
        PartitionLabel { partition: partition.to_owned() }
    }

    #[test]
    fn what_is_all_read_is_not_late_however_old_it_is() {
        let behind = Behind::from([(0, 0), (1, 5), (2, 7)]);
        let read = Times::from([(0, 1_000), (1, 60_000)]);
        let lags = lags(&behind, &read, 90_500);
        assert_eq!(lags[&label("0")], (0, Some(0.0)));
        assert_eq!(lags[&label("1")], (5, Some(30.5)));
        // Nobody knows yet how old what is in there is.
        assert_eq!(lags[&label("2")], (7, None));
    }

    #[test]
    fn many_partitions_are_few_series() {
        let behind: Behind = (0..1_000).map(|partition| (partition, 1)).collect();
        let read = Times::from([(300, 8_000), (400, 5_000), (500, 9_000)]);
        let lags = lags(&behind, &read, 10_000);
        assert_eq!(lags.len(), MAX_LABELLED as usize + 1);
        assert_eq!(lags[&label("other")], (1_000 - u64::from(MAX_LABELLED), Some(5.0)));
    }

    #[test]
    fn a_partition_that_was_handed_over_is_shown_no_more() {
        let metrics = Metrics::new();
        let counted = IngestMetrics::register(&metrics);
        let first = lags(&Behind::from([(0, 1), (1, 2)]), &Times::from([(1, 0)]), 1_000);
        show(&first, &BTreeMap::<_, ()>::new(), &counted);
        assert!(metrics.encode().contains("ingest_lag_messages{partition=\"1\"} 2"));
        assert!(metrics.encode().contains("ingest_lag_seconds{partition=\"1\"} 1"));
        show(&lags(&Behind::from([(0, 1)]), &Times::new(), 2_000), &first, &counted);
        assert!(!metrics.encode().contains("partition=\"1\""));
        assert!(metrics.encode().contains("ingest_lag_messages{partition=\"0\"} 1"));
    }
}
