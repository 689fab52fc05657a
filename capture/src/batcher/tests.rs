//! Batches: what is in them, in which order, and that nothing is missing. Folding has tests of its own.

mod folding;

use std::sync::Arc;

use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::{
    Closed, Counters, Detail, Endpoint, IdKind, Interface, InterfaceKind, Measure, Reporter,
};
use proptest::collection;
use proptest::prelude::*;

use super::*;

fn interval() -> Interval {
    IntervalLength::default().interval_at(1_700_000_000_000_000)
}

fn record(connection_id: u64, id_kind: IdKind, number: u64) -> FlowRecord {
    let end = Endpoint { ip: [192, 0, 2, 1].into(), port: 80 };
    let interface = Interface { name: "eth0".to_owned(), kind: InterfaceKind::Uplink };
    FlowRecord {
        interval: interval(),
        interface: Arc::new(interface),
        reporter: Reporter::Client,
        local_primary: true,
        connection_id,
        id_kind,
        handshake_seen: true,
        one_sided: false,
        direction_inferred: false,
        detail: Detail::Flow,
        client: end,
        server: end,
        first_seen_us: interval().start_us(),
        last_seen_us: interval().start_us(),
        age_us: number,
        sent: Counters::default(),
        received: Counters::default(),
        opened: 1,
        joined: 0,
        open_at_start: 0,
        closed: Closed::default(),
        syn_to_synack: Measure::default(),
        synack_to_ack: Measure::default(),
        first_response: Measure::default(),
        duration: Measure::default(),
    }
}

fn report(interval: Interval) -> Coverage {
    Coverage {
        interval,
        interfaces: 1,
        packets_seen: 2,
        packets_dropped: 0,
        flows_evicted: 0,
        records_emitted: 3,
        records_dropped: 0,
    }
}

fn unassigned(limits: Limits) -> Batcher {
    Batcher::new(Identity { agent: "a".into(), node: "n".into() }, 7, limits)
}

fn batcher(partitions: u32) -> Batcher {
    let mut batcher = unassigned(Limits::default());
    batcher.assign(partitions);
    batcher
}

/// All that is due.
fn popped(batcher: &mut Batcher) -> Vec<FlowBatch> {
    std::iter::from_fn(|| batcher.pop()).collect()
}

/// What happens to a batcher: records of some connections, an interval's end, Kafka's first answer.
#[derive(Clone, Debug)]
enum Step {
    Records(Vec<u64>),
    EndInterval,
    Assign,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => collection::vec(any::<u64>(), 0..20).prop_map(Step::Records),
        // One connection with more records than fit in one batch.
        1 => (any::<u64>(), 1..2 * MAX_RECORDS + 2).prop_map(|(id, n)| Step::Records(vec![id; n])),
        2 => Just(Step::EndInterval),
        1 => Just(Step::Assign),
    ];
    collection::vec(step, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_record_and_report_is_in_its_partitions_batches_once(
        steps in steps(),
        partitions in 1..9_u32,
    ) {
        let mut batcher = unassigned(Limits::default());
        let mut made = 0_u64;
        let mut ended = interval();
        let mut batches = Vec::new();
        for step in steps.into_iter().chain([Step::EndInterval, Step::Assign]) {
            match step {
                Step::Records(ids) => {
                    for id in ids {
                        let kind = IdKind::ALL[(id % 3) as usize];
                        batcher.push(record(id, kind, made));
                        made += 1;
                    }
                }
                Step::Assign => batcher.assign(partitions),
                Step::EndInterval => {
                    batcher.end_interval(report(ended), vec![[10, 0, 0, 1].into()]);
                    ended = ended.next();
                }
            }
            // Sometimes the output takes only some of what is due.
            batches.extend(std::iter::from_fn(|| batcher.pop()).take(made as usize % 4));
        }
        batches.extend(popped(&mut batcher));

        prop_assert_eq!(batcher.stats(), BatcherStats::default());
        let mut numbers = Vec::new();
        for partition in 0..partitions {
            let own: Vec<_> = batches.iter().filter(|b| b.partition == partition).collect();
            let sequences: Vec<_> = own.iter().map(|batch| batch.sequence).collect();
            prop_assert_eq!(sequences, (0..own.len() as u64).collect::<Vec<_>>());
            let mut next = interval();
            for report in own.iter().flat_map(|batch| &batch.coverage) {
                prop_assert_eq!(report.interval, next);
                next = next.next();
            }
            prop_assert_eq!(next, ended, "every interval is reported to every partition");
            for batch in own {
                prop_assert!(batch.records.len() <= MAX_RECORDS);
                prop_assert!(
                    batch.coverage.is_empty() || !batch.announced_addresses.is_empty()
                );
                for record in &batch.records {
                    let right = partition_of(record.connection_id, record.id_kind, partitions);
                    prop_assert_eq!(right, partition);
                    numbers.push(record.age_us);
                }
            }
        }
        prop_assert_eq!(numbers.len() as u64, made);
        numbers.sort_unstable();
        numbers.dedup();
        prop_assert_eq!(numbers.len() as u64, made, "a record was batched twice");
    }
}

#[test]
fn a_full_batch_leaves_before_the_interval_ends() {
    let mut batcher = batcher(1);
    (0..MAX_RECORDS as u64).for_each(|n| batcher.push(record(1, IdKind::Complete, n)));
    assert_eq!(batcher.pop().unwrap().records.len(), MAX_RECORDS);
    batcher.push(record(1, IdKind::Complete, 0));
    assert!(batcher.pop().is_none());
}

#[test]
fn what_is_days_apart_is_in_batches_of_its_own() {
    let mut batcher = batcher(1);
    let day = |n: u64| IntervalLength::default().interval_at(n * 86_400_000_000);
    for start in [day(20_000), day(20_008), day(19_000), day(20_001)] {
        let record = FlowRecord { interval: start, ..record(1, IdKind::Complete, 0) };
        batcher.push(record);
    }
    batcher.end_interval(report(day(20_008)), Vec::new());
    let batches: Vec<_> = std::iter::from_fn(|| batcher.pop()).collect();
    let days = |batch: &FlowBatch| -> Vec<u64> {
        batch.records.iter().map(|record| record.interval.start_s() / 86_400).collect()
    };
    let all: Vec<_> = batches.iter().map(|batch| (batch.coverage.len(), days(batch))).collect();
    assert_eq!(all, [(1, vec![20_000, 20_008]), (0, vec![19_000]), (0, vec![20_001])]);
    assert_eq!(batcher.stats(), BatcherStats::default());
}

#[test]
fn more_addresses_than_a_batch_may_announce_are_refused_and_counted() {
    let mut batcher = batcher(1);
    let addresses = vec![[10, 0, 0, 1].into(); MAX_ANNOUNCED_ADDRESSES + 7];
    assert_eq!(batcher.end_interval(report(interval()), addresses), 7);
    assert_eq!(batcher.pop().unwrap().announced_addresses.len(), MAX_ANNOUNCED_ADDRESSES);
}

#[test]
fn what_was_announced_stays_so_while_something_waits_from_then() {
    let address = |last| std::net::IpAddr::from([10, 0, 0, last]);
    let mut batcher = batcher(2);
    batcher.end_interval(report(interval()), vec![address(1)]);
    // The pod is gone, and its neighbour came; of two batches one has left.
    batcher.pop().unwrap();
    batcher.end_interval(report(interval()), vec![address(2)]);
    let announced: Vec<_> =
        popped(&mut batcher).into_iter().map(|batch| batch.announced_addresses).collect();
    assert_eq!(announced, [vec![address(2), address(1)], vec![address(2), address(1)]]);
    batcher.end_interval(report(interval()), vec![address(2)]);
    assert_eq!(batcher.pop().unwrap().announced_addresses, [address(2)]);
}

#[test]
fn reports_that_cannot_leave_are_bounded() {
    let mut batcher = unassigned(Limits::default());
    let mut interval = interval();
    for _ in 0..MAX_REPORTS + 5 {
        batcher.end_interval(report(interval), Vec::new());
        interval = interval.next();
    }
    batcher.end_interval(report(interval), Vec::new());
    assert!(batcher.pop().is_none(), "it is not known yet for which partition");
    batcher.assign(1);
    let reports = batcher.pop().unwrap().coverage;
    assert_eq!(reports.len(), MAX_REPORTS);
    assert_eq!(reports.last().unwrap().interval, interval);
}
