//! Drops batches that were seen before: an agent numbers those it sends to a partition.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use flowtrail_schema::FlowBatch;
use prometheus_client::metrics::counter::Counter;

use crate::journal::Numbers;

/// Agent processes remembered for each partition, at most: Kubernetes supports 5,000 nodes; this
/// allows three restarts of each. Beyond it the one that came first is forgotten and counted: batches
/// of it that Kafka delivers again would pass.
const MAX_AGENTS: usize = 20_000;

/// Gaps remembered in one agent's numbers, at most; an agent in order has none. Beyond it the
/// lowest numbers are forgotten and counted.
const MAX_GAPS: usize = 64;

/// An agent's process, and the partition that it numbered a batch for.
type Sender = (Arc<str>, u64, u32);

/// The numbers seen in one partition.
#[derive(Debug, Default)]
pub(crate) struct Dedup {
    senders: HashMap<Sender, Ranges>,
    order: VecDeque<Sender>,
    forgotten: Counter,
}

/// Disjoint ranges of numbers, first to last.
type Ranges = BTreeMap<u64, u64>;

impl Dedup {
    /// Counts what it must forget in `forgotten`.
    pub(crate) fn new(forgotten: Counter) -> Self {
        Self { forgotten, ..Self::default() }
    }

    /// Whether the batch comes for the first time; from then on it does not.
    pub(crate) fn first_time(&mut self, batch: &FlowBatch) -> bool {
        let sender = (Arc::clone(&batch.agent), batch.agent_start_us, batch.partition);
        self.add(sender, batch.sequence, batch.sequence)
    }

    /// Takes in what was seen before this process began.
    pub(crate) fn restore(&mut self, partition: u32, numbers: &Numbers) {
        let sender = (numbers.agent.as_str().into(), numbers.agent_start_us, partition);
        self.add(sender, numbers.first, numbers.last);
    }

    fn add(&mut self, sender: Sender, first: u64, last: u64) -> bool {
        if !self.senders.contains_key(&sender) {
            if self.senders.len() >= MAX_AGENTS
                && let Some(first) = self.order.pop_front()
            {
                self.senders.remove(&first);
                self.forgotten.inc();
            }
            self.order.push_back(sender.clone());
        }
        let ranges = self.senders.entry(sender).or_default();
        let new = insert(ranges, first, last);
        if ranges.len() > MAX_GAPS {
            ranges.pop_first();
            self.forgotten.inc();
        }
        new
    }
}

/// Adds the numbers `first` to `last`, none of which may be in a range that begins among them; false
/// if the first is there.
fn insert(ranges: &mut Ranges, first: u64, last: u64) -> bool {
    let below = ranges.range(..=first).next_back().map(|(first, last)| (*first, *last));
    if below.is_some_and(|(_, last)| last >= first) {
        return false;
    }
    let start = match below {
        Some((start, end)) if end + 1 == first => start,
        _ => first,
    };
    let above = last.checked_add(1).and_then(|next| ranges.remove(&next));
    ranges.insert(start, above.unwrap_or(last));
    true
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn batch(agent: &str, agent_start_us: u64, sequence: u64) -> FlowBatch {
        FlowBatch {
            agent: agent.into(),
            node: "".into(),
            agent_start_us,
            partition: 0,
            sequence,
            records: vec![],
            coverage: vec![],
            announced_addresses: vec![],
        }
    }

    #[test]
    fn a_restarted_agent_numbers_anew() {
        let mut dedup = Dedup::default();
        assert!(dedup.first_time(&batch("a", 1, 0)));
        assert!(!dedup.first_time(&batch("a", 1, 0)));
        assert!(dedup.first_time(&batch("a", 2, 0)));
        assert!(dedup.first_time(&batch("b", 1, 0)));
    }

    #[test]
    fn what_an_earlier_process_saw_is_not_new() {
        let mut dedup = Dedup::default();
        for (first, last) in [(0, 3), (6, 9)] {
            dedup.restore(0, &Numbers { agent: "a".to_owned(), agent_start_us: 1, first, last });
        }
        let new = |dedup: &mut Dedup, sequence| dedup.first_time(&batch("a", 1, sequence));
        let seen: Vec<bool> = (0..12).map(|sequence| new(&mut dedup, sequence)).collect();
        let expected = [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1].map(|new| new == 1);
        assert_eq!(seen, expected);
    }

    #[test]
    fn memory_is_bounded_by_agents_and_gaps() {
        let forgotten = Counter::default();
        let mut dedup = Dedup::new(forgotten.clone());
        for start in 0..=MAX_AGENTS as u64 {
            dedup.first_time(&batch("a", start, 0));
        }
        assert_eq!((dedup.senders.len(), dedup.order.len()), (MAX_AGENTS, MAX_AGENTS));
        assert_eq!(forgotten.get(), 1);
        for sequence in 0..1_000 {
            dedup.first_time(&batch("b", 0, sequence * 2));
        }
        assert_eq!(dedup.senders[&("b".into(), 0, 0)].len(), MAX_GAPS);
        for first in (0..1_000).step_by(2) {
            dedup.restore(
                0,
                &Numbers { agent: "c".to_owned(), agent_start_us: 0, first, last: first },
            );
        }
        assert_eq!(dedup.senders[&("c".into(), 0, 0)].len(), MAX_GAPS);
    }

    proptest! {
        #[test]
        fn ranges_are_a_set(numbers in proptest::collection::vec(0_u64..40, 0..80), last: bool) {
            let (mut ranges, mut naive) = (Ranges::default(), HashSet::new());
            for number in numbers.into_iter().chain(last.then_some(u64::MAX)) {
                prop_assert_eq!(insert(&mut ranges, number, number), naive.insert(number));
            }
            let held: usize = ranges.iter().map(|(first, last)| (last - first + 1) as usize).sum();
            prop_assert_eq!(held, naive.len());
        }
    }
}
