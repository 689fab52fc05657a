//! The way of a message: envelope → batch → decided records → chunk → named rows → tables → commit.
//!
//! Each stage's outcome is counted. What is in hand is bounded by a chunk per partition, and nothing is
//! read while a chunk is being written.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::admission::{Plausible, admit};
use crate::chunk::{Chunk, Decided};
use crate::config::Config;
use crate::dead_letters::DeadLetters;
use crate::error::IngestError;
use crate::metrics::IngestMetrics;
use crate::names::Names;
use crate::partition::Partition;
use crate::position::position;
use crate::source::{Envelope, Event, Feed, Lost};
use crate::writer::{Abandoned, Writer};

/// Pause after the first failure to take partitions over; it doubles with each further one.
const TAKE_OVER_RETRY: Duration = Duration::from_millis(200);

/// Longest such pause: how long after Kafka and ClickHouse are back ingest may still wait.
const LONGEST_TAKE_OVER_RETRY: Duration = Duration::from_secs(10);

/// How long a chunk waits for its dead letters to be acknowledged.
const LETTERS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a chunk waits for the names of new pods, at most: as long as its messages were gathered.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// What ingest did between start and end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Messages read.
    pub messages: u64,
    /// Of these, batches that were seen before and dropped.
    pub duplicate_batches: u64,
    /// Of these, messages that could not be decoded.
    pub rejected_messages: u64,
    /// Records inserted into `flows`.
    pub records: u64,
    /// Of these, records of primary observations.
    pub primary_records: u64,
    /// Records of good batches that broke the contract.
    pub rejected_records: u64,
    /// Rows inserted into `coverage`.
    pub coverage_reports: u64,
    /// Chunks inserted.
    pub chunks: u64,
}

/// The running pipeline.
pub(crate) struct Pipeline {
    pub(crate) config: Config,
    pub(crate) feed: Feed,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) names: Names,
    pub(crate) writer: Writer,
    pub(crate) metrics: IngestMetrics,
    /// When to stop reading and to give up what cannot be inserted: never for a source that must drain.
    pub(crate) stop: CancellationToken,
    pub(crate) partitions: BTreeMap<u32, Partition>,
    pub(crate) summary: Summary,
}

impl Pipeline {
    /// Runs until the source ends or is told to stop; then finishes what is in hand.
    pub(crate) async fn run(mut self) -> Result<Summary, IngestError> {
        let finished = self.read_and_write().await;
        if let Ok(Err(Abandoned)) = finished {
            warn!(
                "shutting down with messages not inserted: they stay in kafka for the next start"
            );
        }
        self.feed.close().await;
        finished.map(|_| self.summary)
    }

    async fn read_and_write(&mut self) -> Result<Result<(), Abandoned>, IngestError> {
        loop {
            let due = self.partitions.values().filter_map(|p| p.due(self.config.chunk_time)).min();
            let event = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = at(due) => None,
                event = self.feed.next() => Some(event?),
            };
            match event {
                Some(Event::Message(envelope)) => self.read(envelope),
                Some(Event::Assigned(partitions)) => self.take_over(&partitions).await?,
                Some(Event::Revoked(partitions)) => self.hand_over(&partitions),
                Some(Event::End) => break,
                // A chunk is due.
                None => {}
            }
            let (rows, time) = (self.config.chunk_rows.get(), self.config.chunk_time);
            self.partitions.values_mut().for_each(|partition| partition.cut_if(rows, time));
            if self.write_cut().await.is_err() {
                return Ok(Err(Abandoned));
            }
        }
        self.partitions.values_mut().for_each(Partition::cut_last);
        Ok(self.write_cut().await)
    }

    /// Envelope → batch, once → records, decided → chunk.
    fn read(&mut self, envelope: Envelope) {
        let topic = self.feed.topic();
        // Else it was handed over while the message was on its way.
        let Some(partition) = self.partitions.get_mut(&envelope.partition) else { return };
        let plausible = Plausible::at(envelope.time_ms, self.config.max_record_age);
        let (batch, rejects) = admit(&envelope.payload, plausible);
        if partition.is_recalled(&envelope) {
            self.metrics.message("recalled");
            batch.iter().for_each(|batch| partition.recall(batch));
            return;
        }
        self.summary.messages += 1;
        let first_time = batch.as_ref().is_some_and(|batch| partition.first_time(batch));
        let chunk = partition.chunk_for(&envelope, batch.as_ref());
        match batch {
            None => {
                debug!(envelope.partition, envelope.offset, ?rejects, "message rejected");
                self.dead_letters.send(&envelope, &rejects);
                reject(rejects, chunk, &self.metrics);
                self.summary.rejected_messages += 1;
                self.metrics.message("rejected");
            }
            Some(_) if !first_time => {
                chunk.duplicates += 1;
                self.summary.duplicate_batches += 1;
                self.metrics.message("duplicate");
            }
            Some(batch) => {
                self.summary.rejected_records += rejects.len() as u64;
                self.metrics.record("rejected", rejects.len() as u64);
                if !rejects.is_empty() {
                    self.dead_letters.send(&envelope, &rejects);
                }
                reject(rejects, chunk, &self.metrics);
                let accepted = partition.decide(batch, topic, envelope.partition);
                partition.accept(accepted);
                self.metrics.message("accepted");
            }
        }
    }

    /// Chunks → begun → named rows → tables → finished.
    async fn write_cut(&mut self) -> Result<(), Abandoned> {
        let mut lost = Vec::new();
        for (number, partition) in &mut self.partitions {
            while let Some(chunk) = partition.next_cut() {
                let (start, pending) = (chunk.id.start, chunk.pending());
                if let Err(Lost) = self.feed.begin(*number, start, pending, &self.stop).await {
                    lost.push(*number);
                    break;
                }
                let topic = self.feed.topic();
                let mut written = None;
                if chunk.begun_as.is_some() {
                    let delivery = chunk.delivery(&topic.name, &topic.id);
                    let as_begun = chunk.is_as_begun();
                    written = self.writer.written(&delivery, as_begun, &self.stop).await?;
                }
                if written.is_some() || chunk.begun_as.is_none() {
                    self.names.settle(ends(&chunk), SETTLE_TIMEOUT).await;
                    let rows = partition.rows(&chunk, topic, &self.names.read(), written);
                    self.dead_letters.flush(LETTERS_TIMEOUT).await;
                    self.writer.write(&rows, &self.stop).await?;
                    self.metrics.named(&rows.named);
                }
                self.feed.finish(*number, chunk.end).await;
                count(&mut self.summary, &self.metrics, &chunk);
            }
        }
        self.hand_over(&lost);
        Ok(())
    }

    /// Takes partitions over as they were left: state from the tables, then messages.
    async fn take_over(&mut self, partitions: &[u32]) -> Result<(), IngestError> {
        self.partitions.retain(|number, _| !partitions.contains(number));
        let mut pause = TAKE_OVER_RETRY;
        loop {
            let problem = match self.restored(partitions).await {
                Ok(restored) => {
                    let offsets: Vec<_> = restored.iter().map(|(_, from)| *from).collect();
                    self.feed.read_from(&offsets)?;
                    let numbered =
                        restored.into_iter().map(|(partition, (number, _))| (number, partition));
                    self.partitions.extend(numbered);
                    return Ok(());
                }
                Err(problem) => problem,
            };
            warn!(?partitions, problem, "cannot take partitions over yet, trying again");
            self.metrics.source_failures.inc();
            if self.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(());
            }
            pause = (pause * 2).min(LONGEST_TAKE_OVER_RETRY);
        }
    }

    /// Each partition, its number and the offset to read from.
    async fn restored(
        &mut self,
        partitions: &[u32],
    ) -> Result<Vec<(Partition, (u32, u64))>, String> {
        let offered = self.feed.offered(partitions).await?;
        let topic = self.feed.topic();
        let mut restored = Vec::with_capacity(partitions.len());
        for (number, offered) in offered {
            let journal = self.writer.journal();
            let past = async {
                let delivered = journal.delivered(&topic.id, number).await?;
                let position = position(number, &offered, &topic.id, delivered);
                Ok((position, journal.past(&topic.id, number, position.next).await?))
            };
            let past: Result<_, clickhouse::error::Error> = past.await;
            let (position, past) = past.map_err(|error| error.to_string())?;
            let from = past.recall_from.unwrap_or(position.next).max(offered.low);
            info!(
                partition = number,
                next = position.next,
                from,
                lag = offered.high.saturating_sub(position.next),
                begun = position.pending.is_some(),
                connections = past.connections.len(),
                "partition taken over"
            );
            let partition = Partition::restored(number, position, past, &self.metrics);
            restored.push((partition, (number, from)));
        }
        Ok(restored)
    }

    /// Forgets partitions that another consumer reads now: what was in hand of them is its to insert.
    fn hand_over(&mut self, partitions: &[u32]) {
        for partition in partitions {
            if self.partitions.remove(partition).is_some() {
                info!(partition, "partition handed over");
            }
        }
    }
}

/// Sleeps until an instant, or for ever.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

fn reject(reasons: Vec<String>, chunk: &mut Chunk, metrics: &IngestMetrics) {
    for reason in reasons {
        metrics.reject(&reason);
        chunk.reject(reason);
    }
}

/// The addresses of a chunk's records, each with the time of the record's first packet.
fn ends(chunk: &Chunk) -> impl Iterator<Item = (IpAddr, u64)> + Send {
    let records = chunk.batches.iter().flat_map(|batch| &batch.records);
    records.flat_map(|Decided { record, .. }| {
        [record.client, record.server].map(|end| (end.ip, record.first_seen_us))
    })
}

fn count(summary: &mut Summary, metrics: &IngestMetrics, chunk: &Chunk) {
    let records = chunk.rows as u64;
    let all = chunk.batches.iter().flat_map(|batch| &batch.records);
    let primary = all.filter(|decided| decided.primary).count() as u64;
    let reports: usize = chunk.batches.iter().map(|batch| batch.coverage.len()).sum();
    summary.records += records;
    summary.primary_records += primary;
    summary.coverage_reports += reports as u64;
    summary.chunks += 1;
    metrics.chunk_rows.observe(records as f64);
    metrics.chunk_bytes.observe(chunk.bytes as f64);
    metrics.record("primary", primary);
    metrics.record("evidence", records - primary);
}
