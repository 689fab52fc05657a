//! The flow table: packets in, records out. Pure: time is an argument, and there is no I/O.
//!
//! ```text
//! packet ─ find or begin its flow (key, handshake, connections) ─ count (flow, delta)
//!     time ─ interval over, timeouts (expiry) ─ choose among observations (primary) ─ record (records)
//! ```

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use flowtrail_schema::interval::{Interval, IntervalLength};
use flowtrail_schema::{FlowRecord, Interface, InterfaceKind};

use crate::packet::Segment;

mod connections;
mod delta;
mod expiry;
mod flow;
mod handshake;
mod key;
mod listeners;
mod points;
mod primary;
mod records;
mod sequence;
mod slots;
#[cfg(test)]
mod tests;
mod tombstones;

pub use expiry::{LINGER, REMEMBERED, UNANSWERED_AFTER};
pub use points::PointId;

use handshake::Verdict;
use key::FlowKey;
use listeners::Listeners;
use points::Points;
use primary::Registry;
use slots::{Slot, Slots};
use tombstones::Tombstones;

/// How long after its end an interval is cut: by then what happened in it was seen at every interface,
/// so that the best observation of each connection can be chosen. Microseconds.
pub const CUT_DELAY_US: u64 = 500_000;

/// The latest time there is, microseconds since the epoch: a record's interval is 32 bits of seconds on
/// the wire. Later times count as this.
pub const LATEST_US: u64 = (u32::MAX as u64 - 120) * 1_000_000;

/// How a table cuts and bounds.
#[derive(Clone, Debug)]
pub struct FlowTableConfig {
    /// Length of the intervals.
    pub interval: IntervalLength,
    /// An open connection without packets for this long counts as closed.
    pub idle_timeout: Duration,
    /// Flows at most; past that the one idle for longest is evicted.
    pub max_flows: usize,
}

impl Default for FlowTableConfig {
    fn default() -> Self {
        Self {
            interval: IntervalLength::default(),
            idle_timeout: Duration::from_mins(15),
            max_flows: 1_000_000,
        }
    }
}

/// Which side of an interface a packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The side that the interface leads to: of a pod's interface the pod, of an uplink this node.
    Inside,
    /// The other side.
    Outside,
    /// Nobody knows, as in a file.
    Unknown,
}

/// What a table holds, and what it had to give up since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowTableStats {
    /// Flows in the table, also closed ones that linger.
    pub flows: usize,
    /// Connections closed because the table was full.
    pub evicted: u64,
    /// Closed flows forgotten early because the table was full: what comes late for them is counted
    /// as a new connection.
    pub forgotten: u64,
    /// Connections whose id was in use by another tuple on the same interface.
    pub id_conflicts: u64,
    /// Connections kept in mind in case they come back.
    pub tombstones: usize,
    /// Tombstones forgotten because there were too many.
    pub tombstones_forgotten: u64,
    /// Records that left before their interval's cut because too many waited.
    pub undecided_early: u64,
    /// Client addresses not announced because their interface has too many.
    pub addresses_refused: u64,
    /// Packets of an interface that is not (or no longer) watched: they are in no record.
    pub unknown_point: u64,
}

/// The connections that an agent sees, and what each does in each interval.
pub struct FlowTable {
    config: FlowTableConfig,
    slots: Slots,
    registry: Registry,
    points: Points,
    node_addresses: HashSet<IpAddr>,
    listeners: Listeners,
    tombstones: Tombstones,
    /// The first interval that is not cut; none before time has begun.
    next_cut: Option<Interval>,
    /// Flows that count something, and some that no longer do.
    dirty: Vec<Slot>,
    /// Records whose flow's choice is not made.
    undecided: Vec<(Slot, FlowRecord)>,
    /// Records on their way out; [`advance`](Self::advance) takes them.
    ready: Vec<FlowRecord>,
    stats: FlowTableStats,
}

impl FlowTable {
    /// An empty table.
    pub fn new(config: FlowTableConfig) -> Self {
        Self {
            config,
            slots: Slots::new(),
            registry: Registry::default(),
            points: Points::default(),
            node_addresses: HashSet::new(),
            listeners: Listeners::default(),
            tombstones: Tombstones::default(),
            next_cut: None,
            dirty: Vec::new(),
            undecided: Vec::new(),
            ready: Vec::new(),
            stats: FlowTableStats::default(),
        }
    }

    /// Adds an observation point.
    pub fn add_point(&mut self, interface: Arc<Interface>) -> PointId {
        self.points.add(interface)
    }

    /// Removes an observation point. Its connections are not closed by that; they idle out. What other
    /// points still see of those it was the primary observation of counts in no edge: the choice is for
    /// life, and packets that never got here were not the connection's.
    pub fn remove_point(&mut self, point: PointId) {
        self.points.remove(point);
    }

    /// Sets the node's own addresses, which tell what of an uplink's connections is the node's.
    pub fn set_node_addresses(&mut self, addresses: HashSet<IpAddr>) {
        self.node_addresses = addresses;
        self.points.retain_addresses(|interface, address| {
            interface.kind != InterfaceKind::Uplink || self.node_addresses.contains(address)
        });
    }

    /// The addresses whose client side this agent observes, in order.
    pub fn announced_addresses(&self) -> Vec<IpAddr> {
        self.points.addresses()
    }

    /// Flows in the table, also closed ones that linger.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Connections closed because the table was full, since it was made.
    pub fn evicted(&self) -> u64 {
        self.stats.evicted
    }

    /// What the table holds and gave up.
    pub fn stats(&self) -> FlowTableStats {
        FlowTableStats {
            flows: self.slots.len(),
            tombstones: self.tombstones.len(),
            tombstones_forgotten: self.tombstones.forgotten(),
            ..self.stats
        }
    }

    /// Takes a packet. Its own time (microseconds since the epoch) decides on its interval, and time
    /// has come at least so far; packets may be late, but each flow's should come in order.
    ///
    /// Records that this makes wait in the table for the next [`advance`](Self::advance).
    pub fn packet(&mut self, point: PointId, origin: Origin, time_us: u64, segment: &Segment) {
        let time_us = time_us.min(LATEST_US);
        if !self.points.is_watched(point) {
            self.stats.unknown_point += 1;
            return;
        }
        self.pass_time(time_us);
        let (key, sender) = FlowKey::of(point, segment);
        let slot = match self.find(&key, time_us) {
            None => self.begin(key, sender, segment, time_us),
            Some(slot) => match self.slots[slot].verdict(sender, segment) {
                Verdict::Same => slot,
                Verdict::Another => {
                    self.supersede(slot, time_us);
                    self.begin(key, sender, segment, time_us)
                }
                Verdict::Answers(challenger) => {
                    self.supersede(slot, time_us);
                    self.begin_syn(key, challenger, time_us)
                }
            },
        };
        self.count(slot, sender, origin, segment, time_us);
    }

    /// Lets time pass until `now_us` (microseconds since the epoch) and takes the records that are
    /// due: of every interval that ended [`CUT_DELAY_US`] ago, and some earlier.
    ///
    /// To be called several times in an interval, for records wait here without a bound. After a hole
    /// in time there may be many minutes of heartbeats: false if it stopped after an interval that had
    /// some, to be called again.
    pub fn advance(&mut self, now_us: u64, out: &mut Vec<FlowRecord>) -> bool {
        let is_done = self.pass_time_until(now_us.min(LATEST_US), |table| !table.ready.is_empty());
        out.append(&mut self.ready);
        is_done
    }

    /// Takes everything that was counted until `now_us`, as at the end of a file or of the process.
    /// Connections stay open.
    pub fn finish(&mut self, now_us: u64, out: &mut Vec<FlowRecord>) {
        self.finish_intervals(now_us.min(LATEST_US));
        out.append(&mut self.ready);
    }
}
