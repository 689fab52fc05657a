//! The batcher: records and reports, grouped by partition into batches. What cannot leave waits here, up
//! to [`Limits`], and is folded past them. Pure.

mod backlog;
mod limits;
mod summary;

use std::collections::HashSet;
use std::net::IpAddr;

use flowtrail_schema::batch::{MAX_ANNOUNCED_ADDRESSES, MAX_RECORDS, MAX_REPORTS, MAX_SPAN_S};
use flowtrail_schema::interval::Interval;
use flowtrail_schema::topic::partition_of;
use flowtrail_schema::{Coverage, FlowBatch, FlowRecord};

use crate::config::Identity;
use backlog::Backlog;
use summary::Summary;

pub use limits::Limits;

/// Collects records until they are due, then hands out batches with gapless sequence numbers.
///
/// ```text
///            full              full                     full
///  records ───────► summaries ──────► minute summaries ──────► dropped, counted
///     └─────────────────┴─────────────────────┴──► batches: the oldest first, beside new records
/// ```
#[derive(Debug)]
pub struct Batcher {
    identity: Identity,
    agent_start_us: u64,
    limits: Limits,
    announced_addresses: Vec<IpAddr>,
    /// Until it is known how many there are, a single one that nothing leaves.
    partitions: Vec<Partition>,
    assigned: bool,
    /// The partition whose turn it is, so that none waits for the others.
    turn: usize,
    stats: BatcherStats,
}

/// What waits in a batcher now, and what it did so far because too much waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatcherStats {
    /// Records that wait.
    pub records: usize,
    /// Summaries of an interval that wait.
    pub summaries: usize,
    /// Summaries of a minute that wait.
    pub minute_summaries: usize,
    /// Records folded into summaries.
    pub records_folded: u64,
    /// Summaries folded into those of their minutes.
    pub summaries_folded: u64,
    /// Records given up, with those in the summaries given up.
    pub records_dropped: u64,
}

#[derive(Debug, Default)]
struct Partition {
    /// Number of the next batch.
    sequence: u64,
    backlog: Backlog,
    reports: Vec<Coverage>,
    /// An interval ended: all that is here must leave, be it only the report.
    due: bool,
}

impl Partition {
    /// Whether there is something to send: when the batcher is pressed, anything.
    fn is_due(&self, pressed: bool) -> bool {
        self.due
            || self.backlog.records() >= MAX_RECORDS
            || self.backlog.has_summaries()
            || (pressed && self.backlog.records() > 0)
    }

    /// What goes into the next batch: from the oldest on, as long as it is near enough in time. With the
    /// last of it the partition is no longer due.
    fn take(&mut self) -> (Vec<Coverage>, Vec<FlowRecord>) {
        let mut span = Span::default();
        let near = self.reports.iter().take_while(|report| span.takes(report.interval)).count();
        let reports = self.reports.drain(..near).collect();
        let records = self.backlog.take(&mut span);
        self.due &= !(self.backlog.is_empty() && self.reports.is_empty());
        (reports, records)
    }
}

/// The intervals of a batch: a file may jump from one year to another, a batch may not.
#[derive(Debug, Default)]
struct Span {
    bounds: Option<(u64, u64)>,
}

impl Span {
    /// Whether an interval can be in the batch too. The first always can.
    fn takes(&mut self, interval: Interval) -> bool {
        let start_s = interval.start_s();
        let (earliest, latest) = self.bounds.unwrap_or((start_s, start_s));
        let bounds = (earliest.min(start_s), latest.max(start_s));
        let near = bounds.1 - bounds.0 <= MAX_SPAN_S;
        if near {
            self.bounds = Some(bounds);
        }
        near
    }
}

impl Batcher {
    /// For an agent that started at a time. Nothing leaves before [`Batcher::assign`].
    pub fn new(identity: Identity, agent_start_us: u64, limits: Limits) -> Self {
        Self {
            identity,
            agent_start_us,
            limits,
            announced_addresses: Vec::new(),
            partitions: vec![Partition::default()],
            assigned: false,
            turn: 0,
            stats: BatcherStats::default(),
        }
    }

    /// Tells of how many partitions the topic is (at least 1); only the first time counts, for numbers
    /// and partitions of batches stay what they are.
    pub fn assign(&mut self, partitions: u32) {
        if std::mem::replace(&mut self.assigned, true) {
            return;
        }
        let count = partitions.max(1);
        let mut backlogs: Vec<_> = (0..count).map(|_| Backlog::default()).collect();
        let (mut reports, mut due) = (Vec::new(), false);
        for unassigned in self.partitions.drain(..) {
            unassigned.backlog.distribute(&mut backlogs, |record| {
                partition_of(record.connection_id, record.id_kind, count) as usize
            });
            (reports, due) = (unassigned.reports, unassigned.due);
        }
        let partition = |backlog| Partition { sequence: 0, backlog, reports: reports.clone(), due };
        self.partitions = backlogs.into_iter().map(partition).collect();
        self.count();
    }

    /// Adds a record. It is due with its partition's next full batch, or at the interval's end. If too
    /// many wait the oldest are folded.
    pub fn push(&mut self, record: FlowRecord) {
        if let Some(partition) = self.partition_of(&record) {
            partition.backlog.push(record);
            self.stats.records += 1;
        }
        if self.stats.records > self.limits.records {
            self.fold();
        }
    }

    /// Folds and drops what is too much at each level. Of all partitions alike, for records are spread
    /// over them by a hash: the oldest of each are the oldest of all.
    fn fold(&mut self) {
        while self.stats.records > self.limits.records {
            (0..self.partitions.len()).for_each(|index| self.fold_records(index));
            self.count();
        }
        while self.stats.summaries > self.limits.summaries {
            let backlogs = self.partitions.iter_mut().map(|partition| &mut partition.backlog);
            self.stats.summaries_folded += backlogs.map(Backlog::fold_summaries).sum::<u64>();
            self.count();
        }
        while self.stats.minute_summaries > self.limits.minute_summaries {
            let backlogs = self.partitions.iter_mut().map(|partition| &mut partition.backlog);
            self.stats.records_dropped += backlogs.map(Backlog::drop_minutes).sum::<u64>();
            self.count();
        }
    }

    /// Folds the oldest records of one partition. Their summaries may belong to others.
    fn fold_records(&mut self, index: usize) {
        let oldest = self.partitions.get(index).map_or(0, |p| p.backlog.oldest_records());
        for _ in 0..oldest {
            let partition = self.partitions.get_mut(index);
            let Some(record) = partition.and_then(|p| p.backlog.pop_record()) else { return };
            let summary = Summary::of(record);
            if let Some(partition) = self.partition_of(&summary.record) {
                partition.backlog.add(summary);
            }
            self.stats.records_folded += 1;
        }
    }

    fn partition_of(&mut self, record: &FlowRecord) -> Option<&mut Partition> {
        let count = self.partitions.len() as u32;
        let index = partition_of(record.connection_id, record.id_kind, count);
        self.partitions.get_mut(index as usize)
    }

    /// Counts what waits.
    fn count(&mut self) {
        let backlogs = || self.partitions.iter().map(|partition| &partition.backlog);
        self.stats.records = backlogs().map(Backlog::records).sum();
        self.stats.summaries = backlogs().map(Backlog::summaries).sum();
        self.stats.minute_summaries = backlogs().map(Backlog::minute_summaries).sum();
    }

    /// Ends an interval: every partition is due a batch with the report, maybe without records. Of
    /// the reports for a partition whose batches cannot leave, the oldest go past the cap: that a
    /// report is missing says that something was wrong. Addresses stay announced while something waits
    /// from when they were. Returns how many addresses are too many.
    pub fn end_interval(&mut self, report: Coverage, mut announced: Vec<IpAddr>) -> u64 {
        // What waits from earlier intervals is of addresses announced then, be they gone by now.
        if self.partitions.iter().any(|partition| partition.due) {
            let known: HashSet<IpAddr> = announced.iter().copied().collect();
            announced.extend(self.announced_addresses.iter().filter(|it| !known.contains(it)));
        }
        let refused = announced.len().saturating_sub(MAX_ANNOUNCED_ADDRESSES);
        announced.truncate(MAX_ANNOUNCED_ADDRESSES);
        self.announced_addresses = announced;
        for partition in &mut self.partitions {
            if partition.reports.len() == MAX_REPORTS {
                partition.reports.remove(0);
            }
            partition.reports.push(report);
            partition.due = true;
        }
        refused as u64
    }

    /// Whether half of the records that may wait do: all of them should leave, due or not. Asking costs
    /// next to nothing.
    pub fn is_pressed(&self) -> bool {
        self.stats.records > self.limits.records / 2
    }

    /// The next batch that is due: each partition has its turn.
    pub fn pop(&mut self) -> Option<FlowBatch> {
        if !self.assigned {
            return None;
        }
        let pressed = self.is_pressed();
        let count = self.partitions.len();
        let mut turns = (self.turn..count).chain(0..self.turn);
        let is_due = |index: &usize| self.partitions.get(*index).is_some_and(|p| p.is_due(pressed));
        let index = turns.find(is_due)?;
        self.turn = (index + 1) % count;
        let partition = self.partitions.get_mut(index)?;
        let sequence = partition.sequence;
        partition.sequence += 1;
        let (coverage, records) = partition.take();
        self.count();
        Some(FlowBatch {
            agent: self.identity.agent.clone(),
            node: self.identity.node.clone(),
            agent_start_us: self.agent_start_us,
            partition: index as u32,
            sequence,
            records,
            coverage,
            announced_addresses: self.announced_addresses.clone(),
        })
    }

    /// What waits, and what became of what waited too long.
    pub fn stats(&self) -> BatcherStats {
        self.stats
    }

    /// Gives up all that waits, at the end, and says how many records that is, with those that were
    /// folded.
    pub fn drop_all(&mut self) -> u64 {
        let backlogs = self.partitions.iter_mut().map(|partition| &mut partition.backlog);
        let records = backlogs.map(Backlog::drop_all).sum();
        self.count();
        records
    }
}

#[cfg(test)]
mod tests;
