//! A worker and its recorder: from packets to batches and reports.

use std::ops::Range;
use std::sync::Arc;

use etherparse::PacketBuilder;
use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::{Interface, InterfaceKind};
use flowtrail_service::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;

use super::*;
use crate::batcher::Limits;
use crate::config::Identity;
use crate::flow_table::{FlowTable, FlowTableConfig, Origin, PointId};
use crate::packet::{LinkType, Parser};
use crate::worker::{Packet, Worker};

const SECOND_US: u64 = 1_000_000;

/// A worker, its recorder, and what is on the way between them.
struct Agent {
    worker: Worker,
    point: PointId,
    progress: mpsc::Receiver<Progress>,
    recorder: Recorder,
}

impl Agent {
    fn new(queue: Queue) -> Self {
        Self::with(queue, Limits::default())
    }

    fn with(queue: Queue, limits: Limits) -> Self {
        let interval = IntervalLength::from_seconds(1).unwrap();
        let shared = Shared::default();
        let interface = Interface { name: "eth0".to_owned(), kind: InterfaceKind::Other };
        let point = shared.add_point(Arc::new(interface)).unwrap();
        let config = FlowTableConfig { interval, ..Default::default() };
        let table = FlowTable::new(config, shared.clone());
        let (sender, progress) = mpsc::channel(1_000);
        let (tell_partitions, partitions) = oneshot::channel();
        tell_partitions.send(1).unwrap();
        let recorder = Recorder::new(
            1,
            shared,
            Reports::new(interval, 0),
            Batcher::new(Identity { agent: "a".into(), node: "n".into() }, 1, limits),
            partitions,
            queue,
            CaptureMetrics::register(&Metrics::new()),
        );
        let worker = Worker::new(
            0,
            Parser::default(),
            table,
            interval,
            SECOND_US,
            Counter::default(),
            sender,
        );
        Self { worker, point, progress, recorder }
    }

    /// A SYN of another connection in each of some seconds.
    fn feed(&mut self, seconds: Range<u64>) {
        for second in seconds {
            let mut bytes = Vec::new();
            let syn = PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
            let syn = syn.tcp(1_000 + second as u16, 80, second as u32 + 1, 1_000).syn();
            syn.write(&mut bytes, b"").unwrap();
            let packet = Packet {
                point: self.point,
                origin: Origin::Unknown,
                time_us: second * SECOND_US,
                link: LinkType::RawIp,
                bytes: &bytes,
                wire_length: bytes.len() as u32,
            };
            while !self.worker.advance(packet.time_us).unwrap() {}
            self.worker.packet(packet);
            self.tell();
        }
    }

    fn tell(&mut self) {
        while let Ok(progress) = self.progress.try_recv() {
            self.recorder.take(progress).unwrap();
        }
    }

    /// Ends all: the recorder waits for its reader now.
    fn finish(self) -> std::thread::JoinHandle<Summary> {
        self.worker.finish().unwrap();
        std::thread::spawn(move || self.recorder.run(self.progress))
    }
}

#[test]
fn a_packet_of_a_time_that_cannot_be_is_skipped_and_moves_no_time() {
    let (sender, mut batches) = mpsc::channel(100);
    let mut agent = Agent::new(Queue::Waiting(sender));
    let far = u64::MAX / SECOND_US;
    agent.feed(far..far + 1);
    agent.feed(100..103);
    agent.feed(far..far + 1);
    agent.feed(103..104);
    let summary = agent.finish().join().unwrap();

    assert_eq!((summary.packets, summary.records), (6, 4));
    assert_eq!(summary.skipped, BTreeMap::from([("time", 2)]));
    assert_eq!(summary.last_packet_us, Some(103 * SECOND_US));
    let batches: Vec<_> = std::iter::from_fn(|| batches.try_recv().ok()).collect();
    let reports = batches.iter().flat_map(|batch| &batch.coverage);
    let starts: Vec<_> = reports.map(|report| report.interval.start_s()).collect();
    assert_eq!(starts, [100, 101, 102, 103]);
}

#[test]
fn records_that_find_no_place_wait_and_are_all_there_in_the_end() {
    let (sender, mut batches) = mpsc::channel(1);
    let mut agent = Agent::new(Queue::Passing(sender));
    agent.feed(100..110);
    let mut received = vec![batches.try_recv().unwrap()];
    agent.feed(110..111);
    received.push(batches.try_recv().unwrap());
    // At the end the recorder waits for its reader.
    let ended = agent.finish();
    received.extend(std::iter::from_fn(|| batches.blocking_recv()));
    let summary = ended.join().unwrap();

    assert_eq!((summary.packets, summary.records_dropped, summary.records_undelivered), (11, 0, 0));
    let records: usize = received.iter().map(|batch| batch.records.len()).sum();
    assert_eq!(records as u64, summary.records);
    assert_reports_and_sequences(&received, 100..111);
}

fn assert_reports_and_sequences(received: &[FlowBatch], seconds: Range<u64>) {
    let reports = received.iter().flat_map(|batch| &batch.coverage);
    let starts: Vec<_> = reports.map(|report| report.interval.start_s()).collect();
    assert_eq!(starts, seconds.collect::<Vec<_>>(), "no report is lost with the records");
    let sequences: Vec<_> = received.iter().map(|batch| batch.sequence).collect();
    assert_eq!(sequences, (0..received.len() as u64).collect::<Vec<_>>());
}

#[test]
fn past_the_last_cap_records_are_dropped_and_reported() {
    let (sender, mut batches) = mpsc::channel(1);
    let limits = Limits { records: 1, summaries: 1, minute_summaries: 1 };
    let mut agent = Agent::with(Queue::Passing(sender), limits);
    // Four minutes: of the later ones at most two are kept, each as one summary.
    agent.feed(60..300);
    let ended = agent.finish();
    let received: Vec<_> = std::iter::from_fn(|| batches.blocking_recv()).collect();
    let summary = ended.join().unwrap();

    assert!(summary.records_dropped > 0);
    let records = received.iter().flat_map(|batch| &batch.records);
    let opened: u32 = records.map(|record| record.opened).sum();
    let kept: u64 = 240 - u64::from(opened);
    assert!(kept > 0 && kept <= summary.records_dropped, "{kept} {summary:?}");
    let reports = received.iter().flat_map(|batch| &batch.coverage);
    let dropped: u64 = reports.map(|report| report.records_dropped).sum();
    assert_eq!(dropped, summary.records_dropped);
    assert_reports_and_sequences(&received, 60..300);
}

#[test]
fn what_nobody_takes_in_the_end_is_counted() {
    let (sender, mut batches) = mpsc::channel(1);
    let mut agent = Agent::new(Queue::Passing(sender));
    agent.feed(100..110);
    batches.close();
    let placed = batches.try_recv().unwrap().records.len() as u64;
    let summary = agent.finish().join().unwrap();
    assert_eq!((summary.records, summary.records_dropped), (10, 0));
    assert_eq!(summary.records_undelivered + placed, summary.records);
}

/// A file may have a packet in each of millions of intervals, and its time need not go on.
#[test]
fn a_worker_tells_before_it_counts_in_too_many_intervals() {
    let (sender, _batches) = mpsc::channel(100);
    let mut agent = Agent::new(Queue::Waiting(sender));
    for second in (1_000..6_000).rev() {
        while !agent.worker.advance(second * SECOND_US).unwrap() {}
        agent.worker.packet(Packet {
            point: agent.point,
            origin: Origin::Unknown,
            time_us: second * SECOND_US,
            link: LinkType::RawIp,
            bytes: b"not IP",
            wire_length: 6,
        });
    }
    agent.worker.finish().unwrap();
    let told: Vec<_> = std::iter::from_fn(|| agent.progress.try_recv().ok()).collect();
    assert_eq!(told.iter().map(|progress| progress.packets).sum::<u64>(), 5_000);
    assert!(told.iter().all(|progress| progress.packets_by_interval.len() <= 64));
}
