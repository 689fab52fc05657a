//! A chunk: consecutive messages of one partition, `[start, end)`, inserted together as one block.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use cityhash_rs::cityhash_102_128;
use flowtrail_schema::batch::MAX_SPAN_S;
use flowtrail_schema::interval::Interval;
use flowtrail_schema::row::DeliveryRow;
use flowtrail_schema::{Coverage, FlowBatch, FlowRecord};

use crate::admission::intervals;
use crate::connections::ConnectionKey;
use crate::points::Point;
use crate::row::{micros, seconds};
use crate::source::{Envelope, Pending};

/// Messages in a chunk, at most: `deliveries` lists them all in one row. One more begins another.
const MAX_MESSAGES: u64 = 10_000;

/// Announced addresses in the rows of `coverage` of a chunk, about: each report's row repeats those of
/// its batch. 16 MiB; with more the chunk is full.
const MAX_ADDRESSES: usize = 1 << 20;

/// What identifies a chunk within a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkId {
    pub(crate) partition: u32,
    /// First offset.
    pub(crate) start: u64,
}

/// A chunk that is being filled.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) id: ChunkId,
    /// First offset after the chunk.
    pub(crate) end: u64,
    /// When its first message came.
    pub(crate) begun: Instant,
    pub(crate) batches: Vec<Accepted>,
    /// Records in `batches`.
    pub(crate) rows: usize,
    /// Bytes of its messages.
    pub(crate) bytes: u64,
    /// Announced addresses in the rows of `coverage`.
    addresses: usize,
    /// Rejects by reason, of whole messages and of records.
    pub(crate) rejected: BTreeMap<String, u64>,
    pub(crate) duplicates: u64,
    /// Messages in it.
    messages: u64,
    /// Offsets that Kafka left out, being past its retention.
    pub(crate) lost: u64,
    /// Earliest and latest interval's start of its records, seconds since the epoch.
    records_s: Option<(u64, u64)>,
    /// The same of all that is in it.
    span_s: Option<(u64, u64)>,
    hash: u64,
    /// What it was when another process began it: something of it may be in the tables.
    pub(crate) begun_as: Option<Pending>,
}

/// A batch that was accepted, its records decided.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) agent: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) agent_start_us: u64,
    pub(crate) sequence: u64,
    pub(crate) records: Vec<FlowRecord>,
    /// One for each record.
    pub(crate) decided: Vec<Decided>,
    /// The agent's reports, if this partition is the one that writes them.
    pub(crate) coverage: Vec<Coverage>,
    pub(crate) announced_addresses: Vec<IpAddr>,
}

/// What was decided about a record.
#[derive(Debug)]
pub(crate) struct Decided {
    /// Where it was observed.
    pub(crate) point: Arc<Point>,
    /// Its connection; a summary is of many.
    pub(crate) connection: Option<ConnectionKey>,
    /// Its observation is the one that counts.
    pub(crate) primary: bool,
}

impl Accepted {
    /// The records and what was decided about them.
    pub(crate) fn decided(&self) -> impl Iterator<Item = (&FlowRecord, &Decided)> {
        self.records.iter().zip(&self.decided)
    }
}

impl Chunk {
    /// An empty chunk.
    pub(crate) fn begin(partition: u32, start: u64) -> Self {
        Self {
            id: ChunkId { partition, start },
            end: start,
            begun: Instant::now(),
            batches: Vec::new(),
            rows: 0,
            bytes: 0,
            addresses: 0,
            rejected: BTreeMap::new(),
            duplicates: 0,
            messages: 0,
            lost: 0,
            records_s: None,
            span_s: None,
            hash: 0,
            begun_as: None,
        }
    }

    /// Whether a batch may join: its days are near those of the others.
    pub(crate) fn takes(&self, batch: Option<&FlowBatch>) -> bool {
        let span = batch.and_then(|batch| widened(self.span_s, span_s(intervals(batch))?.into()));
        span.is_none_or(|(earliest, latest)| latest - earliest <= MAX_SPAN_S)
            && self.messages < MAX_MESSAGES
    }

    /// Takes in the next message, whatever becomes of what is in it.
    pub(crate) fn extend(&mut self, envelope: &Envelope) {
        self.lose_until(envelope.offset);
        self.messages += 1;
        self.end = envelope.offset + 1;
        self.bytes += envelope.payload.len() as u64;
        self.hash = hashed(self.hash, &envelope.payload);
    }

    /// Kafka has nothing before an offset that would belong here.
    pub(crate) fn lose_until(&mut self, offset: u64) {
        self.lost += offset.saturating_sub(self.end);
        self.end = self.end.max(offset);
    }

    /// Counts something rejected.
    pub(crate) fn reject(&mut self, reason: String) {
        *self.rejected.entry(reason).or_default() += 1;
    }

    /// Takes in what was accepted of a message.
    pub(crate) fn accept(&mut self, batch: Accepted) {
        let records_s = span_s(batch.records.iter().map(|record| record.interval));
        let reports_s = span_s(batch.coverage.iter().map(|report| report.interval));
        self.records_s = widened(self.records_s, records_s);
        self.span_s = widened(self.span_s, widened(records_s, reports_s));
        self.rows += batch.records.len();
        self.addresses += batch.coverage.len() * batch.announced_addresses.len();
        self.batches.push(batch);
    }

    /// Whether it holds `rows` records, or as much else.
    pub(crate) fn is_full(&self, rows: usize) -> bool {
        self.rows >= rows || self.addresses >= MAX_ADDRESSES
    }

    /// What it is, for whoever must do it again.
    pub(crate) fn pending(&self) -> Pending {
        self.begun_as.unwrap_or(Pending { end: self.end, hash: self.hash })
    }

    /// Whether its messages are those that it was begun with.
    pub(crate) fn is_as_begun(&self) -> bool {
        self.begun_as.is_none_or(|begun| (begun.end, begun.hash) == (self.end, self.hash))
    }

    /// The deduplication token: the same for the same messages, whoever inserts them when.
    fn token(&self, topic_id: &str) -> String {
        let ChunkId { partition, start } = self.id;
        let Pending { end, hash } = self.pending();
        format!("{topic_id}/{partition}/{start}-{end}/{hash:016x}")
    }

    /// The chunk's row of `deliveries`.
    pub(crate) fn delivery(&self, topic: &str, topic_id: &str) -> DeliveryRow {
        let (earliest, latest) = self.records_s.unwrap_or_default();
        let each = |batch: fn(&Accepted) -> u64| self.batches.iter().map(batch).collect();
        DeliveryRow {
            topic: topic.to_owned(),
            topic_id: topic_id.to_owned(),
            partition: self.id.partition,
            chunk_start: self.id.start,
            chunk_end: self.end,
            token: self.token(topic_id),
            min_interval_start: seconds(earliest),
            max_interval_start: seconds(latest),
            records: self.rows as u64,
            coverage_reports: self.batches.iter().map(|batch| batch.coverage.len() as u64).sum(),
            batch_agents: self.batches.iter().map(|batch| batch.agent.to_string()).collect(),
            batch_agent_starts: self
                .batches
                .iter()
                .map(|batch| micros(batch.agent_start_us))
                .collect(),
            batch_sequences: each(|batch| batch.sequence),
            batch_records: self
                .batches
                .iter()
                .map(|batch| batch.records.len().try_into().unwrap_or(u32::MAX))
                .collect(),
            rejected_reasons: self.rejected.keys().cloned().collect(),
            rejected_counts: self.rejected.values().copied().collect(),
            lost_offsets: self.lost,
            duplicate_batches: self.duplicates,
        }
    }
}

/// Earliest and latest start of intervals, seconds since the epoch.
fn span_s(intervals: impl Iterator<Item = Interval>) -> Option<(u64, u64)> {
    let starts = intervals.map(Interval::start_s).map(|start| (start, start));
    starts.reduce(|(earliest, latest), (start, _)| (earliest.min(start), latest.max(start)))
}

fn widened(a: Option<(u64, u64)>, b: Option<(u64, u64)>) -> Option<(u64, u64)> {
    match (a, b) {
        (Some((earliest, latest)), Some((from, to))) => Some((earliest.min(from), latest.max(to))),
        (a, b) => a.or(b),
    }
}

/// Any odd number would do.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hash of messages in their order: the same in every build, as a token must be (CityHash 1.0.2, the
/// one of ClickHouse's own checksums).
fn hashed(before: u64, message: &[u8]) -> u64 {
    let hash = cityhash_102_128(message);
    before.wrapping_mul(MULTIPLIER) ^ (hash as u64) ^ (hash >> 64) as u64
}
