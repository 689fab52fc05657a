//! What ingest knows of one partition: its past, as far as decisions need it, and the chunk in hand.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use flowtrail_schema::topic::coverage_partition;
use flowtrail_schema::{Detail, FlowBatch, FlowRecord};

use tracing::warn;

use crate::chunk::{Accepted, Chunk, Decided};
use crate::columns::{FlowColumns, NamedRecord};
use crate::connections::{Connections, MAX_CONNECTIONS};
use crate::dedup::Dedup;
use crate::identity::IdentityIndex;
use crate::metrics::IngestMetrics;
use crate::naming::{directed, named};
use crate::primary::{Announcements, is_primary, is_primary_summary};
use crate::row::coverage_row;
use crate::source::{Envelope, Topic};
use crate::writer::Rows;

/// One partition's state.
pub(crate) struct Partition {
    dedup: Dedup,
    announced: Announcements,
    connections: Connections,
    /// First offset that was not read yet, once one was.
    next_offset: Option<u64>,
    chunk: Option<Chunk>,
    /// Chunks that are cut and wait to be written: written before another message is read, so two
    /// at most.
    cut: VecDeque<Chunk>,
}

impl Partition {
    /// A partition that nothing is known of yet.
    pub(crate) fn new(metrics: &IngestMetrics) -> Self {
        Self {
            dedup: Dedup::new(metrics.overflow("batch_numbers")),
            announced: Announcements::new(metrics.overflow("announcements")),
            connections: Connections::new(MAX_CONNECTIONS, metrics.overflow("connections")),
            next_offset: None,
            chunk: None,
            cut: VecDeque::new(),
        }
    }

    /// The chunk that a message goes to.
    pub(crate) fn chunk_for(
        &mut self,
        envelope: &Envelope,
        batch: Option<&FlowBatch>,
    ) -> &mut Chunk {
        if self.chunk.as_ref().is_some_and(|chunk| !chunk.takes(envelope, batch)) {
            self.cut_now();
        }
        let chunk = self.chunk.get_or_insert_with(|| Chunk::begin(envelope));
        chunk.extend(envelope);
        let expected = self.next_offset.replace(envelope.offset + 1);
        // Nothing in the topic is compacted or transactional, so its offsets have no gaps of their own.
        let lost = expected.map_or(0, |expected| envelope.offset.saturating_sub(expected));
        if lost > 0 {
            warn!(
                envelope.partition,
                envelope.offset,
                lost,
                "kafka no longer has these messages: its retention is shorter than the lag"
            );
            chunk.lost += lost;
        }
        chunk
    }

    /// Whether the batch comes for the first time.
    pub(crate) fn first_time(&mut self, batch: &FlowBatch) -> bool {
        self.dedup.first_time(batch)
    }

    /// Decides which records are of their connections' primary observations.
    pub(crate) fn decide(&mut self, batch: FlowBatch, topic: &Topic, partition: u32) -> Accepted {
        let Self { announced, connections, .. } = self;
        announced.renew(&batch);
        let FlowBatch { agent, node, records, coverage, announced_addresses, .. } = batch;
        let mut decide = |record: FlowRecord| {
            let primary = if record.detail == Detail::Flow {
                let connection = connections.observe(&record, &agent, &node);
                is_primary(&record, &agent, connection, announced)
            } else {
                is_primary_summary(&record, &agent, announced)
            };
            Decided { record, primary }
        };
        let records = records.into_iter().map(&mut decide).collect();
        let writes_coverage = coverage_partition(&agent, topic.partitions) == partition;
        Accepted {
            records,
            agent_start_us: batch.agent_start_us,
            sequence: batch.sequence,
            coverage: if writes_coverage { coverage } else { Vec::new() },
            announced_addresses,
            agent,
            node,
        }
    }

    /// Adds what was accepted of a message to its chunk.
    pub(crate) fn accept(&mut self, accepted: Accepted) {
        if let Some(chunk) = &mut self.chunk {
            chunk.accept(accepted);
        }
    }

    /// Names the records of a chunk, by then all observed, and makes their rows.
    pub(crate) fn rows(&mut self, chunk: &Chunk, topic: &Topic, index: &IdentityIndex) -> Rows {
        let (mut flows, mut coverage) = (FlowColumns::with_capacity(chunk.rows), Vec::new());
        for batch in &chunk.batches {
            for decided in &batch.records {
                self.push_named(&mut flows, decided, batch, chunk, index);
            }
            let reports = batch.coverage.iter().map(|report| coverage_row(report, batch, chunk.id));
            coverage.extend(reports);
        }
        let delivery = chunk.delivery(&topic.name, &topic.id);
        Rows { flows: flows.finish(), coverage, delivery }
    }

    fn push_named(
        &mut self,
        flows: &mut FlowColumns,
        decided: &Decided,
        batch: &Accepted,
        chunk: &Chunk,
        index: &IdentityIndex,
    ) {
        let Decided { record, primary } = decided;
        // A summary is of many connections.
        let single = record.detail == Detail::Flow;
        let mut connection =
            if single { self.connections.find(record, &batch.agent) } else { None };
        let record = directed(record, &batch.node, connection.as_deref_mut(), index);
        let names = named(&record, &batch.node, connection, index);
        flows.push(NamedRecord {
            record: &record,
            names: &names,
            primary: *primary,
            batch,
            chunk: chunk.id,
        });
    }

    /// When the chunk in hand must be cut, whatever is in it.
    pub(crate) fn due(&self, chunk_time: Duration) -> Option<Instant> {
        self.chunk.as_ref().map(|chunk| chunk.begun + chunk_time)
    }

    /// Cuts the chunk in hand if it is full or its time is over.
    pub(crate) fn cut_if(&mut self, rows: usize, time: Duration) {
        let full = |chunk: &Chunk| chunk.is_full(rows) || chunk.begun.elapsed() >= time;
        if self.chunk.as_ref().is_some_and(full) {
            self.cut_now();
        }
    }

    /// Cuts the chunk in hand.
    pub(crate) fn cut_now(&mut self) {
        self.cut.extend(self.chunk.take());
    }

    /// The next chunk to write.
    pub(crate) fn next_cut(&mut self) -> Option<Chunk> {
        self.cut.pop_front()
    }
}
