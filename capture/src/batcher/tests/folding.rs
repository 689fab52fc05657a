//! Folding: whatever is folded, sums and counts stay what they were.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What a batcher in trouble must keep apart: all that answers and ingest's decisions depend on.
type Place = (String, Reporter, bool, bool, IpAddr, Endpoint);

fn place(record: &FlowRecord) -> Place {
    (
        record.interface.name.clone(),
        record.reporter,
        record.local_primary,
        record.direction_inferred,
        record.client.ip,
        record.server,
    )
}

/// All that adds up, and what is merged.
#[derive(Clone, Debug, Default, PartialEq)]
struct Totals {
    sent: Counters,
    received: Counters,
    opened: u32,
    joined: u32,
    open_at_minute: u32,
    closed: Closed,
    measures: [Measure; 4],
    age_us: u64,
    /// Of those with packets.
    seen: Option<(u64, u64)>,
}

impl Totals {
    fn add(&mut self, record: &FlowRecord) {
        self.sent += record.sent;
        self.received += record.received;
        self.opened += record.opened;
        self.joined += record.joined;
        if record.interval.starts_minute() {
            self.open_at_minute += record.open_at_start;
        }
        self.closed += record.closed;
        let FlowRecord { syn_to_synack, synack_to_ack, first_response, duration, .. } = record;
        let measures = [syn_to_synack, synack_to_ack, first_response, duration];
        self.measures.iter_mut().zip(measures).for_each(|(sum, measure)| *sum += *measure);
        self.age_us = self.age_us.max(record.age_us);
        if record.sent.packets + record.received.packets > 0 {
            let (first, last) = self.seen.unwrap_or((u64::MAX, 0));
            self.seen = Some((first.min(record.first_seen_us), last.max(record.last_seen_us)));
        }
    }
}

/// By place and minute.
fn totals<'a>(records: impl Iterator<Item = &'a FlowRecord>) -> BTreeMap<(Place, u64), Totals> {
    let mut totals = BTreeMap::<_, Totals>::new();
    for record in records {
        totals.entry((place(record), record.interval.start_s() / 60)).or_default().add(record);
    }
    totals
}

fn end(number: u8, port: u16) -> Endpoint {
    Endpoint { ip: [192, 0, 2, number].into(), port }
}

fn counters(number: u64) -> Counters {
    Counters {
        bytes: number * 1_000,
        payload_bytes: number * 900,
        packets: number,
        retransmitted_packets: number / 2,
        zero_window_packets: number / 3,
    }
}

fn measure(number: u64) -> Measure {
    if number.is_multiple_of(3) { Measure::default() } else { Measure::sample(number * 7) }
}

/// A record in one of some intervals of three minutes, of a few places; each opens one connection, so
/// that records can be counted after folding.
fn any_record() -> impl Strategy<Value = FlowRecord> {
    let where_it_was = (0..2_u8, 0..3_usize, any::<bool>(), any::<bool>(), 0..2_u8, 0..2_u8);
    let what_it_did = (0..18_u64, 0..4_u64, 0..10_000_000_u64, 0..10_000_000_u64, any::<[u8; 4]>());
    (where_it_was, what_it_did, any::<u64>()).prop_map(|(whereabouts, did, id)| {
        let (interface, reporter, local_primary, direction_inferred, client, server) = whereabouts;
        let (slice, packets, one_us, other_us, [a, b, c, d]) = did;
        let interval = (0..slice).fold(interval(), |interval, _| interval.next());
        let seen = |us| interval.start_us() + if packets > 0 { us } else { 0 };
        let [a, b, c, d] = [a, b, c, d].map(u64::from);
        let closed = Closed { fin: (a % 2) as u32, idle: (b % 2) as u32, ..Closed::default() };
        let name = format!("eth{interface}");
        FlowRecord {
            interval,
            interface: Arc::new(Interface { name, kind: InterfaceKind::Uplink }),
            reporter: Reporter::ALL[reporter],
            local_primary,
            direction_inferred,
            handshake_seen: !direction_inferred,
            one_sided: a.is_multiple_of(5),
            client: end(client, a as u16 + 1),
            server: end(10 + server, 80),
            first_seen_us: seen(one_us.min(other_us)),
            last_seen_us: seen(one_us.max(other_us)),
            age_us: c * 1_000,
            sent: counters(packets),
            received: counters(if packets > 0 { d } else { 0 }),
            joined: (c % 2) as u32,
            open_at_start: (d % 2) as u32,
            closed,
            syn_to_synack: measure(a),
            synack_to_ack: measure(b),
            first_response: measure(c),
            duration: measure(d),
            ..record(id, IdKind::ALL[(id % 3) as usize], 0)
        }
    })
}

#[derive(Clone, Debug)]
enum Step {
    Records(Vec<FlowRecord>),
    EndInterval,
    Assign,
    /// The output takes so many batches.
    Take(usize),
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => collection::vec(any_record(), 0..60).prop_map(Step::Records),
        2 => Just(Step::EndInterval),
        1 => Just(Step::Assign),
        1 => (0..5_usize).prop_map(Step::Take),
    ];
    collection::vec(step, 0..20)
}

fn any_limits() -> impl Strategy<Value = Limits> {
    (1..80_usize, 1..40_usize, 1..40_usize).prop_map(|(records, summaries, minute_summaries)| {
        Limits { records, summaries, minute_summaries }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn folding_changes_no_sum_and_what_is_dropped_is_counted(
        steps in any_steps(),
        limits in any_limits(),
        partitions in 1..6_u32,
    ) {
        let mut batcher = unassigned(limits);
        let mut pushed = Vec::new();
        let mut batches = Vec::new();
        for step in steps.into_iter().chain([Step::Assign, Step::EndInterval]) {
            match step {
                Step::Records(records) => {
                    for record in records {
                        batcher.push(record.clone());
                        pushed.push(record);
                        let stats = batcher.stats();
                        prop_assert!(stats.records <= limits.records);
                        prop_assert!(stats.summaries <= limits.summaries);
                        prop_assert!(stats.minute_summaries <= limits.minute_summaries);
                    }
                }
                Step::EndInterval => drop(batcher.end_interval(report(interval()), Vec::new())),
                Step::Assign => batcher.assign(partitions),
                Step::Take(count) => {
                    batches.extend(std::iter::from_fn(|| batcher.pop()).take(count));
                }
            }
        }
        batches.extend(popped(&mut batcher));

        let stats = batcher.stats();
        prop_assert_eq!((stats.records, stats.summaries, stats.minute_summaries), (0, 0, 0));
        let sent: Vec<_> = batches.iter().flat_map(|batch| &batch.records).collect();
        let opened: u32 = sent.iter().map(|record| record.opened).sum();
        prop_assert_eq!(u64::from(opened) + stats.records_dropped, pushed.len() as u64);
        if stats.records_dropped == 0 {
            prop_assert_eq!(totals(sent.iter().copied()), totals(pushed.iter()));
        }
        for batch in &batches {
            let decoded = flowtrail_schema::wire::decode(&flowtrail_schema::wire::encode(batch));
            prop_assert_eq!(&decoded.unwrap().batch.records, &batch.records, "ingest takes all");
            for record in &batch.records {
                let right = partition_of(record.connection_id, record.id_kind, partitions);
                prop_assert_eq!(right, batch.partition);
                match record.detail {
                    Detail::Flow => prop_assert!(pushed.contains(record)),
                    Detail::Summary | Detail::MinuteSummary => {
                        prop_assert_eq!(record.client.port, 0);
                        prop_assert_eq!(record.id_kind, IdKind::TupleHash);
                    }
                }
            }
        }
    }

    #[test]
    fn giving_up_counts_the_records_that_were_folded(
        records in collection::vec(any_record(), 0..200),
        limits in any_limits(),
    ) {
        let mut batcher = unassigned(limits);
        let count = records.len() as u64;
        records.into_iter().for_each(|record| batcher.push(record));
        let given_up = batcher.drop_all();
        prop_assert_eq!(given_up + batcher.stats().records_dropped, count);
        batcher.assign(3);
        prop_assert!(popped(&mut batcher).iter().all(|batch| batch.records.is_empty()));
    }
}

/// A record of a connection, open in each of some intervals.
fn open_in(slices: impl Iterator<Item = Interval>) -> Vec<FlowRecord> {
    let heartbeat = |interval: Interval| FlowRecord {
        interval,
        first_seen_us: interval.start_us(),
        last_seen_us: interval.start_us(),
        opened: 0,
        open_at_start: 1,
        ..record(1, IdKind::Complete, 0)
    };
    slices.map(heartbeat).collect()
}

#[test]
fn a_minute_has_the_open_connections_of_its_first_interval() {
    let minute = IntervalLength::default().interval_at(1_700_000_040_000_000);
    assert!(minute.starts_minute());
    let intervals = std::iter::successors(Some(minute), |interval| Some(interval.next()));
    let limits = Limits { records: 1, summaries: 1, minute_summaries: 10 };
    let mut batcher = unassigned(limits);
    open_in(intervals.take(8)).into_iter().for_each(|record| batcher.push(record));
    batcher.assign(1);
    batcher.end_interval(report(minute), Vec::new());
    let records: Vec<_> =
        popped(&mut batcher).into_iter().flat_map(|batch| batch.records).collect();
    let minutes: Vec<_> =
        records.iter().filter(|record| record.detail == Detail::MinuteSummary).collect();
    assert_eq!(minutes[0].interval.start_us(), minute.start_us());
    assert_eq!((minutes[0].interval.length().seconds(), minutes[0].open_at_start), (60, 1));
    assert_eq!(minutes[0].first_seen_us, minute.start_us(), "without packets");
    let details: BTreeSet<_> = records.iter().map(|record| record.detail).collect();
    assert_eq!(details, BTreeSet::from([Detail::Flow, Detail::Summary, Detail::MinuteSummary]));
}

#[test]
fn the_oldest_are_folded_first_and_leave_first() {
    let mut batcher = unassigned(Limits { records: 8, ..Limits::default() });
    let intervals = std::iter::successors(Some(interval()), |interval| Some(interval.next()));
    open_in(intervals.take(9)).into_iter().for_each(|record| batcher.push(record));
    batcher.assign(1);
    batcher.end_interval(report(interval()), Vec::new());
    let batch = batcher.pop().unwrap();
    let starts: Vec<_> = batch.records.iter().map(|record| record.interval.start_us()).collect();
    assert!(starts.is_sorted(), "{starts:?}");
    let folded: Vec<_> = batch.records.iter().map(|r| r.detail == Detail::Summary).collect();
    assert_eq!(folded, [[true; 2].as_slice(), &[false; 7]].concat());
}

#[test]
fn new_records_do_not_wait_for_all_that_was_folded() {
    let mut batcher = unassigned(Limits { records: 2, ..Limits::default() });
    for number in 0..3_000_u32 {
        let client = Endpoint { ip: number.to_be_bytes().into(), port: 1 };
        batcher.push(FlowRecord { client, ..record(1, IdKind::Complete, 0) });
    }
    batcher.assign(1);
    let first = batcher.pop().unwrap();
    assert!(first.records.iter().any(|record| record.detail == Detail::Flow));
    assert!(first.records.len() > MAX_RECORDS / 2);
}

#[test]
fn every_partition_has_its_turn() {
    let mut batcher = batcher(3);
    batcher.end_interval(report(interval()), Vec::new());
    assert_eq!(batcher.pop().unwrap().partition, 0);
    // What is due for the first again does not come before the others.
    batcher.end_interval(report(interval().next()), Vec::new());
    let order: Vec<_> = popped(&mut batcher).iter().map(|batch| batch.partition).collect();
    assert_eq!(order, [1, 2, 0]);
}

#[test]
fn the_caps_are_of_the_sizes_that_their_documentation_names() {
    assert!(size_of::<FlowRecord>() <= 340, "{}", size_of::<FlowRecord>());
    let summary = size_of::<(u64, summary::Key, summary::Summary)>();
    assert!(summary <= 450, "{summary}");
}
