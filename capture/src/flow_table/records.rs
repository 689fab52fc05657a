//! Records: what a flow counted in an interval, with the choice among a connection's observations.

use flowtrail_schema::interval::Interval;
use flowtrail_schema::{FlowRecord, Reporter};

use super::FlowTable;
use super::flow::{Choice, Phase};
use super::primary::Surroundings;
use super::slots::Slot;

/// Records that wait for their interval's cut at most, some 25 MB: those of new flows that went on into
/// the next interval, or closed, before it. Past that they leave early, and the choice among a
/// connection's observations is made from those seen so far.
const MAX_UNDECIDED: usize = 65_536;

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
    pub(super) fn heartbeat(&mut self, slot: Slot, interval: Interval) {
        if interval.starts_minute()
            && self.slots[slot].is_uncounted_at(interval)
            && !self.slots[slot].delta.begun
        {
            self.slots[slot].begin_delta(interval);
            self.flush(slot);
        }
    }

    /// Makes a record of what a flow has counted.
    pub(super) fn flush(&mut self, slot: Slot) {
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
    pub(super) fn choose(&mut self, slot: Slot) {
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

    /// Makes the choice for the records that wait for it: of all, or until an interval.
    pub(super) fn settle(&mut self, until: Option<Interval>) {
        for (slot, record) in std::mem::take(&mut self.undecided) {
            if until.is_some_and(|until| record.interval > until) {
                self.undecided.push((slot, record));
                continue;
            }
            self.choose(slot);
            self.emit(slot, record);
            self.slots[slot].waiting -= 1;
            if self.slots[slot].waiting == 0 && self.slots[slot].phase == Phase::Dead {
                self.free(slot);
            }
        }
    }
}
