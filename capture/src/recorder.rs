//! The recorder: what workers have seen and made, to reports and batches. One thread, whatever the number
//! of workers; it never makes them wait for the output. Time is what the workers tell.

use std::collections::BTreeMap;

use flowtrail_schema::{Coverage, FlowBatch};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::warn;

use crate::batcher::Batcher;
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
    /// Of these, the ones given up because the output did not take them.
    pub records_dropped: u64,
    /// Time of the earliest packet, microseconds since the epoch.
    pub first_packet_us: Option<u64>,
    /// Time of the latest packet, microseconds since the epoch.
    pub last_packet_us: Option<u64>,
}

/// The queue towards the output, and what to do when it is full.
#[derive(Debug)]
pub(crate) enum Queue {
    /// Packets do not wait: what does not fit is dropped and counted.
    Dropping(mpsc::Sender<FlowBatch>),
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
    queue: Queue,
    metrics: CaptureMetrics,
    summary: Summary,
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
        queue: Queue,
        metrics: CaptureMetrics,
    ) -> Self {
        Self {
            shared,
            reports,
            batcher,
            queue,
            metrics,
            summary: Summary::default(),
            until_us: vec![0; workers],
            tables: vec![FlowTableStats::default(); workers],
        }
    }

    /// Takes what workers tell until all of them have ended, or the output has.
    pub(crate) fn run(mut self, mut workers: mpsc::Receiver<Progress>) -> Summary {
        while let Some(progress) = workers.blocking_recv() {
            if self.take(progress).is_err() {
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
            Queue::Dropping(sender) | Queue::Waiting(sender) => Queue::Waiting(sender),
        };
        let mut sent = self.send();
        while let Some(report) = self.reports.last(now_us, self.shared.watched()) {
            self.end_interval(report);
            sent = sent.and_then(|()| self.send());
        }
        self.drop_due();
        self.summary
    }

    fn end_interval(&mut self, report: Coverage) {
        self.metrics.set_tables(&self.tables, self.shared.refusals());
        self.metrics.interfaces.set(report.interfaces.into());
        if report.packets_dropped > 0 {
            let packets = report.packets_dropped;
            warn!(packets, "the kernel dropped packets: the agent was too slow for them");
        }
        if report.records_dropped > 0 {
            let records = report.records_dropped;
            warn!(records, "dropped records: the output does not keep up or does not answer");
        }
        let refused = self.batcher.end_interval(report, self.shared.announced_addresses());
        if refused > 0 {
            warn!(refused, "more client addresses than one agent can announce");
        }
    }

    fn send(&mut self) -> Result<(), OutputGone> {
        while self.batcher.is_due() {
            match &self.queue {
                Queue::Waiting(sender) => {
                    if let Some(batch) = self.batcher.pop() {
                        sender.blocking_send(batch).map_err(|_| OutputGone)?;
                    }
                }
                Queue::Dropping(sender) => match sender.try_reserve() {
                    Ok(place) => {
                        if let Some(batch) = self.batcher.pop() {
                            place.send(batch);
                        }
                    }
                    Err(TrySendError::Closed(())) => return Err(OutputGone),
                    Err(TrySendError::Full(())) => break,
                },
            }
            self.metrics.batches.inc();
        }
        let records = self.drop_due();
        if records > 0 {
            self.reports.at(self.now_us()).records_dropped += records;
        }
        Ok(())
    }

    /// Gives up the records that are due and found no place.
    fn drop_due(&mut self) -> u64 {
        let records = self.batcher.discard();
        self.summary.records_dropped += records;
        self.metrics.records_dropped.inc_by(records);
        records
    }
}

#[cfg(test)]
mod tests;
