//! The flow table: packets in, records out. Pure: time is an argument, and there is no I/O.
//!
//! ```text
//! packet ─ find or begin its flow (key, handshake, connections) ─ count (flow, delta)
//!     time ─ interval over, timeouts (expiry) ─ choose among observations (primary) ─ record (records)
//! ```

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use flowtrail_schema::interval::{Interval, IntervalLength};
use flowtrail_schema::{Endpoint, FlowRecord};

use crate::packet::Segment;

mod connections;
mod delta;
mod expiry;
mod flow;
mod handshake;
mod key;
mod listeners;
mod observations;
mod points;
mod records;
mod saved;
mod sequence;
mod shared;
mod slab;
mod slots;
#[cfg(test)]
mod tests;
mod tombstones;
mod unconfirmed;

pub use expiry::{LINGER, REMEMBERED, UNANSWERED_AFTER};
pub use points::PointId;
pub use saved::SavedFlows;
pub use shared::Shared;

use expiry::Cut;
use flow::Aside;
use handshake::Verdict;
use key::FlowKey;
use observations::ObservationId;
use slab::Slot;
use slots::Slots;
use tombstones::Tombstones;
use unconfirmed::Unconfirmed;

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
    /// Connections kept in mind in case they come back.
    pub tombstones: usize,
    /// Tombstones forgotten because there were too many.
    pub tombstones_forgotten: u64,
    /// Records that left before their interval's cut because too many waited.
    pub undecided_early: u64,
    /// Packets of an interface that is not (or no longer) watched: they are in no record.
    pub unknown_point: u64,
}

/// Whether a local and a remote end are those of a socket of this node; none if nobody can tell.
pub type OwnsSocket = Box<dyn FnMut(Endpoint, Endpoint) -> Option<bool> + Send>;

/// The connections that a worker sees, and what each does in each interval.
pub struct FlowTable {
    config: FlowTableConfig,
    shared: Shared,
    slots: Slots,
    /// What few flows have.
    asides: HashMap<Slot, Aside>,
    tombstones: Tombstones,
    unconfirmed: Unconfirmed,
    owns_socket: Option<OwnsSocket>,
    /// The first interval whose cut has not begun, none before time has begun; and when it is due.
    next_cut: Option<Interval>,
    cut_due_us: u64,
    /// The cut under way.
    cut: Option<Cut>,
    /// Flows that count something, and some that no longer do.
    dirty: Vec<Slot>,
    /// Records whose flow's choice is not made.
    undecided: VecDeque<(ObservationId, FlowRecord)>,
    /// Records on their way out; [`advance`](Self::advance) takes them.
    ready: Vec<FlowRecord>,
    stats: FlowTableStats,
}

impl FlowTable {
    /// An empty table, one of those that share observation points. Each connection's packets at one
    /// interface must all come to the same.
    pub fn new(config: FlowTableConfig, shared: Shared) -> Self {
        Self {
            config,
            shared,
            slots: Slots::new(),
            asides: HashMap::new(),
            tombstones: Tombstones::default(),
            unconfirmed: Unconfirmed::default(),
            owns_socket: None,
            next_cut: None,
            cut_due_us: 0,
            cut: None,
            dirty: Vec::new(),
            undecided: VecDeque::new(),
            ready: Vec::new(),
            stats: FlowTableStats::default(),
        }
    }

    /// Lets the table ask whose socket it is that an uplink's connection, joined midstream, leads to.
    /// Asked once for each.
    pub fn ask_sockets(&mut self, owns_socket: OwnsSocket) {
        self.owns_socket = Some(owns_socket);
    }

    /// Flows in the table, also closed ones that linger.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
        self.reach(time_us);
        let (key, sender) = FlowKey::of(point, segment);
        let slot = match self.find(&key, time_us) {
            None => self.begin(key, sender, origin, segment, time_us),
            Some(slot) => match self.verdict(slot, sender, segment) {
                Verdict::Same => Some(slot),
                Verdict::Another => {
                    self.supersede(slot, time_us);
                    self.begin(key, sender, origin, segment, time_us)
                }
                Verdict::Answers(challenger) => {
                    self.supersede(slot, time_us);
                    self.begin_syn(key, sender, origin, challenger, time_us)
                }
            },
        };
        if let Some(slot) = slot {
            self.count(slot, sender, segment, time_us);
        }
    }

    fn verdict(&self, slot: Slot, sender: key::End, segment: &Segment) -> Verdict {
        let flow = &self.slots[slot];
        let aside = if flow.has_aside { self.asides.get(&slot) } else { None };
        flow.verdict(sender, segment, aside.and_then(|aside| aside.challenger))
    }

    /// Lets time pass until `now_us` (microseconds since the epoch) and takes the records that are
    /// due: of every interval that ended [`CUT_DELAY_US`] ago, and some earlier.
    ///
    /// To be called several times in an interval, for records wait here without a bound. What is due
    /// comes in pieces of some thousand records, and no more than an interval at once: false if there is
    /// more, to be called again. Packets may come in between.
    pub fn advance(&mut self, now_us: u64, out: &mut Vec<FlowRecord>) -> bool {
        let now_us = now_us.min(LATEST_US);
        loop {
            if self.cut.is_none() {
                self.begin_due(now_us);
            }
            self.go_on();
            let is_done = self.cut.is_none() && self.cut_due_us > now_us;
            if is_done || !self.ready.is_empty() {
                out.append(&mut self.ready);
                return is_done;
            }
        }
    }

    /// Takes everything that was counted until `now_us`, as at the end of a file or of the process.
    /// Connections stay open. In pieces: false if there is more, to be called again.
    pub fn finish(&mut self, now_us: u64, out: &mut Vec<FlowRecord>) -> bool {
        let is_done = self.finish_intervals(now_us.min(LATEST_US));
        out.append(&mut self.ready);
        is_done
    }
}
