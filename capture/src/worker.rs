//! A worker: packets to records, on a thread of its own, with a flow table of its own. What it has seen
//! and made goes to the recorder. Time is an argument.

use flowtrail_schema::FlowRecord;
use flowtrail_schema::interval::{Interval, IntervalLength};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

use crate::flow_table::{FlowTable, FlowTableStats, LATEST_US, Origin, PointId};
use crate::packet::{LinkType, Parser};
use crate::state::{Round, Saver};

const MINUTE_US: u64 = 60_000_000;

/// Intervals counted in at most before it is told: a file whose times jump about may have a packet in
/// each of millions.
const MAX_INTERVALS: usize = 64;

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

/// What a worker has seen and made since it last told.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) worker: usize,
    pub(crate) records: Vec<FlowRecord>,
    pub(crate) packets: u64,
    /// The same by interval; an interval may be told of several times.
    pub(crate) packets_by_interval: Vec<(Interval, u64)>,
    /// Packets that are in no record, by reason.
    pub(crate) skipped: Vec<(&'static str, u64)>,
    /// Packets that the kernel dropped.
    pub(crate) dropped: u64,
    pub(crate) evicted: u64,
    pub(crate) first_packet_us: Option<u64>,
    pub(crate) last_packet_us: Option<u64>,
    pub(crate) table: FlowTableStats,
    /// The records of all intervals whose cut was due by then are here, or were.
    pub(crate) until_us: u64,
}

/// Nobody takes what the worker makes: there is nothing left to read for.
#[derive(Debug)]
pub(crate) struct RecorderGone;

pub(crate) struct Worker {
    parser: Parser,
    table: FlowTable,
    interval: IntervalLength,
    recorder: mpsc::Sender<Progress>,
    progress: Progress,
    /// Packets of all workers, and how many of this one's it shows that are not told yet.
    packets: Counter,
    shown: u64,
    /// Where connections are saved, if they are.
    saver: Option<Saver>,
    now_us: u64,
    /// How often to tell at least, and when that is next.
    tell_every_us: u64,
    tell_at_us: u64,
}

impl Worker {
    /// The worker of a number, whose table cuts at a length. It tells the recorder how far it has come
    /// at least every `tell_every_us`.
    pub(crate) fn new(
        number: usize,
        parser: Parser,
        table: FlowTable,
        interval: IntervalLength,
        tell_every_us: u64,
        packets: Counter,
        recorder: mpsc::Sender<Progress>,
    ) -> Self {
        let progress = Progress { worker: number, ..Progress::default() };
        Self {
            parser,
            table,
            interval,
            recorder,
            progress,
            packets,
            shown: 0,
            saver: None,
            now_us: 0,
            tell_every_us,
            tell_at_us: 0,
        }
    }

    /// Has the connections saved, every minute and at the end.
    pub(crate) fn save_with(mut self, saver: Saver) -> Self {
        self.saver = Some(saver);
        self
    }

    /// Begins the first interval: from now on there is something to report.
    pub(crate) fn start(&mut self, now_us: u64) -> Result<(), RecorderGone> {
        self.now_us = now_us;
        self.count_in(now_us, 0);
        self.tell()
    }

    pub(crate) fn packet(&mut self, packet: Packet<'_>) {
        let time_us = packet.time_us;
        self.progress.packets += 1;
        if time_us > LATEST_US {
            return self.skip("time", 1);
        }
        self.count_in(time_us, 1);
        let progress = &mut self.progress;
        progress.first_packet_us =
            progress.first_packet_us.map(|first| first.min(time_us)).or(Some(time_us));
        progress.last_packet_us = progress.last_packet_us.max(Some(time_us));
        match self.parser.parse(packet.link, packet.bytes, packet.wire_length) {
            Ok(segment) => self.table.packet(packet.point, packet.origin, time_us, &segment),
            Err(skipped) => self.skip(skipped.as_str(), 1),
        }
    }

    /// Lets the metric show the packets so far. Not done for each, for workers share it.
    pub(crate) fn show_packets(&mut self) {
        let packets = self.progress.packets;
        self.packets.inc_by(packets - std::mem::replace(&mut self.shown, packets));
    }

    fn count_in(&mut self, time_us: u64, packets: u64) {
        let intervals = &mut self.progress.packets_by_interval;
        match intervals.iter_mut().rev().find(|(interval, _)| interval.contains(time_us)) {
            Some((_, count)) => *count += packets,
            None => intervals.push((self.interval.interval_at(time_us), packets)),
        }
    }

    /// Counts packets that are in no record.
    pub(crate) fn skip(&mut self, reason: &'static str, packets: u64) {
        let skipped = &mut self.progress.skipped;
        match skipped.iter_mut().find(|(other, _)| *other == reason) {
            Some((_, count)) => *count += packets,
            None => skipped.push((reason, packets)),
        }
    }

    /// Counts packets that the source could not hand over for their link layer.
    pub(crate) fn unsupported(&mut self, packets: u64) {
        if packets > 0 {
            self.progress.packets += packets;
            self.skip("link_type", packets);
        }
    }

    /// Counts packets that the kernel dropped.
    pub(crate) fn dropped(&mut self, packets: u64) {
        self.progress.dropped += packets;
    }

    /// Lets time pass: cuts intervals that are over, in pieces; false if there is more to do. A clock
    /// that is set back stands still until it is where it was; a time that cannot be, as in a damaged
    /// file, is none.
    pub(crate) fn advance(&mut self, now_us: u64) -> Result<bool, RecorderGone> {
        if now_us <= LATEST_US {
            self.now_us = self.now_us.max(now_us);
        }
        let is_done = self.table.advance(self.now_us, &mut self.progress.records);
        if is_done {
            self.progress.until_us = self.now_us;
        }
        if let Some(saver) = &mut self.saver
            && is_done
        {
            saver.begin(Round::Minute(self.now_us / MINUTE_US));
            saver.step(|from, saved| self.table.save(from, saved));
        }
        if !self.progress.records.is_empty()
            || self.now_us >= self.tell_at_us
            || self.progress.packets_by_interval.len() >= MAX_INTERVALS
        {
            self.tell()?;
        }
        Ok(is_done)
    }

    /// Ends everything: all records until now.
    pub(crate) fn finish(mut self) -> Result<(), RecorderGone> {
        while !self.table.finish(self.now_us, &mut self.progress.records) {
            self.tell()?;
        }
        self.progress.until_us = self.now_us;
        let told = self.tell();
        if let Some(saver) = self.saver {
            saver.finish(|from, saved| self.table.save(from, saved));
        }
        told
    }

    fn tell(&mut self) -> Result<(), RecorderGone> {
        self.show_packets();
        self.shown = 0;
        self.tell_at_us = self.now_us.saturating_add(self.tell_every_us);
        let stats = self.table.stats();
        let told = std::mem::replace(&mut self.progress.table, stats);
        self.progress.evicted = stats.evicted - told.evicted;
        let next = Progress {
            worker: self.progress.worker,
            until_us: self.progress.until_us,
            table: stats,
            ..Progress::default()
        };
        let progress = std::mem::replace(&mut self.progress, next);
        self.recorder.blocking_send(progress).map_err(|_| RecorderGone)
    }
}
