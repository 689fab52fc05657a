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

use crate::admission::admit;
use crate::chunk::{Chunk, Decided};
use crate::config::Config;
use crate::error::IngestError;
use crate::metrics::IngestMetrics;
use crate::names::Names;
use crate::partition::Partition;
use crate::source::{Envelope, Feed};
use crate::writer::{Abandoned, Writer};

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
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = at(due) => Next::ChunkDue,
                envelope = self.feed.next() => match envelope? {
                    Some(envelope) => Next::Message(envelope),
                    None => break,
                },
            };
            self.drop_revoked();
            if let Next::Message(envelope) = next {
                self.read(envelope);
            }
            let (rows, time) = (self.config.chunk_rows.get(), self.config.chunk_time);
            self.partitions.values_mut().for_each(|partition| partition.cut_if(rows, time));
            if self.write_cut().await.is_err() {
                return Ok(Err(Abandoned));
            }
        }
        self.drop_revoked();
        self.partitions.values_mut().for_each(Partition::cut_now);
        Ok(self.write_cut().await)
    }

    /// Envelope → batch, once → records, decided → chunk.
    fn read(&mut self, envelope: Envelope) {
        self.summary.messages += 1;
        let topic = self.feed.topic();
        let partition = self
            .partitions
            .entry(envelope.partition)
            .or_insert_with(|| Partition::new(&self.metrics));

        let (batch, rejects) = admit(&envelope.payload);
        let first_time = batch.as_ref().is_some_and(|batch| partition.first_time(batch));
        let chunk = partition.chunk_for(&envelope, batch.as_ref());
        match batch {
            None => {
                debug!(envelope.partition, envelope.offset, ?rejects, "message rejected");
                rejects.into_iter().for_each(|reason| chunk.reject(reason));
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
                rejects.into_iter().for_each(|reason| chunk.reject(reason));
                let accepted = partition.decide(batch, topic, envelope.partition);
                partition.accept(accepted);
                self.metrics.message("accepted");
            }
        }
    }

    /// Chunks → named rows → tables → commit.
    async fn write_cut(&mut self) -> Result<(), Abandoned> {
        for (number, partition) in &mut self.partitions {
            while let Some(chunk) = partition.next_cut() {
                self.names.settle(ends(&chunk), SETTLE_TIMEOUT).await;
                let rows = partition.rows(&chunk, self.feed.topic(), &self.names.read());
                self.writer.write(&rows, &self.stop).await?;
                self.metrics.named(&rows.flows);
                self.feed.commit(*number, chunk.end).await;
                count(&mut self.summary, &self.metrics, &chunk);
            }
        }
        Ok(())
    }

    /// Forgets partitions that another consumer reads now: it begins at the last commit.
    fn drop_revoked(&mut self) {
        for partition in self.feed.take_revoked() {
            if self.partitions.remove(&partition).is_some() {
                info!(
                    partition,
                    "partition handed over, what was in hand of it is read again there"
                );
            }
        }
    }
}

enum Next {
    Message(Envelope),
    ChunkDue,
}

/// Sleeps until an instant, or for ever.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant.into()).await,
        None => std::future::pending().await,
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
    metrics.record("primary", primary);
    metrics.record("evidence", records - primary);
}
