//! Announcements: which agents see the client side of an address, and when, in record time. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use flowtrail_schema::interval::Interval;
use flowtrail_schema::{Detail, FlowBatch};
use foldhash::fast::RandomState;
use prometheus_client::metrics::counter::Counter;

use crate::admission::intervals;

/// Addresses with a lease in each partition, at most: all pods of the largest cluster Kubernetes
/// supports, and then some. Beyond it those whose leases have all run out are dropped; if none has, the
/// new address is refused and counted: its connections are counted on the server's side.
const MAX_ANNOUNCED: usize = 200_000;

/// Leases remembered for one address, at most: a pod that moves has two, and one more for each time that
/// its agent was away. An address that every node has (link-local ones) has more, and says nothing
/// of who sees a connection. Beyond it the one that ran out first is forgotten, and with it who
/// saw the address until then: what is observed of it counts, whoever observes it.
const MAX_LEASES: usize = 8;

/// Agents whose newest interval is remembered in each partition, at most: Kubernetes supports 5,000
/// nodes. Beyond it those not heard for [`MAX_SILENCE_US`] are forgotten; if none is, the new one
/// is not remembered, and counted: its announcements end with their leases.
const MAX_AGENTS: usize = 20_000;

/// How many intervals an announcement holds, from the start of each one that it was made for.
const LEASE_INTERVALS: u64 = 3;

/// How long the last word of an agent that is silent holds for summaries: as long as an agent keeps
/// its reports while the log cannot be reached.
const MAX_SILENCE_US: u64 = 3_600_000_000;

/// The addresses whose client side some agent observes, in record time.
///
/// An announcement holds for the intervals that its batch has records or reports of, whatever their
/// order in the log: an agent that was cut off from it says in one batch what it saw in many intervals.
///
/// Under the caps, what a batch adds does not depend on what came before it. So, taken in
/// again from a batch on, they decide the same about every record of an interval (of a minute, for its
/// summary) that no lease of an earlier batch reaches into: three intervals after the newest of
/// these batches. About a summary also no agent may be silent since then that was heard before, in
/// the [`MAX_SILENCE_US`] before the summary.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    announced: HashMap<IpAddr, Announced, RandomState>,
    /// Start of the newest interval of each agent.
    heard_us: HashMap<Arc<str>, u64, RandomState>,
    newest_us: u64,
    /// `newest_us` when leases that have run out were last dropped: until it moves, no other has.
    swept_us: u64,
    refused: Counter,
}

/// Who announced one address.
#[derive(Debug, Default)]
struct Announced {
    /// Those of one agent neither overlap nor touch.
    leases: Vec<Lease>,
    /// Not all who announced it before are remembered.
    known_from_us: u64,
}

/// One agent's, from its first announcement in a row until the last one runs out, microseconds since
/// the epoch.
#[derive(Clone, Debug)]
struct Lease {
    agent: Arc<str>,
    from_us: u64,
    until_us: u64,
}

impl Announcements {
    /// Counts what it must refuse in `refused`.
    pub(crate) fn new(refused: Counter) -> Self {
        Self { refused, ..Self::default() }
    }

    /// Takes in what an agent announces in a batch. A batch that reports on no interval has no time
    /// to announce for.
    pub(crate) fn renew(&mut self, batch: &FlowBatch) {
        let Some(newest_us) = intervals(batch).map(Interval::start_us).max() else { return };
        self.newest_us = self.newest_us.max(newest_us);
        self.hear(&batch.agent, newest_us);
        if batch.announced_addresses.is_empty() {
            return;
        }
        let spans = spans(batch);
        for address in &batch.announced_addresses {
            let address = address.to_canonical();
            if !self.has_room_for(address) {
                self.refused.inc();
                continue;
            }
            let announced = self.announced.entry(address).or_default();
            for (from_us, until_us) in &spans {
                let agent = Arc::clone(&batch.agent);
                announced.add(Lease { agent, from_us: *from_us, until_us: *until_us });
            }
        }
    }

    /// Whether another agent sees the client side of an address in an interval, and `agent` does not: an
    /// address that it announces itself it can be expected to see as well as any.
    ///
    /// That something was `folded` tells that its agent was cut off from the log. Others may have
    /// been too, and be about to tell of the same time: of those that are silent the last word holds.
    pub(crate) fn elsewhere(
        &self,
        address: IpAddr,
        interval: Interval,
        folded: bool,
        agent: &str,
    ) -> bool {
        let Some(announced) = self.announced.get(&address.to_canonical()) else { return false };
        let holds = |lease: &&Lease| {
            lease.reaches(interval) || (folded && self.is_last_word(lease, interval))
        };
        let mut holding = announced.leases.iter().filter(holds).peekable();
        interval.start_us() >= announced.known_from_us
            && holding.peek().is_some()
            && holding.all(|lease| *lease.agent != *agent)
    }

    /// Whether a lease ran out before an interval, and its agent has been silent since.
    fn is_last_word(&self, lease: &Lease, interval: Interval) -> bool {
        let silent_us = interval.start_us().checked_sub(lease.until_us);
        silent_us.is_some_and(|silent_us| silent_us < MAX_SILENCE_US)
            && self.heard_us.get(&lease.agent).is_some_and(|heard_us| *heard_us < lease.until_us)
    }

    fn hear(&mut self, agent: &Arc<str>, newest_us: u64) {
        if let Some(heard_us) = self.heard_us.get_mut(agent) {
            *heard_us = newest_us.max(*heard_us);
            return;
        }
        if self.heard_us.len() >= MAX_AGENTS {
            let silent_us = self.newest_us.saturating_sub(MAX_SILENCE_US);
            self.heard_us.retain(|_, heard_us| *heard_us > silent_us);
        }
        if self.heard_us.len() >= MAX_AGENTS {
            self.refused.inc();
            return;
        }
        self.heard_us.insert(Arc::clone(agent), newest_us);
    }

    fn has_room_for(&mut self, address: IpAddr) -> bool {
        if self.announced.len() < MAX_ANNOUNCED || self.announced.contains_key(&address) {
            return true;
        }
        if self.swept_us < self.newest_us {
            let newest_us = self.newest_us;
            let holds = |lease: &Lease| lease.until_us > newest_us;
            self.announced.retain(|_, announced| announced.leases.iter().any(holds));
            self.swept_us = newest_us;
        }
        self.announced.len() < MAX_ANNOUNCED
    }
}

impl Announced {
    /// Adds a lease. Those of its agent that it overlaps or touches become one with it.
    fn add(&mut self, mut lease: Lease) {
        self.leases.retain(|known| {
            let touches = known.agent == lease.agent
                && known.from_us <= lease.until_us
                && lease.from_us <= known.until_us;
            if touches {
                lease.from_us = lease.from_us.min(known.from_us);
                lease.until_us = lease.until_us.max(known.until_us);
            }
            !touches
        });
        self.leases.push(lease);
        if self.leases.len() > MAX_LEASES {
            let ends = self.leases.iter().enumerate().map(|(index, lease)| (lease.until_us, index));
            if let Some((until_us, first)) = ends.min() {
                self.leases.swap_remove(first);
                self.known_from_us = self.known_from_us.max(until_us);
            }
        }
    }
}

impl Lease {
    fn reaches(&self, interval: Interval) -> bool {
        self.from_us < interval.end_us() && interval.start_us() < self.until_us
    }
}

/// The times that a batch announces for, apart from each other; of very many the latest. A summary of a
/// minute was made for that minute: how long the agent's intervals are, it does not tell.
fn spans(batch: &FlowBatch) -> Vec<(u64, u64)> {
    let leased = |interval: Interval| {
        let start_us = interval.start_us();
        (start_us, start_us + LEASE_INTERVALS * interval.length().us())
    };
    let records = batch.records.iter().map(|record| match record.detail {
        Detail::MinuteSummary => (record.interval.start_us(), record.interval.end_us()),
        Detail::Flow | Detail::Summary => leased(record.interval),
    });
    let reports = batch.coverage.iter().map(|report| leased(report.interval));
    let mut all: Vec<(u64, u64)> = Vec::new();
    for span in records.chain(reports) {
        // Most records of a batch are of one interval.
        if all.last() != Some(&span) {
            all.push(span);
        }
    }
    all.sort_unstable();
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for (from_us, until_us) in all {
        match spans.last_mut() {
            Some((_, end_us)) if from_us <= *end_us => *end_us = until_us.max(*end_us),
            _ => spans.push((from_us, until_us)),
        }
    }
    spans.split_off(spans.len().saturating_sub(MAX_LEASES))
}

#[cfg(test)]
mod tests;
