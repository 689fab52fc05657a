//! Connections begin, move on and close: what the table does with what a packet means.

use super::flow::{Flow, Identity, Phase, Reason};
use super::handshake::{Challenger, Effect, Mark};
use super::key::{End, FlowKey};
use super::slots::Slot;
use super::{FlowTable, Origin};
use crate::packet::Segment;

impl FlowTable {
    /// The flow of a key, unless its time is up.
    pub(super) fn find(&mut self, key: &FlowKey, time_us: u64) -> Option<Slot> {
        loop {
            let slot = self.slots.find(key)?;
            if self.deadline_us(slot) > time_us {
                return Some(slot);
            }
            self.expire(slot);
        }
    }

    /// Begins the flow of a packet that belongs to none.
    pub(super) fn begin(
        &mut self,
        key: FlowKey,
        sender: End,
        segment: &Segment,
        time_us: u64,
    ) -> Slot {
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
    pub(super) fn begin_syn(&mut self, key: FlowKey, syn: Challenger, time_us: u64) -> Slot {
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
    pub(super) fn count(
        &mut self,
        slot: Slot,
        sender: End,
        origin: Origin,
        segment: &Segment,
        time_us: u64,
    ) {
        let first_of_interval = self.begin_delta(slot, time_us);
        if !self.slots[slot].delta.fits(sender, segment) {
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
    pub(super) fn supersede(&mut self, slot: Slot, time_us: u64) {
        match self.slots[slot].phase {
            Phase::HalfOpen | Phase::Open => self.close(slot, Reason::Superseded, time_us),
            Phase::Lingering | Phase::Remembered | Phase::Dead => self.retire(slot),
        }
    }

    /// Closes a connection.
    pub(super) fn close(&mut self, slot: Slot, reason: Reason, time_us: u64) {
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
    pub(super) fn retire(&mut self, slot: Slot) {
        self.choose(slot);
        self.flush(slot);
        self.slots.retire(slot);
        if self.slots[slot].waiting == 0 {
            self.free(slot);
        }
    }

    pub(super) fn free(&mut self, slot: Slot) {
        self.registry.detach(&mut self.slots, slot);
        self.points.release(self.slots[slot].key.point);
        self.slots.free(slot);
    }
}
