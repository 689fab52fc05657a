//! The way of a message: envelope → batch → decided records → chunk → named rows → tables → commit.
//!
//! Each stage's outcome is counted. What is in hand is bounded by a chunk per partition and two on their
//! way, and nothing is read while one more waits to be on its way.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::admission::{Plausible, admit};
use crate::chunk::{Chunk, ChunkId};
use crate::config::Config;
use crate::dead_letters::DeadLetters;
use crate::error::IngestError;
use crate::metrics::{IngestMetrics, Named};
use crate::names::Names;
use crate::partition::Partition;
use crate::position::position;
use crate::source::{Commits, Envelope, Event, Feed, Lost};
use crate::writer::{Abandoned, Rows, Writer, Written};

/// Pause after the first failure to take partitions over; it doubles with each further one.
const TAKE_OVER_RETRY: Duration = Duration::from_millis(200);

/// Longest such pause: how long after Kafka and ClickHouse are back ingest may still wait.
const LONGEST_TAKE_OVER_RETRY: Duration = Duration::from_secs(10);

/// Chunks that are written at once, each of another partition: one is packed and sorted while the other
/// is stored. With more, memory for their rows grows and ClickHouse has more parts to merge.
const MAX_WRITES: usize = 2;

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
    pub(crate) writer: Arc<Writer>,
    pub(crate) metrics: IngestMetrics,
    /// When to stop reading and to give up what cannot be inserted: never for a source that must drain.
    pub(crate) stop: CancellationToken,
    pub(crate) partitions: BTreeMap<u32, Partition>,
    /// Chunks on their way, [`MAX_WRITES`] at most.
    pub(crate) writes: JoinSet<Ended>,
    /// Where they are from.
    pub(crate) writing: HashSet<Place>,
    /// Times that partitions were taken over.
    pub(crate) epochs: u64,
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
        // They hold the consumer.
        self.writes.shutdown().await;
        self.feed.close().await;
        finished.map(|_| self.summary)
    }

    async fn read_and_write(&mut self) -> Result<Result<(), Abandoned>, IngestError> {
        loop {
            if self.begin_writes().await.is_err() {
                return Ok(Err(Abandoned));
            }
            // What is cut is on its way before more is read: that bounds memory.
            let reading = !self.partitions.values().any(Partition::has_cut);
            let due = self.partitions.values().filter_map(|p| p.due(self.config.chunk_time)).min();
            let event = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(ended) = self.writes.join_next(), if !self.writes.is_empty() => {
                    if self.write_ended(ended).is_err() {
                        return Ok(Err(Abandoned));
                    }
                    continue;
                }
                () = at(due), if reading => None,
                event = self.feed.next(), if reading => Some(event?),
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
        }
        self.partitions.values_mut().for_each(Partition::cut_last);
        Ok(self.write_all().await)
    }

    /// Writes all that is cut.
    async fn write_all(&mut self) -> Result<(), Abandoned> {
        loop {
            self.begin_writes().await?;
            match self.writes.join_next().await {
                Some(ended) => self.write_ended(ended)?,
                None => return Ok(()),
            }
        }
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
                let accepted = partition.decide(batch, topic);
                partition.accept(accepted);
                self.metrics.message("accepted");
            }
        }
    }

    /// Chunks → named rows → on their way: one of each partition at a time, as the next one begins where
    /// it ends.
    async fn begin_writes(&mut self) -> Result<(), Abandoned> {
        let topic = self.feed.topic();
        for (number, partition) in &mut self.partitions {
            let place = (*number, partition.epoch());
            if self.writes.len() >= MAX_WRITES {
                break;
            }
            if self.writing.contains(&place) {
                continue;
            }
            let Some(chunk) = partition.next_cut() else { continue };
            let mut found = Some(Written::new());
            if chunk.begun_as.is_some() {
                let delivery = chunk.delivery(&topic.name, &topic.id);
                found = self.writer.written(&delivery, chunk.is_as_begun(), &self.stop).await?;
            }
            let rows = match found {
                Some(found) => {
                    self.names.settle(ends(&chunk), SETTLE_TIMEOUT).await;
                    let named = self.metrics.names();
                    Some(partition.rows(&chunk, topic, &self.names.read(), found, named))
                }
                // All of it is there.
                None => None,
            };
            self.dead_letters.flush(LETTERS_TIMEOUT).await;
            self.writing.insert(place);
            let (writer, commits) = (Arc::clone(&self.writer), self.feed.commits());
            let stop = self.stop.clone();
            self.writes.spawn(async move {
                let outcome = write(&writer, &commits, &chunk, rows.as_ref(), &stop).await;
                Ended { place, chunk, named: rows.map(|rows| rows.named), outcome }
            });
        }
        Ok(())
    }

    /// Counts a chunk that is in the tables, or gives up a partition that is another's.
    fn write_ended(&mut self, ended: Result<Ended, JoinError>) -> Result<(), Abandoned> {
        let Ended { place, chunk, named, outcome } = match ended {
            Ok(ended) => ended,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.writing.remove(&place);
        match outcome {
            Ok(()) => {
                named.iter().for_each(|named| self.metrics.named(named));
                count(&mut self.summary, &self.metrics, &chunk);
                Ok(())
            }
            Err(Unwritten::Lost) => {
                let (number, epoch) = place;
                if self.partitions.get(&number).is_some_and(|there| there.epoch() == epoch) {
                    self.hand_over(&[number]);
                }
                Ok(())
            }
            Err(Unwritten::Abandoned) => Err(Abandoned),
        }
    }

    /// Takes partitions over as they were left: state from the tables, then messages.
    async fn take_over(&mut self, partitions: &[u32]) -> Result<(), IngestError> {
        self.partitions.retain(|number, _| !partitions.contains(number));
        // What this process itself has on the way of them is not another's.
        while self.writing.iter().any(|(number, _)| partitions.contains(number)) {
            let Some(ended) = self.writes.join_next().await else { break };
            if self.write_ended(ended).is_err() {
                return Ok(());
            }
        }
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
            self.epochs += 1;
            let epoch = self.epochs;
            let partition = Partition::restored(number, epoch, position, past, &self.metrics);
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

/// A write that has ended.
pub(crate) struct Ended {
    place: Place,
    chunk: Chunk,
    named: Option<Named>,
    outcome: Result<(), Unwritten>,
}

/// A partition's number, and which of the times that it was taken over.
type Place = (u32, u64);

/// Why a chunk is not in the tables.
enum Unwritten {
    /// Its partition is another's.
    Lost,
    /// Shutdown came first.
    Abandoned,
}

/// Begun → tables → finished. Without rows it is in the tables already.
async fn write(
    writer: &Writer,
    commits: &Commits,
    chunk: &Chunk,
    rows: Option<&Rows>,
    stop: &CancellationToken,
) -> Result<(), Unwritten> {
    let ChunkId { partition, start } = chunk.id;
    if let Err(Lost) = commits.begin(partition, start, chunk.pending(), stop).await {
        return Err(Unwritten::Lost);
    }
    if let Some(rows) = rows {
        writer.write(rows, stop).await.map_err(|Abandoned| Unwritten::Abandoned)?;
    }
    commits.finish(partition, chunk.end).await;
    Ok(())
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
    records
        .flat_map(|record| [record.client, record.server].map(|end| (end.ip, record.first_seen_us)))
}

fn count(summary: &mut Summary, metrics: &IngestMetrics, chunk: &Chunk) {
    let records = chunk.rows as u64;
    let all = chunk.batches.iter().flat_map(|batch| &batch.decided);
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
