//! The recorder: what workers have seen and made, to reports and batches. One thread, whatever the number
//! of workers; it never makes them wait for the output. Time is what the workers tell.

use std::collections::BTreeMap;

use flowtrail_schema::{Coverage, FlowBatch};
use tokio::sync::mpsc::error::{SendError, TrySendError};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::batcher::{Batcher, BatcherStats};
use crate::flow_table::{FlowTableStats, Shared};
use crate::metrics::{CaptureMetrics, SkippedLabels};
use crate::reports::Reports;
use crate::worker::Progress;

/// What an agent has seen and made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Packets of the watched interfaces, or of the file.
    pub packets: u64,
    /// Of these, the ones that are in no record, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Packets that the kernel dropped because the ring was full.
    pub dropped: u64,
    /// Records made.
    pub records: u64,
    /// Of these, the ones given up because the output did not take them and too many waited.
    pub records_dropped: u64,
    /// Of these, the ones that still waited for the output when everything ended.
    pub records_undelivered: u64,
    /// Time of the earliest packet, microseconds since the epoch.
    pub first_packet_us: Option<u64>,
    /// Time of the latest packet, microseconds since the epoch.
    pub last_packet_us: Option<u64>,
}

/// The queue towards the output, and what to do when it is full.
#[derive(Debug)]
pub(crate) enum Queue {
    /// Packets do not wait: what does not fit stays in the batcher, which folds and drops.
    Passing(mpsc::Sender<FlowBatch>),
    /// A file can wait.
    Waiting(mpsc::Sender<FlowBatch>),
}

/// The output is gone: there is nothing left to record for.
#[derive(Debug)]
pub(crate) struct OutputGone;

pub(crate) struct Recorder {
    shared: Shared,
    reports: Reports,
    batcher: Batcher,
    /// Tells the number of partitions, once.
    partitions: Option<oneshot::Receiver<u32>>,
    queue: Queue,
    metrics: CaptureMetrics,
    summary: Summary,
    /// Of the batcher, when an interval last ended.
    folded: BatcherStats,
    /// By worker: how far it has come, and what its table holds.
    until_us: Vec<u64>,
    tables: Vec<FlowTableStats>,
}

impl Recorder {
    pub(crate) fn new(
        workers: usize,
        shared: Shared,
        reports: Reports,
        batcher: Batcher,
        partitions: oneshot::Receiver<u32>,
        queue: Queue,
        metrics: CaptureMetrics,
    ) -> Self {
        Self {
            shared,
            reports,
            batcher,
            partitions: Some(partitions),
            queue,
            metrics,
            summary: Summary::default(),
            folded: BatcherStats::default(),
            until_us: vec![0; workers],
            tables: vec![FlowTableStats::default(); workers],
        }
    }

    /// Takes what workers tell until all of them have ended, or the output has.
    pub(crate) fn run(mut self, mut workers: mpsc::Receiver<Progress>) -> Summary {
        if matches!(self.queue, Queue::Waiting(_)) {
            // A file waits for its output: nothing of it is folded meanwhile.
            self.wait_for_partitions();
        }
        while let Some(progress) = workers.blocking_recv() {
            if self.take(progress).is_err() {
                self.give_up();
                return self.summary;
            }
        }
        self.finish()
    }

    /// Takes what a worker tells, and sends what is due.
    pub(crate) fn take(&mut self, progress: Progress) -> Result<(), OutputGone> {
        let worker = progress.worker;
        self.count(&progress);
        if let Some(until_us) = self.until_us.get_mut(worker) {
            *until_us = progress.until_us;
        }
        if let Some(table) = self.tables.get_mut(worker) {
            *table = progress.table;
        }
        self.summary.records += progress.records.len() as u64;
        self.metrics.records.inc_by(progress.records.len() as u64);
        for record in progress.records {
            self.reports.at(record.interval.start_us()).records_emitted += 1;
            self.batcher.push(record);
            // A cut may bring more at once than may wait.
            if self.batcher.is_pressed() {
                self.send()?;
            }
        }
        while let Some(report) = self.reports.due(self.now_us(), self.shared.watched()) {
            self.end_interval(report);
            self.send()?;
        }
        self.send()
    }

    /// What all workers have told of.
    fn now_us(&self) -> u64 {
        self.until_us.iter().copied().min().unwrap_or_default()
    }

    fn count(&mut self, progress: &Progress) {
        let Self { summary, metrics, .. } = self;
        summary.packets += progress.packets;
        for (reason, packets) in &progress.skipped {
            *summary.skipped.entry(reason).or_default() += packets;
            metrics.packets_skipped.get_or_create(&SkippedLabels { reason }).inc_by(*packets);
        }
        summary.dropped += progress.dropped;
        metrics.packets_dropped.inc_by(progress.dropped);
        let first = [summary.first_packet_us, progress.first_packet_us].into_iter().flatten().min();
        summary.first_packet_us = first;
        summary.last_packet_us = summary.last_packet_us.max(progress.last_packet_us);
        for (interval, packets) in &progress.packets_by_interval {
            self.reports.at(interval.start_us()).packets_seen += packets;
        }
        if progress.dropped > 0 || progress.evicted > 0 {
            let report = self.reports.at(progress.until_us);
            report.packets_dropped += progress.dropped;
            report.flows_evicted += progress.evicted;
        }
    }

    /// Ends everything: all records, and the reports up to now. Here a live agent waits for the
    /// output too, for there is nothing left that it could miss.
    pub(crate) fn finish(mut self) -> Summary {
        let now_us = self.until_us.iter().copied().max().unwrap_or_default();
        self.queue = match self.queue {
            Queue::Passing(sender) | Queue::Waiting(sender) => Queue::Waiting(sender),
        };
        self.wait_for_partitions();
        let mut sent = self.send();
        while let Some(report) = self.reports.last(now_us, self.shared.watched()) {
            self.end_interval(report);
            sent = sent.and_then(|()| self.send());
        }
        self.give_up();
        self.summary
    }

    /// If the output ends before it knows their number, the queue ends with it.
    fn wait_for_partitions(&mut self) {
        if let Some(Ok(partitions)) = self.partitions.take().map(oneshot::Receiver::blocking_recv) {
            self.batcher.assign(partitions);
        }
    }

    fn end_interval(&mut self, report: Coverage) {
        self.metrics.set_tables(&self.tables, self.shared.refusals());
        self.metrics.interfaces.set(report.interfaces.into());
        if report.packets_dropped > 0 {
            let packets = report.packets_dropped;
            warn!(packets, "the kernel dropped packets: the agent was too slow for them");
        }
        self.warn_of_folded();
        if report.records_dropped > 0 {
            let records = report.records_dropped;
            warn!(records, "dropped records: the output does not keep up or does not answer");
        }
        let refused = self.batcher.end_interval(report, self.shared.announced_addresses());
        if refused > 0 {
            warn!(refused, "more client addresses than one agent can announce");
        }
    }

    fn warn_of_folded(&mut self) {
        let stats = self.batcher.stats();
        let told = std::mem::replace(&mut self.folded, stats);
        let records = stats.records_folded - told.records_folded;
        let summaries = stats.summaries_folded - told.summaries_folded;
        if records + summaries > 0 {
            warn!(
                records,
                summaries,
                "folded records, and summaries into those of minutes: the output does not keep up or does not answer"
            );
        }
    }

    /// Sends what is due. What finds no place waits in the batcher.
    fn send(&mut self) -> Result<(), OutputGone> {
        if let Some(Ok(partitions)) = self.partitions.as_mut().map(oneshot::Receiver::try_recv) {
            self.batcher.assign(partitions);
            self.partitions = None;
        }
        let sent = self.send_due();
        let stats = self.batcher.stats();
        self.metrics.set_batcher(&stats);
        let dropped = stats.records_dropped - self.summary.records_dropped;
        if dropped > 0 {
            self.summary.records_dropped += dropped;
            self.metrics.records_dropped.inc_by(dropped);
            self.reports.at(self.now_us()).records_dropped += dropped;
        }
        sent
    }

    fn send_due(&mut self) -> Result<(), OutputGone> {
        loop {
            match &self.queue {
                Queue::Waiting(sender) => {
                    let Some(batch) = self.batcher.pop() else { return Ok(()) };
                    if let Err(SendError(batch)) = sender.blocking_send(batch) {
                        self.lose(batch.records.len() as u64);
                        return Err(OutputGone);
                    }
                }
                Queue::Passing(sender) => match sender.try_reserve() {
                    Ok(place) => {
                        let Some(batch) = self.batcher.pop() else { return Ok(()) };
                        place.send(batch);
                    }
                    Err(TrySendError::Closed(())) => return Err(OutputGone),
                    Err(TrySendError::Full(())) => return Ok(()),
                },
            }
            self.metrics.batches.inc();
        }
    }

    /// Gives up what still waits: nobody will take it.
    fn give_up(&mut self) {
        let records = self.batcher.drop_all();
        self.lose(records);
        self.metrics.set_batcher(&self.batcher.stats());
    }

    fn lose(&mut self, records: u64) {
        self.summary.records_undelivered += records;
        self.metrics.records_dropped.inc_by(records);
    }
}

#[cfg(test)]
mod tests;
