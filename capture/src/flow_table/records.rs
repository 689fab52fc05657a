//! Records: what a flow counted in an interval, with the choice among a connection's observations.

use std::sync::Arc;

use flowtrail_schema::interval::{Interval, IntervalLength};
use flowtrail_schema::{Detail, FlowRecord, IdKind, Interface, InterfaceKind, Measure, Reporter};

use super::FlowTable;
use super::flow::{Aside, Flow, Phase};
use super::observations::{Choice, ObservationId};
use super::shared::Common;
use super::slab::Slot;

/// Records of a worker that wait for their interval's cut at most, some 6 MB: those of new flows that
/// went on into the next interval, or were given up, before it. Past that the earliest leave, and the
/// choice among a connection's observations is made from those seen so far.
pub(super) const MAX_UNDECIDED: usize = 16_384;

/// How many leave then: they are seconds old mostly, and all their observations known.
const LEAVE_EARLY: usize = 2_048;

impl FlowTable {
    /// Sees to it that a flow counts for the interval of an instant. True if it did not before.
    pub(super) fn begin_delta(&mut self, slot: Slot, time_us: u64) -> bool {
        let interval = self.config.interval.interval_at(time_us);
        if self.slots[slot].delta.is_of(interval) {
            return false;
        }
        self.flush(slot);
        // The heartbeat of an interval that is over but not cut: at its cut the flow will be counting
        // for this one, or be closed.
        let cutting = self.cut.as_ref().map(|cut| cut.interval);
        for before in [cutting, self.next_cut].into_iter().flatten() {
            if before < interval {
                self.heartbeat(slot, before);
            }
        }
        self.slots[slot].begin_delta(interval);
        self.dirty.push(slot);
        true
    }

    /// Makes the record that every open flow has in the first interval of a minute.
    pub(super) fn heartbeat(&mut self, slot: Slot, interval: Interval) {
        if interval.starts_minute()
            && self.slots[slot].is_uncounted_at(interval)
            && !self.slots[slot].delta.has_begun()
        {
            self.slots[slot].begin_delta(interval);
            self.flush(slot);
        }
    }

    /// Makes a record of what a flow has counted.
    pub(super) fn flush(&mut self, slot: Slot) {
        if !self.slots[slot].delta.has_begun() {
            return;
        }
        let mut aside = self.take_aside(slot);
        let flow = &mut self.slots[slot];
        let observation = flow.observation;
        let mut common = self.shared.lock();
        if let Some(interface) = common.points.interface(flow.key.point).cloned() {
            let id = common.observations.id(observation);
            let record = flow.take_record(self.config.interval, interface, id, &mut aside);
            if common.observations.standing(observation).choice == Choice::Open {
                common.observations.wait(observation);
                self.undecided.push_back((observation, record));
            } else {
                self.ready.push(decided(&mut common, observation, record));
            }
        }
        drop(common);
        self.put_aside(slot, aside);
        if self.undecided.len() >= MAX_UNDECIDED {
            self.settle_early();
        }
    }

    /// The same, with the choice made from what is known by now.
    pub(super) fn flush_decided(&mut self, slot: Slot) {
        {
            let common = &mut *self.shared.lock();
            common.observations.choose(self.slots[slot].observation, &common.points);
        }
        self.flush(slot);
    }

    /// Makes the choice for the records that wait for it: of all, or until an interval.
    pub(super) fn settle(&mut self, until: Option<Interval>) {
        let common = &mut *self.shared.lock();
        for _ in 0..self.undecided.len() {
            let Some((observation, record)) = self.undecided.pop_front() else { break };
            if until.is_some_and(|until| record.interval > until) {
                self.undecided.push_back((observation, record));
            } else {
                self.ready.push(chosen(common, observation, record));
            }
        }
    }

    fn settle_early(&mut self) {
        self.stats.undecided_early += LEAVE_EARLY as u64;
        let common = &mut *self.shared.lock();
        let early = self.undecided.drain(..LEAVE_EARLY);
        self.ready.extend(early.map(|(slot, record)| chosen(common, slot, record)));
    }
}

/// Makes the choice for a record that waited for it.
fn chosen(common: &mut Common, observation: ObservationId, record: FlowRecord) -> FlowRecord {
    common.observations.choose(observation, &common.points);
    let record = decided(common, observation, record);
    common.observations.waited(observation, &mut common.points);
    record
}

/// A record with the choice.
fn decided(common: &mut Common, observation: ObservationId, mut record: FlowRecord) -> FlowRecord {
    let standing = common.observations.standing(observation);
    record.local_primary = standing.choice == Choice::Primary;
    record.reporter = standing.reporter;
    let point = common.observations.point(observation);
    // What leaves by the uplink under the node's own address is the node's, or somebody's whom it
    // masquerades, and that one's side is seen here too.
    let is_masqueraded = record.reporter == Reporter::Transit
        && common.points.kind(point) == Some(InterfaceKind::Uplink)
        && common.node_addresses.contains(&record.client.ip);
    let is_clients_side = record.reporter == Reporter::Client || is_masqueraded;
    if is_clients_side && !common.points.announce(point, record.client.ip) {
        common.addresses_refused += 1;
    }
    record
}

impl Flow {
    /// Time of the last packet before the close of a flow that closed: what it absorbs after that is
    /// not of its duration.
    fn closed_at_us(&self) -> u64 {
        if self.phase == Phase::Lingering { self.since_us } else { self.last_seen_us }
    }

    /// Takes what was counted as a record; its choice is not made yet.
    fn take_record(
        &mut self,
        length: IntervalLength,
        interface: Arc<Interface>,
        (connection_id, id_kind): (u64, IdKind),
        aside: &mut Aside,
    ) -> FlowRecord {
        let delta = std::mem::take(&mut self.delta);
        let start_us = self.identity.start_us;
        let client = self.identity.client;
        let interval = length.interval_at(delta.interval_s() * 1_000_000);
        let (sent, received) = (delta.counters(client), delta.counters(client.other()));
        let without_packets = sent.packets + received.packets == 0;
        let last_seen_us = interval.start_us() + u64::from(delta.last_us);
        let aged_until_us = match (without_packets, delta.closed) {
            (false, _) => last_seen_us,
            (true, None) => interval.end_us(),
            (true, Some(_)) => self.last_seen_us,
        };
        let slow_response = aside.slow_response_us.take().map(Measure::sample);
        let duration_us = delta.closed.map(|_| self.closed_at_us().saturating_sub(start_us));
        FlowRecord {
            interval,
            interface,
            reporter: Reporter::Transit,
            local_primary: false,
            connection_id,
            id_kind,
            handshake_seen: self.identity.handshake_seen,
            one_sided: self.one_sided(),
            direction_inferred: self.identity.direction_inferred,
            detail: Detail::Flow,
            client: self.key.endpoint(client),
            server: self.key.endpoint(client.other()),
            first_seen_us: interval.start_us() + u64::from(delta.first_us),
            last_seen_us,
            age_us: aged_until_us.saturating_sub(start_us),
            sent,
            received,
            opened: delta.opened.into(),
            joined: delta.joined.into(),
            open_at_start: delta.open_at_start.into(),
            closed: delta.closed(),
            syn_to_synack: delta.syn_to_synack_us.measure(),
            synack_to_ack: delta.synack_to_ack_us.measure(),
            first_response: slow_response.unwrap_or_else(|| delta.first_response_us.measure()),
            duration: duration_us.map(Measure::sample).unwrap_or_default(),
        }
    }
}
