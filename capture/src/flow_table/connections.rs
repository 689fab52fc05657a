//! Connections begin, move on and close: what the table does with what a packet means.

use flowtrail_schema::InterfaceKind;

use super::flow::{Aside, Flow, Identity, Phase, Reason};
use super::handshake::{Challenger, Effect, Mark};
use super::key::{End, FlowKey};
use super::observations::Standing;
use super::slab::Slot;
use super::{FlowTable, Origin};
use crate::packet::Segment;

/// What a new flow begins with.
pub(super) struct Beginning {
    pub(super) identity: Identity,
    pub(super) standing: Standing,
    pub(super) phase: Phase,
    pub(super) mark: Mark,
    pub(super) time_us: u64,
}

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

    /// Begins the flow of a packet that belongs to none. Nothing if its interface is not watched.
    pub(super) fn begin(
        &mut self,
        key: FlowKey,
        sender: End,
        origin: Origin,
        segment: &Segment,
        time_us: u64,
    ) -> Option<Slot> {
        let flags = segment.flags;
        let buried = self.tombstones.take(&key);
        if flags.syn && !flags.ack && !flags.rst {
            let syn = Challenger { client: sender, isn: segment.sequence, time_us };
            return self.begin_syn(key, sender, origin, syn, time_us);
        }
        let mut mark = Mark::Nothing;
        let (mut identity, standing) = if flags.syn && !flags.rst {
            self.shared.lock().listeners.insert(key.endpoint(sender));
            mark = Mark::SynAck;
            let mut identity = Identity::new(sender.other(), time_us);
            identity.set_isn(sender.other(), segment.acknowledgment.wrapping_sub(1));
            identity.set_isn(sender, segment.sequence);
            (identity, Standing::OPEN)
        } else if let Some(buried) = buried {
            buried
        } else {
            let client = self.infer_client(&key);
            let mut inferred = Identity::new(client, time_us);
            (inferred.handshake_seen, inferred.direction_inferred) = (false, true);
            (inferred, Standing::OPEN)
        };
        identity.learn_inside(sender, origin);
        let beginning = Beginning { identity, standing, phase: Phase::Open, mark, time_us };
        let slot = self.insert(key, beginning, time_us)?;
        self.slots[slot].delta.joined = true;
        if mark == Mark::SynAck {
            self.unconfirmed.push(slot);
        }
        Some(slot)
    }

    /// Begins the flow of a SYN: of the packet at hand, or of one that is answered only now.
    pub(super) fn begin_syn(
        &mut self,
        key: FlowKey,
        sender: End,
        origin: Origin,
        syn: Challenger,
        time_us: u64,
    ) -> Option<Slot> {
        let mut identity = Identity::new(syn.client, syn.time_us);
        identity.set_isn(syn.client, syn.isn);
        identity.learn_inside(sender, origin);
        let beginning = Beginning {
            identity,
            standing: Standing::OPEN,
            phase: Phase::HalfOpen,
            mark: Mark::Nothing,
            time_us: syn.time_us,
        };
        let slot = self.insert(key, beginning, time_us)?;
        self.slots[slot].delta.opened = true;
        Some(slot)
    }

    /// Who is the client of a connection whose handshake was not seen: the end not known to listen,
    /// else the one with the higher port.
    fn infer_client(&self, key: &FlowKey) -> End {
        let [low, high] = [End::Low, End::High].map(|end| key.endpoint(end));
        let listeners = &self.shared.lock().listeners;
        match (listeners.contains(low), listeners.contains(high)) {
            (true, false) => End::High,
            (false, true) => End::Low,
            _ if high.port > low.port => End::High,
            _ => End::Low,
        }
    }

    fn insert(&mut self, key: FlowKey, beginning: Beginning, time_us: u64) -> Option<Slot> {
        if !self.shared.lock().points.is_watched(key.point) {
            self.stats.unknown_point += 1;
            return None;
        }
        if self.slots.len() >= self.config.max_flows {
            self.evict(time_us);
        }
        let slot = self.add(key, beginning);
        self.begin_delta(slot, time_us);
        Some(slot)
    }

    /// Adds a flow that counts nothing yet.
    pub(super) fn add(&mut self, key: FlowKey, beginning: Beginning) -> Slot {
        let Beginning { identity, standing, phase, mark, time_us } = beginning;
        let mut flow = Flow::new(key, identity, phase, time_us);
        flow.mark = mark;
        if phase == Phase::Open {
            flow.set_counted(self.config.interval.interval_at(time_us));
        }
        flow.is_others_socket = self.is_others_socket(&flow);
        let mut common = self.shared.lock();
        common.points.hold(key.point);
        let facts = common.facts(&flow);
        let (observation, free) = common.observations.attach(&key, &identity, standing, facts);
        common.id_conflicts += u64::from(!free);
        drop(common);
        flow.observation = observation;
        self.slots.insert(flow)
    }

    /// Whether an uplink's connection with the node's address is not the node's own: joined midstream,
    /// a pod's, masqueraded, does not show otherwise that it is the pod's.
    fn is_others_socket(&mut self, flow: &Flow) -> bool {
        let Some(owns) = &mut self.owns_socket else { return false };
        let common = self.shared.lock();
        let own = match common.points.kind(flow.key.point) {
            Some(InterfaceKind::Uplink) if !flow.identity.handshake_seen => common.own_end(flow),
            _ => None,
        };
        drop(common);
        own.is_some_and(|own| {
            let [local, remote] = [own, own.other()].map(|end| flow.key.endpoint(end));
            owns(local, remote) == Some(false)
        })
    }

    /// Counts a packet for a flow, and moves the flow on by it.
    pub(super) fn count(&mut self, slot: Slot, sender: End, segment: &Segment, time_us: u64) {
        let first_of_interval = self.begin_delta(slot, time_us);
        if !self.slots[slot].delta.fits(sender, segment) {
            self.flush(slot);
            self.begin_delta(slot, time_us);
        }
        let mut aside = self.take_aside(slot);
        let flow = &mut self.slots[slot];
        let was_one_sided = flow.one_sided();
        let effect = flow.apply(sender, segment, time_us, &mut aside);
        flow.count(sender, time_us, segment);
        let facts_changed = flow.one_sided() != was_one_sided;
        self.put_aside(slot, aside);
        match effect {
            Effect::Nothing if facts_changed => self.tell_facts(slot),
            Effect::Nothing => {}
            Effect::SynAgain => self.slots.move_to(slot, self.slots[slot].phase),
            Effect::Identified => self.identify(slot),
            Effect::Answered => self.answered(slot, segment, time_us),
            Effect::Closed(reason) => {
                if facts_changed {
                    self.tell_facts(slot);
                }
                self.close(slot, reason, time_us);
            }
        }
        // Open flows are listed in the order of the intervals that they were last active in.
        if first_of_interval && self.slots[slot].phase == Phase::Open {
            self.slots.move_to(slot, Phase::Open);
        }
    }

    fn answered(&mut self, slot: Slot, segment: &Segment, time_us: u64) {
        let interval = self.config.interval.interval_at(time_us);
        let flow = &mut self.slots[slot];
        if flow.phase == Phase::Remembered {
            // Its first life was closed as unanswered.
            flow.delta.joined = true;
        }
        flow.set_counted(interval);
        self.slots.move_to(slot, Phase::Open);
        if self.slots[slot].is_unconfirmed() {
            self.unconfirmed.push(slot);
        }
        self.identify(slot);
        if segment.flags.syn {
            let flow = &self.slots[slot];
            let server = flow.key.endpoint(flow.identity.server());
            self.shared.lock().listeners.insert(server);
        }
    }

    fn identify(&mut self, slot: Slot) {
        let flow = &self.slots[slot];
        let mut common = self.shared.lock();
        let facts = common.facts(flow);
        common.observations.set_facts(flow.observation, facts);
        let free = common.observations.identify(flow.observation, &flow.key, &flow.identity);
        common.id_conflicts += u64::from(!free);
    }

    fn tell_facts(&mut self, slot: Slot) {
        let flow = &self.slots[slot];
        let mut common = self.shared.lock();
        let facts = common.facts(flow);
        common.observations.set_facts(flow.observation, facts);
    }

    pub(super) fn take_aside(&mut self, slot: Slot) -> Aside {
        match std::mem::take(&mut self.slots[slot].has_aside) {
            true => self.asides.remove(&slot).unwrap_or_default(),
            false => Aside::default(),
        }
    }

    pub(super) fn put_aside(&mut self, slot: Slot, aside: Aside) {
        if !aside.is_empty() {
            self.slots[slot].has_aside = true;
            self.asides.insert(slot, aside);
        }
    }

    /// Makes way for a new connection on a flow's tuple.
    pub(super) fn supersede(&mut self, slot: Slot, time_us: u64) {
        match self.slots[slot].phase {
            Phase::HalfOpen | Phase::Open => self.close(slot, Reason::Superseded, time_us),
            Phase::Lingering | Phase::Remembered | Phase::Free => self.retire(slot),
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
        flow.delta.closed = Some(reason);
        match reason {
            // It goes on waiting since its last SYN.
            Reason::Unanswered => {
                self.flush(slot);
                self.slots.move_to(slot, Phase::Remembered);
            }
            Reason::Idle | Reason::Superseded | Reason::Evicted => {
                if flow.phase == Phase::Open && reason != Reason::Superseded {
                    let common = &mut *self.shared.lock();
                    // What comes back must know the choice.
                    common.observations.choose(flow.observation, &common.points);
                    let standing = common.observations.standing(flow.observation);
                    self.tombstones.bury(flow.key, flow.identity, standing);
                }
                self.retire(slot);
            }
            Reason::Fin | Reason::ResetByClient | Reason::ResetByServer | Reason::Refused => {
                flow.since_us = flow.last_seen_us;
                self.slots.move_to(slot, Phase::Lingering);
            }
        }
    }

    /// Forgets a flow; its records are on their way.
    pub(super) fn retire(&mut self, slot: Slot) {
        self.flush(slot);
        self.take_aside(slot);
        let common = &mut *self.shared.lock();
        common.observations.retire(self.slots[slot].observation, &mut common.points);
        self.slots.remove(slot);
    }
}
