//! The recorder: packets in, batches out. Packets become flows, flows records, records batches; what
//! comes from a ring and what comes from a file pass through here alike. Time is an argument.

use std::collections::BTreeMap;
use std::sync::Arc;

use flowtrail_schema::{Coverage, FlowBatch, FlowRecord, Interface};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::warn;

use crate::batcher::Batcher;
use crate::flow_table::{FlowTable, LATEST_US, Origin, PointId};
use crate::metrics::{CaptureMetrics, SkippedLabels};
use crate::packet::{LinkType, Skipped, parse};
use crate::reports::Reports;

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

/// The output is gone: there is nothing left to read for.
#[derive(Debug)]
pub(crate) struct OutputGone;

/// One packet on its way to a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) point: PointId,
    pub(crate) origin: Origin,
    pub(crate) time_us: u64,
    pub(crate) link: LinkType,
    pub(crate) bytes: &'a [u8],
    pub(crate) wire_length: u32,
}

pub(crate) struct Recorder {
    pub(crate) table: FlowTable,
    reports: Reports,
    batcher: Batcher,
    queue: Queue,
    metrics: CaptureMetrics,
    summary: Summary,
    /// Records on their way from the table to the batcher.
    records: Vec<FlowRecord>,
    points: u32,
    /// Evictions reported so far.
    evicted: u64,
    now_us: u64,
}

impl Recorder {
    pub(crate) fn new(
        table: FlowTable,
        reports: Reports,
        batcher: Batcher,
        queue: Queue,
        metrics: CaptureMetrics,
    ) -> Self {
        Self {
            table,
            reports,
            batcher,
            queue,
            metrics,
            summary: Summary::default(),
            records: Vec::new(),
            points: 0,
            evicted: 0,
            now_us: 0,
        }
    }

    pub(crate) fn add_point(&mut self, interface: Arc<Interface>) -> PointId {
        self.points += 1;
        self.metrics.interfaces.set(self.points.into());
        self.table.add_point(interface)
    }

    pub(crate) fn remove_point(&mut self, point: PointId) {
        self.points -= 1;
        self.metrics.interfaces.set(self.points.into());
        self.table.remove_point(point);
    }

    /// Begins the first interval: from now on the agent reports.
    pub(crate) fn start(&mut self, now_us: u64) {
        self.now_us = now_us;
        self.reports.at(now_us);
    }

    pub(crate) fn packet(&mut self, packet: Packet<'_>) {
        let time_us = packet.time_us;
        self.metrics.packets.inc();
        self.summary.packets += 1;
        if time_us > LATEST_US {
            return self.skip("time", 1);
        }
        self.reports.at(time_us).packets_seen += 1;
        let summary = &mut self.summary;
        summary.first_packet_us =
            summary.first_packet_us.map(|first| first.min(time_us)).or(Some(time_us));
        summary.last_packet_us = summary.last_packet_us.max(Some(time_us));
        match parse(packet.link, packet.bytes, packet.wire_length) {
            Ok(segment) => self.table.packet(packet.point, packet.origin, time_us, &segment),
            Err(skipped) => self.skip(reason(skipped), 1),
        }
    }

    /// Counts packets that are in no record.
    fn skip(&mut self, reason: &'static str, packets: u64) {
        *self.summary.skipped.entry(reason).or_default() += packets;
        self.metrics.packets_skipped.get_or_create(&SkippedLabels { reason }).inc_by(packets);
    }

    /// Counts packets that the source could not hand over for their link layer.
    pub(crate) fn unsupported(&mut self, packets: u64) {
        if packets > 0 {
            self.summary.packets += packets;
            self.metrics.packets.inc_by(packets);
            self.skip("link_type", packets);
        }
    }

    /// Counts packets that the kernel dropped.
    pub(crate) fn dropped(&mut self, packets: u64) {
        if packets > 0 {
            self.summary.dropped += packets;
            self.metrics.packets_dropped.inc_by(packets);
            self.reports.at(self.now_us).packets_dropped += packets;
        }
    }

    /// Lets time pass: cuts intervals that are over, and sends what is due. A clock that is set back
    /// stands still until it is where it was; a time that cannot be, as in a damaged file, is none.
    pub(crate) fn advance(&mut self, now_us: u64) -> Result<(), OutputGone> {
        if now_us <= LATEST_US {
            self.now_us = self.now_us.max(now_us);
        }
        // What a hole in time brings leaves interval by interval.
        while !self.table.advance(self.now_us, &mut self.records) {
            self.collect();
            self.send()?;
        }
        self.collect();
        while let Some(report) = self.reports.due(self.now_us, self.points) {
            self.end_interval(report);
            self.send()?;
        }
        self.send()
    }

    /// Ends everything: all records, and the reports up to now. Here a live agent waits for the
    /// output too, for there is nothing left that it could miss.
    pub(crate) fn finish(mut self) -> Summary {
        self.table.finish(self.now_us, &mut self.records);
        self.collect();
        self.queue = match self.queue {
            Queue::Dropping(sender) | Queue::Waiting(sender) => Queue::Waiting(sender),
        };
        let mut sent = self.send();
        while let Some(report) = self.reports.last(self.now_us, self.points) {
            self.end_interval(report);
            sent = sent.and_then(|()| self.send());
        }
        self.drop_due();
        self.summary
    }

    fn collect(&mut self) {
        let evicted = self.table.evicted();
        if evicted > self.evicted {
            self.reports.at(self.now_us).flows_evicted += evicted - self.evicted;
            self.evicted = evicted;
        }
        for record in self.records.drain(..) {
            self.summary.records += 1;
            self.metrics.records.inc();
            self.reports.at(record.interval.start_us()).records_emitted += 1;
            self.batcher.push(record);
        }
    }

    fn end_interval(&mut self, report: Coverage) {
        self.metrics.set_table(&self.table.stats());
        if report.packets_dropped > 0 {
            let packets = report.packets_dropped;
            warn!(packets, "the kernel dropped packets: the agent was too slow for them");
        }
        if report.records_dropped > 0 {
            let records = report.records_dropped;
            warn!(records, "dropped records: the output does not keep up or does not answer");
        }
        let refused = self.batcher.end_interval(report, self.table.announced_addresses());
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
            self.reports.at(self.now_us).records_dropped += records;
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

fn reason(skipped: Skipped) -> &'static str {
    match skipped {
        Skipped::NotIp => "not_ip",
        Skipped::NotTcp => "not_tcp",
        Skipped::Fragment => "fragment",
        Skipped::Truncated => "truncated",
        Skipped::Malformed => "malformed",
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use flowtrail_schema::InterfaceKind;
    use flowtrail_schema::interval::IntervalLength;
    use flowtrail_service::metrics::Metrics;

    use super::*;
    use crate::config::Identity;
    use crate::flow_table::FlowTableConfig;

    const SECOND_US: u64 = 1_000_000;

    fn recorder(queue: Queue) -> Recorder {
        let interval = IntervalLength::from_seconds(1).unwrap();
        let table = FlowTable::new(FlowTableConfig { interval, ..Default::default() });
        let identity = Identity { agent: "a".into(), node: "n".into() };
        Recorder::new(
            table,
            Reports::new(interval, 0),
            Batcher::new(identity, 1, 1),
            queue,
            CaptureMetrics::register(&Metrics::new()),
        )
    }

    /// A SYN of another connection in each of some seconds.
    fn feed(recorder: &mut Recorder, point: PointId, seconds: std::ops::Range<u64>) {
        for second in seconds {
            let mut bytes = Vec::new();
            let syn = PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
            let syn = syn.tcp(1_000 + second as u16, 80, second as u32 + 1, 1_000).syn();
            syn.write(&mut bytes, b"").unwrap();
            let packet = Packet {
                point,
                origin: Origin::Unknown,
                time_us: second * SECOND_US,
                link: LinkType::RawIp,
                bytes: &bytes,
                wire_length: bytes.len() as u32,
            };
            recorder.advance(packet.time_us).unwrap();
            recorder.packet(packet);
        }
    }

    fn add_point(recorder: &mut Recorder) -> PointId {
        let interface = Interface { name: "eth0".to_owned(), kind: InterfaceKind::Other };
        recorder.add_point(Arc::new(interface))
    }

    #[test]
    fn a_packet_of_a_time_that_cannot_be_is_skipped_and_moves_no_time() {
        let (sender, mut batches) = mpsc::channel(100);
        let mut recorder = recorder(Queue::Waiting(sender));
        let point = add_point(&mut recorder);
        let far = u64::MAX / SECOND_US;
        feed(&mut recorder, point, far..far + 1);
        feed(&mut recorder, point, 100..103);
        feed(&mut recorder, point, far..far + 1);
        feed(&mut recorder, point, 103..104);
        let summary = recorder.finish();

        assert_eq!((summary.packets, summary.records), (6, 4));
        assert_eq!(summary.skipped, BTreeMap::from([("time", 2)]));
        assert_eq!(summary.last_packet_us, Some(103 * SECOND_US));
        let batches: Vec<_> = std::iter::from_fn(|| batches.try_recv().ok()).collect();
        let reports = batches.iter().flat_map(|batch| &batch.coverage);
        let starts: Vec<_> = reports.map(|report| report.interval.start_s()).collect();
        assert_eq!(starts, [100, 101, 102, 103]);
    }

    #[test]
    fn records_that_find_no_place_are_reported_as_dropped() {
        let (sender, mut batches) = mpsc::channel(1);
        let mut recorder = recorder(Queue::Dropping(sender));
        let point = add_point(&mut recorder);
        feed(&mut recorder, point, 100..110);
        let mut received = vec![batches.try_recv().unwrap()];
        feed(&mut recorder, point, 110..111);
        received.push(batches.try_recv().unwrap());
        // At the end the recorder waits for its reader.
        let ended = std::thread::spawn(move || recorder.finish());
        received.extend(std::iter::from_fn(|| batches.blocking_recv()));
        let summary = ended.join().unwrap();

        assert_eq!(summary.packets, 11);
        assert!(summary.records_dropped > 0);
        let records: usize = received.iter().map(|batch| batch.records.len()).sum();
        assert_eq!(records as u64 + summary.records_dropped, summary.records);
        let reports: Vec<_> = received.iter().flat_map(|batch| &batch.coverage).collect();
        let dropped: u64 = reports.iter().map(|report| report.records_dropped).sum();
        assert_eq!(dropped, summary.records_dropped);
        let starts: Vec<_> = reports.iter().map(|report| report.interval.start_s()).collect();
        assert_eq!(starts, (100..=110).collect::<Vec<_>>(), "no report is lost with the records");
        let sequences: Vec<_> = received.iter().map(|batch| batch.sequence).collect();
        assert_eq!(sequences, (0..received.len() as u64).collect::<Vec<_>>());
    }
}
