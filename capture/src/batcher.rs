//! The batcher: records and reports, grouped by partition into batches. Pure.

use std::collections::VecDeque;
use std::net::IpAddr;

use flowtrail_schema::batch::{MAX_ANNOUNCED_ADDRESSES, MAX_RECORDS, MAX_REPORTS, MAX_SPAN_S};
use flowtrail_schema::interval::Interval;
use flowtrail_schema::topic::partition_of;
use flowtrail_schema::{Coverage, FlowBatch, FlowRecord};

use crate::config::Identity;

/// Collects records until they are due, then hands out batches with gapless sequence numbers.
#[derive(Debug)]
pub struct Batcher {
    identity: Identity,
    agent_start_us: u64,
    announced_addresses: Vec<IpAddr>,
    partitions: Vec<Partition>,
}

#[derive(Debug, Default)]
struct Partition {
    /// Number of the next batch.
    sequence: u64,
    records: VecDeque<FlowRecord>,
    reports: Vec<Coverage>,
    /// An interval ended: all that is here must leave, be it only the report.
    due: bool,
}

impl Partition {
    fn is_due(&self) -> bool {
        self.due || self.records.len() >= MAX_RECORDS
    }

    /// What goes into the next batch: from the front, as long as it is near enough in time. With the
    /// last of it the partition is no longer due.
    fn take(&mut self) -> (Vec<Coverage>, Vec<FlowRecord>) {
        let mut span = Span::default();
        let near = self.reports.iter().take_while(|report| span.takes(report.interval)).count();
        let reports = self.reports.drain(..near).collect();
        let records = self.records.iter().take(MAX_RECORDS);
        let near = records.take_while(|record| span.takes(record.interval)).count();
        let records = self.records.drain(..near).collect();
        self.due &= !(self.records.is_empty() && self.reports.is_empty());
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
    /// For an agent that started at a time, and a topic of so many partitions (at least 1).
    pub fn new(identity: Identity, agent_start_us: u64, partitions: u32) -> Self {
        let partitions = (0..partitions.max(1)).map(|_| Partition::default()).collect();
        Self { identity, agent_start_us, announced_addresses: Vec::new(), partitions }
    }

    /// Adds a record. It is due with its partition's next full batch, or at the interval's end.
    pub fn push(&mut self, record: FlowRecord) {
        let count = self.partitions.len() as u32;
        let partition = partition_of(record.connection_id, record.id_kind, count);
        if let Some(partition) = self.partitions.get_mut(partition as usize) {
            partition.records.push_back(record);
        }
    }

    /// Ends an interval: every partition is due a batch with the report, maybe without records. Of
    /// the reports for a partition whose batches cannot leave, the oldest go past the cap: that a
    /// report is missing says that something was wrong. Returns how many addresses are too many.
    pub fn end_interval(&mut self, report: Coverage, mut announced: Vec<IpAddr>) -> u64 {
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

    /// Whether [`Batcher::pop`] would give a batch.
    pub fn is_due(&self) -> bool {
        self.partitions.iter().any(Partition::is_due)
    }

    /// The next batch that is due.
    pub fn pop(&mut self) -> Option<FlowBatch> {
        let index = self.partitions.iter().position(Partition::is_due)?;
        let partition = self.partitions.get_mut(index)?;
        let sequence = partition.sequence;
        partition.sequence += 1;
        let (coverage, records) = partition.take();
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

    /// Gives up the records of all that is due, and says how many. The reports stay for the next
    /// batches, and no sequence number is used.
    pub fn discard(&mut self) -> u64 {
        let mut records = 0;
        for partition in &mut self.partitions {
            while partition.is_due() {
                let given_up = partition.records.len().min(MAX_RECORDS);
                partition.records.drain(..given_up);
                partition.due &= !partition.records.is_empty();
                records += given_up as u64;
            }
        }
        records
    }
}

#[cfg(test)]
mod tests {
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

    fn batcher(partitions: u32) -> Batcher {
        Batcher::new(Identity { agent: "a".into(), node: "n".into() }, 7, partitions)
    }

    /// What happens to a batcher: records of some connections, an interval's end, a full queue.
    #[derive(Clone, Debug)]
    enum Step {
        Records(Vec<u64>),
        EndInterval,
        Discard,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => collection::vec(any::<u64>(), 0..20).prop_map(Step::Records),
            // One connection with more records than fit in one batch.
            1 => (any::<u64>(), 1..2 * MAX_RECORDS + 2).prop_map(|(id, n)| Step::Records(vec![id; n])),
            2 => Just(Step::EndInterval),
            1 => Just(Step::Discard),
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
            let mut batcher = batcher(partitions);
            let mut made = 0_u64;
            let mut discarded = 0;
            let mut ended = interval();
            let mut batches = Vec::new();
            for step in steps.into_iter().chain([Step::EndInterval]) {
                match step {
                    Step::Records(ids) => {
                        for id in ids {
                            let kind = IdKind::ALL[(id % 3) as usize];
                            batcher.push(record(id, kind, made));
                            made += 1;
                        }
                    }
                    Step::Discard => discarded += batcher.discard(),
                    Step::EndInterval => {
                        batcher.end_interval(report(ended), vec![[10, 0, 0, 1].into()]);
                        ended = ended.next();
                    }
                }
                // Sometimes the output takes only some of what is due.
                batches.extend(std::iter::from_fn(|| batcher.pop()).take(made as usize % 4));
            }
            batches.extend(std::iter::from_fn(|| batcher.pop()));

            prop_assert!(!batcher.is_due());
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
            prop_assert_eq!(numbers.len() as u64 + discarded, made);
            numbers.sort_unstable();
            numbers.dedup();
            prop_assert_eq!(numbers.len() as u64 + discarded, made, "a record was batched twice");
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
        assert!(!batcher.is_due());
    }

    #[test]
    fn more_addresses_than_a_batch_may_announce_are_refused_and_counted() {
        let mut batcher = batcher(1);
        let addresses = vec![[10, 0, 0, 1].into(); MAX_ANNOUNCED_ADDRESSES + 7];
        assert_eq!(batcher.end_interval(report(interval()), addresses), 7);
        assert_eq!(batcher.pop().unwrap().announced_addresses.len(), MAX_ANNOUNCED_ADDRESSES);
    }

    #[test]
    fn reports_that_cannot_leave_are_bounded() {
        let mut batcher = batcher(1);
        let mut interval = interval();
        for _ in 0..MAX_REPORTS + 5 {
            batcher.end_interval(report(interval), Vec::new());
            batcher.discard();
            interval = interval.next();
        }
        batcher.end_interval(report(interval), Vec::new());
        let reports = batcher.pop().unwrap().coverage;
        assert_eq!(reports.len(), MAX_REPORTS);
        assert_eq!(reports.last().unwrap().interval, interval);
    }
}
