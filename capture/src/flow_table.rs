//! The flow table: packets in, records out. Pure: time is an argument, and there is no I/O.
//!
//! ```text
//! packet ─ find its flow (key, handshake) ─ count (flow) ─ interval over ─ choose (primary) ─ record
//!                                             └ timers, eviction, tombstones (expiry)
//! ```

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use flowtrail_schema::interval::{Interval, IntervalLength};
use flowtrail_schema::{FlowRecord, Interface, InterfaceKind, Reporter};

use crate::packet::Segment;

mod expiry;
mod flow;
mod handshake;
mod key;
mod listeners;
mod points;
mod primary;
mod slots;
#[cfg(test)]
mod tests;
mod tombstones;

pub use expiry::{LINGER, REMEMBERED, UNANSWERED_AFTER};
pub use points::PointId;

use flow::{Choice, Flow, Identity, Phase, Reason};
use handshake::{Challenger, Effect, Mark, Verdict};
use key::{End, FlowKey};
use listeners::Listeners;
use points::Points;
use primary::{Registry, Surroundings};
use slots::{Slot, Slots};
use tombstones::Tombstones;

/// How long after its end an interval is cut: by then what happened in it was seen at every interface,
/// so that the best observation of each connection can be chosen. Microseconds.
pub const CUT_DELAY_US: u64 = 500_000;

/// Records that wait for their interval's cut at most, some 25 MB: those of new flows that went on into
/// the next interval, or closed, before it. Past that they leave early, and the choice among a
/// connection's observations is made from those seen so far.
const MAX_UNDECIDED: usize = 65_536;

/// Later times count as this: a record's interval is 32 bits of seconds on the wire.
const LATEST_US: u64 = (u32::MAX as u64 - 120) * 1_000_000;

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

    /// Removes an observation point. Its connections are not closed by that; they idle out.
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
    /// To be called several times in an interval, for records wait here without a bound.
    pub fn advance(&mut self, now_us: u64, out: &mut Vec<FlowRecord>) {
        self.pass_time(now_us.min(LATEST_US));
        out.append(&mut self.ready);
    }

    /// Takes everything that was counted until `now_us`, as at the end of a file or of the process.
    /// Connections stay open.
    pub fn finish(&mut self, now_us: u64, out: &mut Vec<FlowRecord>) {
        self.finish_intervals(now_us.min(LATEST_US));
        out.append(&mut self.ready);
    }

    /// The flow of a key, unless its time is up.
    fn find(&mut self, key: &FlowKey, time_us: u64) -> Option<Slot> {
        loop {
            let slot = self.slots.find(key)?;
            if self.deadline_us(slot) > time_us {
                return Some(slot);
            }
            self.expire(slot);
        }
    }

    /// Begins the flow of a packet that belongs to none.
    fn begin(&mut self, key: FlowKey, sender: End, segment: &Segment, time_us: u64) -> Slot {
        let flags = segment.flags;
        let buried = self.tombstones.take(&key);
        if flags.syn && !flags.ack && !flags.rst {
            let syn = Challenger { client: sender, isn: segment.sequence, time_us };
            return self.begin_syn(key, syn, time_us);
        }
        let mut mark = Mark::Nothing;
        let identity = if flags.syn && !flags.rst {
            self.listeners.insert(key.endpoint(sender));
            mark = Mark::SynAck(time_us);
            let mut identity = Identity::new(sender.other(), time_us);
            identity.isn[sender.other()] = Some(segment.acknowledgment.wrapping_sub(1));
            identity.isn[sender] = Some(segment.sequence);
            identity
        } else if let Some(buried) = buried {
            buried
        } else {
            let client = self.infer_client(&key);
            let inferred = Identity::new(client, time_us);
            Identity { handshake_seen: false, direction_inferred: true, ..inferred }
        };
        let mut flow = Flow::new(key, identity, Phase::Open, time_us);
        flow.mark = mark;
        let slot = self.insert(flow, time_us);
        self.slots[slot].delta.joined = true;
        slot
    }

    /// Begins the flow of a SYN: of the packet at hand, or of one that is answered only now.
    fn begin_syn(&mut self, key: FlowKey, syn: Challenger, time_us: u64) -> Slot {
        let mut identity = Identity::new(syn.client, syn.time_us);
        identity.isn[syn.client] = Some(syn.isn);
        let flow = Flow::new(key, identity, Phase::HalfOpen, syn.time_us);
        let slot = self.insert(flow, time_us);
        self.slots[slot].delta.opened = true;
        slot
    }

    /// Who is the client of a connection whose handshake was not seen: the end not known to listen,
    /// else the one with the higher port.
    fn infer_client(&self, key: &FlowKey) -> End {
        let [low, high] = [End::Low, End::High].map(|end| key.endpoint(end));
        match (self.listeners.contains(low), self.listeners.contains(high)) {
            (true, false) => End::High,
            (false, true) => End::Low,
            _ if high.port > low.port => End::High,
            _ => End::Low,
        }
    }

    fn insert(&mut self, flow: Flow, time_us: u64) -> Slot {
        if self.slots.len() >= self.config.max_flows {
            self.evict(time_us);
        }
        self.points.hold(flow.key.point);
        let slot = self.slots.insert(flow);
        if !self.registry.attach(&mut self.slots, slot) {
            self.stats.id_conflicts += 1;
        }
        self.begin_delta(slot, time_us);
        slot
    }

    /// Counts a packet for a flow, and moves the flow on by it.
    fn count(&mut self, slot: Slot, sender: End, origin: Origin, segment: &Segment, time_us: u64) {
        let first_of_interval = self.begin_delta(slot, time_us);
        if !self.slots[slot].fits(sender, segment) {
            self.flush(slot);
            self.begin_delta(slot, time_us);
        }
        let flow = &mut self.slots[slot];
        let effect = flow.apply(sender, segment, time_us);
        flow.count(sender, origin, time_us, segment);
        match effect {
            Effect::Nothing => {}
            Effect::SynAgain => self.slots.move_to(slot, self.slots[slot].phase),
            Effect::Identified => self.identify(slot),
            Effect::Answered => {
                if flow.phase == Phase::Remembered {
                    // Its first life was closed as unanswered.
                    flow.delta.joined = true;
                }
                if segment.flags.syn {
                    self.listeners.insert(flow.key.endpoint(flow.server()));
                }
                self.slots.move_to(slot, Phase::Open);
                self.identify(slot);
            }
            Effect::Closed(reason) => self.close(slot, reason, time_us),
        }
        // Open flows are listed in the order of the intervals that they were last active in.
        if first_of_interval && self.slots[slot].phase == Phase::Open {
            self.slots.move_to(slot, Phase::Open);
        }
    }

    fn identify(&mut self, slot: Slot) {
        if !self.registry.identify(&mut self.slots, slot) {
            self.stats.id_conflicts += 1;
        }
    }

    /// Makes way for a new connection on a flow's tuple.
    fn supersede(&mut self, slot: Slot, time_us: u64) {
        match self.slots[slot].phase {
            Phase::HalfOpen | Phase::Open => self.close(slot, Reason::Superseded, time_us),
            Phase::Lingering | Phase::Remembered | Phase::Dead => self.retire(slot),
        }
    }

    /// Closes a connection.
    fn close(&mut self, slot: Slot, reason: Reason, time_us: u64) {
        self.begin_delta(slot, time_us);
        if self.slots[slot].delta.closed.is_some() {
            // Closed as unanswered, answered after all, and closed again within one interval.
            self.flush(slot);
            self.begin_delta(slot, time_us);
        }
        let flow = &mut self.slots[slot];
        flow.note_close(reason);
        if flow.phase == Phase::Open && matches!(reason, Reason::Idle | Reason::Evicted) {
            self.tombstones.bury(flow.key, flow.identity);
        }
        match reason {
            // It goes on waiting since its last SYN.
            Reason::Unanswered => self.slots.move_to(slot, Phase::Remembered),
            Reason::Idle | Reason::Superseded | Reason::Evicted => self.retire(slot),
            Reason::Fin | Reason::ResetByClient | Reason::ResetByServer | Reason::Refused => {
                flow.since_us = time_us;
                self.slots.move_to(slot, Phase::Lingering);
            }
        }
    }

    /// Forgets a flow, once its records have left.
    fn retire(&mut self, slot: Slot) {
        self.choose(slot);
        self.flush(slot);
        self.slots.retire(slot);
        if self.slots[slot].waiting == 0 {
            self.free(slot);
        }
    }

    fn free(&mut self, slot: Slot) {
        self.registry.detach(&mut self.slots, slot);
        self.points.release(self.slots[slot].key.point);
        self.slots.free(slot);
    }

    /// Sees to it that a flow counts for the interval of an instant. True if it did not before.
    fn begin_delta(&mut self, slot: Slot, time_us: u64) -> bool {
        let interval = self.config.interval.interval_at(time_us);
        if self.slots[slot].counts_for(interval) {
            return false;
        }
        self.flush(slot);
        // The heartbeat of an interval that is over but not cut: at its cut the flow will be counting
        // for this one, or be closed.
        if let Some(before) = self.next_cut
            && before < interval
        {
            self.heartbeat(slot, before);
        }
        self.slots[slot].begin_delta(interval);
        self.dirty.push(slot);
        true
    }

    /// Makes the record that every open flow has in the first interval of a minute.
    fn heartbeat(&mut self, slot: Slot, interval: Interval) {
        if interval.starts_minute()
            && self.slots[slot].is_uncounted_at(interval)
            && !self.slots[slot].delta.begun
        {
            self.slots[slot].begin_delta(interval);
            self.flush(slot);
        }
    }

    /// Makes a record of what a flow has counted.
    fn flush(&mut self, slot: Slot) {
        let flow = &mut self.slots[slot];
        if !flow.delta.begun {
            return;
        }
        let Some(interface) = self.points.interface(flow.key.point) else { return };
        let record = flow.take_record(self.config.interval, interface.clone());
        if flow.identity.choice == Choice::Open {
            flow.waiting += 1;
            self.undecided.push((slot, record));
            if self.undecided.len() >= MAX_UNDECIDED {
                self.stats.undecided_early += self.undecided.len() as u64;
                self.settle(None);
            }
        } else {
            self.emit(slot, record);
        }
    }

    /// Makes the choice for a flow from what is known by now.
    fn choose(&mut self, slot: Slot) {
        let surroundings =
            Surroundings { points: &self.points, node_addresses: &self.node_addresses };
        self.registry.choose(&mut self.slots, slot, surroundings);
    }

    /// Sends a record on its way, with the choice.
    fn emit(&mut self, slot: Slot, mut record: FlowRecord) {
        let flow = &self.slots[slot];
        record.local_primary = flow.identity.choice == Choice::Primary;
        record.reporter = flow.identity.reporter;
        if record.reporter == Reporter::Client
            && !self.points.announce(flow.key.point, record.client.ip)
        {
            self.stats.addresses_refused += 1;
        }
        self.ready.push(record);
    }
}
