//! What ingest knows of one partition: its past, as far as decisions need it, and the chunk in hand.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use flowtrail_schema::topic::coverage_partition;
use flowtrail_schema::{Detail, FlowBatch, FlowRecord};

use tracing::warn;

use crate::chunk::{Accepted, Chunk, ChunkId, Decided};
use crate::columns::{FlowColumns, NamedRecord};
use crate::connections::{Connections, MAX_CONNECTIONS};
use crate::dedup::Dedup;
use crate::identity::IdentityIndex;
use crate::journal::Past;
use crate::metrics::{IngestMetrics, Named};
use crate::naming::{directed, named};
use crate::points::Points;
use crate::position::Position;
use crate::primary::{Announcements, is_primary, is_primary_summary};
use crate::row::coverage_row;
use crate::source::{Envelope, Pending, Topic};
use crate::writer::{Rows, Written};

/// Seconds of a day (UTC), by which `flows` is partitioned.
pub(crate) const DAY_S: u64 = 86_400;

/// Records that become rows at once: few enough to stay in a core's cache, with their names.
const ROWS_AT_ONCE: usize = 256;

/// One partition's state.
pub(crate) struct Partition {
    number: u32,
    /// Tells this time that the partition is this process's from others.
    epoch: u64,
    dedup: Dedup,
    announced: Announcements,
    connections: Connections,
    points: Points,
    /// What comes before is read once more, for the announcements in it.
    recalled_until: u64,
    /// First offset that no chunk has taken yet.
    next_offset: u64,
    /// The chunk at `next_offset` that an earlier process began: the same messages must be in it again.
    pending: Option<Pending>,
    chunk: Option<Chunk>,
    /// Chunks that are cut and wait to be written: no message is read meanwhile, so two at most.
    cut: VecDeque<Chunk>,
}

impl Partition {
    /// A partition as it was left.
    pub(crate) fn restored(
        number: u32,
        epoch: u64,
        position: Position,
        past: Past,
        metrics: &IngestMetrics,
    ) -> Self {
        let mut partition = Self {
            number,
            epoch,
            dedup: Dedup::new(metrics.overflow("batch_numbers")),
            announced: Announcements::new(metrics.overflow("announcements")),
            connections: Connections::new(MAX_CONNECTIONS, metrics.overflow("connections")),
            points: Points::default(),
            recalled_until: position.next,
            next_offset: position.next,
            pending: position.pending,
            chunk: None,
            cut: VecDeque::new(),
        };
        past.numbers.iter().for_each(|numbers| partition.dedup.restore(number, numbers));
        for mut observation in past.connections {
            observation.point = partition.points.copy(observation.point);
            partition.connections.restore(observation);
        }
        partition
    }

    /// Which of the times that a partition was taken over this is.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a message was dealt with before this process began, and is read for what it announces.
    pub(crate) fn is_recalled(&self, envelope: &Envelope) -> bool {
        envelope.offset < self.recalled_until
    }

    /// Takes in what a message of the past announces.
    pub(crate) fn recall(&mut self, batch: &FlowBatch) {
        self.announced.renew(batch);
    }

    /// The chunk that a message goes to.
    pub(crate) fn chunk_for(
        &mut self,
        envelope: &Envelope,
        batch: Option<&FlowBatch>,
    ) -> &mut Chunk {
        // Nothing in the topic is compacted or transactional, so its offsets have no gaps of their own.
        if envelope.offset > self.next_offset {
            warn!(
                envelope.partition,
                from = self.next_offset,
                to = envelope.offset,
                "kafka no longer has these messages: its retention is shorter than the lag"
            );
        }
        if let Some(Pending { end, .. }) = self.pending
            && envelope.offset >= end
        {
            let (number, start) = (self.number, self.next_offset);
            let chunk = self.chunk.get_or_insert_with(|| Chunk::begin(number, start));
            chunk.lose_until(end);
            self.next_offset = end;
            self.cut_now();
        }
        if self.pending.is_none() && self.chunk.as_ref().is_some_and(|chunk| !chunk.takes(batch)) {
            self.cut_now();
        }
        let (number, start) = (self.number, self.next_offset);
        self.next_offset = envelope.offset + 1;
        let chunk = self.chunk.get_or_insert_with(|| Chunk::begin(number, start));
        chunk.extend(envelope);
        chunk
    }

    /// Whether the batch comes for the first time.
    pub(crate) fn first_time(&mut self, batch: &FlowBatch) -> bool {
        self.dedup.first_time(batch)
    }

    /// Decides which records are of their connections' primary observations.
    pub(crate) fn decide(&mut self, batch: FlowBatch, topic: &Topic) -> Accepted {
        let Self { announced, connections, points, .. } = self;
        announced.renew(&batch);
        let FlowBatch { agent, node, records, coverage, announced_addresses, .. } = batch;
        let mut points = points.of_batch(&agent, &node);
        connections.bring_near_alike(&records);
        let decide = |record: &FlowRecord| {
            let point = points.point(&record.interface);
            if record.detail == Detail::Flow {
                let (key, connection) = connections.observe(record, &point);
                let primary = is_primary(record, &point, connection, announced);
                Decided { point, connection: Some(key), primary }
            } else {
                let primary = is_primary_summary(record, &agent, announced);
                Decided { point, connection: None, primary }
            }
        };
        let decided = records.iter().map(decide).collect();
        let writes_coverage = coverage_partition(&agent, topic.partitions) == self.number;
        Accepted {
            records,
            decided,
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

    /// Names the records of a chunk, by then all observed, and makes their rows; but of days that were
    /// written before, the rows are those that were written, and not counted.
    pub(crate) fn rows(
        &mut self,
        chunk: &Chunk,
        topic: &Topic,
        index: &IdentityIndex,
        written: Written,
        mut named: Named,
    ) -> Rows {
        let mut days: BTreeMap<u64, FlowColumns> = BTreeMap::new();
        let mut coverage = Vec::new();
        let mut some = Vec::with_capacity(ROWS_AT_ONCE);
        for batch in &chunk.batches {
            let mut decided = batch.decided().peekable();
            while let Some((first, _)) = decided.peek() {
                let day = day_of(first);
                let of_day =
                    std::iter::from_fn(|| decided.next_if(|(next, _)| day_of(next) == day));
                some.extend(of_day.take(ROWS_AT_ONCE));
                if !written.contains_key(&day) {
                    // Most often all rows are of one day.
                    let room = if days.is_empty() { chunk.rows } else { 0 };
                    let columns =
                        days.entry(day).or_insert_with(|| FlowColumns::with_capacity(room));
                    let rows = self.named(&some, chunk.id, topic, index);
                    rows.iter().for_each(|row| named.count(row));
                    columns.extend(&rows);
                }
                some.clear();
            }
            let reports = batch.coverage.iter();
            coverage.extend(reports.map(|report| coverage_row(report, batch, topic, chunk.id)));
        }
        let mut flows = written;
        flows.extend(days.into_iter().map(|(day, columns)| (day, columns.finish())));
        let mut delivery = chunk.delivery(&topic.name, &topic.id);
        delivery.records = flows.values().map(|rows| rows.count as u64).sum();
        Rows { flows, coverage, delivery, named }
    }

    /// Records, their directions settled, with the names of their ends.
    fn named<'a>(
        &mut self,
        records: &[(&'a FlowRecord, &'a Decided)],
        chunk: ChunkId,
        topic: &'a Topic,
        index: &IdentityIndex,
    ) -> Vec<NamedRecord<'a>> {
        self.connections.bring_near(records.iter().filter_map(|(_, decided)| decided.connection));
        let name = |(record, decided): &(&'a FlowRecord, &'a Decided)| {
            let node = &decided.point.node;
            let mut connection = decided.connection.and_then(|key| self.connections.get(key));
            let record = directed(record, node, connection.as_deref_mut(), index);
            let names = named(&record, node, connection, index);
            let Decided { primary, point, .. } = decided;
            NamedRecord { record, names, primary: *primary, point, topic_id: &topic.id, chunk }
        };
        records.iter().map(name).collect()
    }

    /// When the chunk in hand must be cut, whatever is in it.
    pub(crate) fn due(&self, chunk_time: Duration) -> Option<Instant> {
        let chunk = self.chunk.as_ref().filter(|_| self.pending.is_none());
        chunk.map(|chunk| chunk.begun + chunk_time)
    }

    /// Cuts the chunk in hand if it is full or its time is over; one that was begun before, if it is
    /// what it was then.
    pub(crate) fn cut_if(&mut self, rows: usize, time: Duration) {
        let due = self.chunk.as_ref().is_some_and(|chunk| match self.pending {
            Some(pending) => chunk.end >= pending.end,
            None => chunk.is_full(rows) || chunk.begun.elapsed() >= time,
        });
        if due {
            self.cut_now();
        }
    }

    /// Cuts the chunk in hand; one that was begun before and is not complete yet is left to whoever
    /// comes after.
    pub(crate) fn cut_last(&mut self) {
        match self.pending {
            Some(_) => self.chunk = None,
            None => self.cut_now(),
        }
    }

    fn cut_now(&mut self) {
        if let Some(mut chunk) = self.chunk.take() {
            chunk.begun_as = self.pending.take();
            self.cut.push_back(chunk);
        }
    }

    /// Whether a chunk waits to be written.
    pub(crate) fn has_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// The next chunk to write.
    pub(crate) fn next_cut(&mut self) -> Option<Chunk> {
        self.cut.pop_front()
    }
}

fn day_of(record: &FlowRecord) -> u64 {
    record.interval.start_s() / DAY_S
}
