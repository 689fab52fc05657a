//! What time does to flows: intervals are cut, connections time out, and what is closed is forgotten.

use std::time::Duration;

use flowtrail_schema::interval::Interval;

use super::flow::{Phase, Reason};
use super::slab::Slot;
use super::{CUT_DELAY_US, FlowTable};

/// No answer so long after the last SYN, and the attempt has failed.
pub const UNANSWERED_AFTER: Duration = Duration::from_secs(10);

/// How long after its last SYN a failed attempt is remembered. Linux tries seven times in 127 s
/// (tcp_syn_retries), the last two 64 s apart.
pub const REMEMBERED: Duration = Duration::from_secs(130);

/// How long a closed flow absorbs late packets: TIME-WAIT of Linux.
pub const LINGER: Duration = Duration::from_secs(60);

/// Records that one call of [`FlowTable::advance`] gives about, some 1.4 MB: what a cut of a million
/// flows brings leaves in pieces, so that packets do not wait for it, nor memory grow.
const PIECE: usize = 4_096;

/// Flows looked at for their heartbeat in one call, for the same reason.
const LOOKED_AT: u32 = 65_536;

/// An interval that is being cut. Packets may come in between.
pub(super) struct Cut {
    pub(super) interval: Interval,
    step: Step,
}

enum Step {
    /// Open flows from this place on may owe a heartbeat.
    Heartbeats(Slot),
    /// What the interval holds of these flows leaves, the last first.
    Records(Vec<Slot>),
}

impl FlowTable {
    /// Lets time come so far. When an interval has been over for long enough its cut begins; one that was
    /// under way is finished before.
    pub(super) fn reach(&mut self, now_us: u64) {
        while self.cut_due_us <= now_us {
            self.finish_cut();
            self.begin_due(now_us);
        }
    }

    /// Begins the cut of the next interval, if it is due: what timed out until its end closes, and what
    /// waited for the choice leaves.
    pub(super) fn begin_due(&mut self, now_us: u64) {
        let length = self.config.interval;
        let Some(interval) = self.next_cut else {
            return self.set_next_cut(length.interval_at(now_us));
        };
        if self.cut_due_us > now_us {
            return;
        }
        self.expire_before(interval.end_us());
        self.settle(Some(interval));
        self.cut = Some(Cut { interval, step: Step::Heartbeats(0) });
        self.set_next_cut(interval.next());
        if self.slots.is_empty() && self.undecided.is_empty() {
            // Nothing can happen in a hole.
            self.finish_cut();
            let resumed = length.interval_at(now_us.saturating_sub(CUT_DELAY_US));
            self.set_next_cut(interval.next().max(resumed));
        }
    }

    /// Goes on with the cut under way, as far as one call goes.
    pub(super) fn go_on(&mut self) {
        while self.ready.len() < PIECE
            && let Some(cut) = self.cut.take()
        {
            self.cut = self.step(cut);
        }
    }

    fn set_next_cut(&mut self, interval: Interval) {
        self.next_cut = Some(interval);
        self.cut_due_us = interval.end_us() + CUT_DELAY_US;
    }

    fn finish_cut(&mut self) {
        while let Some(cut) = self.cut.take() {
            self.cut = self.step(cut);
        }
    }

    /// One step of a cut, and what is left to do.
    fn step(&mut self, Cut { interval, step }: Cut) -> Option<Cut> {
        let step = match step {
            Step::Heartbeats(from)
                if interval.starts_minute() && from < self.slots.places().end =>
            {
                let until = self.slots.places().end.min(from + LOOKED_AT);
                // While it is being cut, the interval is told to those flows that go on.
                (from..until).for_each(|slot| self.heartbeat(slot, interval));
                Step::Heartbeats(until)
            }
            Step::Heartbeats(_) => {
                let mut slots = std::mem::take(&mut self.dirty);
                slots.reverse();
                Step::Records(slots)
            }
            Step::Records(mut slots) => {
                while let Some(slot) = slots.pop() {
                    if self.slots[slot].delta.is_until(interval) {
                        self.flush_decided(slot);
                    } else if self.slots[slot].delta.has_begun() {
                        self.dirty.push(slot);
                    }
                    if self.ready.len() >= PIECE {
                        break;
                    }
                }
                if slots.is_empty() {
                    // What packets that came in between made of the interval.
                    self.settle(Some(interval));
                    return None;
                }
                Step::Records(slots)
            }
        };
        Some(Cut { interval, step })
    }

    /// Cuts every interval that has begun, and takes what was counted for later ones too; in pieces, false
    /// if there is more.
    pub(super) fn finish_intervals(&mut self, now_us: u64) -> bool {
        self.reach(now_us);
        loop {
            self.go_on();
            if self.ready.len() >= PIECE {
                return false;
            }
            let Some(next) = self.next_cut.filter(|next| next.start_us() <= now_us) else { break };
            self.expire_before(next.end_us().min(now_us.saturating_add(1)));
            self.cut = Some(Cut { interval: next, step: Step::Heartbeats(0) });
            self.set_next_cut(next.next());
        }
        // Late for what was cut, or early for what was not.
        for slot in std::mem::take(&mut self.dirty) {
            self.flush_decided(slot);
        }
        self.settle(None);
        true
    }

    fn expire_before(&mut self, before_us: u64) {
        for phase in [Phase::HalfOpen, Phase::Remembered, Phase::Lingering] {
            while let Some(slot) = self.slots.first(phase)
                && self.deadline_us(slot) < before_us
            {
                self.expire(slot);
            }
        }
        // Open flows are in order only as to the intervals of their last packets.
        let mut cursor = self.slots.first(Phase::Open);
        while let Some(slot) = cursor {
            let last_seen_us = self.slots[slot].last_seen_us;
            let active = self.config.interval.interval_at(last_seen_us);
            if active.start_us().saturating_add(self.idle_timeout_us()) >= before_us {
                break;
            }
            cursor = self.slots.next(slot);
            if self.deadline_us(slot) < before_us {
                self.expire(slot);
            }
        }
    }

    /// When a flow's phase ends if no packet comes.
    pub(super) fn deadline_us(&self, slot: Slot) -> u64 {
        let flow = &self.slots[slot];
        let (since_us, wait_us) = match flow.phase {
            Phase::HalfOpen => (flow.since_us, UNANSWERED_AFTER.as_micros() as u64),
            Phase::Remembered => (flow.since_us, REMEMBERED.as_micros() as u64),
            Phase::Lingering => (flow.since_us, LINGER.as_micros() as u64),
            Phase::Open => (flow.last_seen_us, self.idle_timeout_us()),
            Phase::Free => (u64::MAX, 0),
        };
        since_us.saturating_add(wait_us)
    }

    fn idle_timeout_us(&self) -> u64 {
        self.config.idle_timeout.as_micros().try_into().unwrap_or(u64::MAX)
    }

    /// Ends a flow's phase, because its time is up.
    pub(super) fn expire(&mut self, slot: Slot) {
        let deadline_us = self.deadline_us(slot);
        match self.slots[slot].phase {
            Phase::HalfOpen => self.close(slot, Reason::Unanswered, deadline_us),
            Phase::Open => self.close(slot, Reason::Idle, deadline_us),
            Phase::Remembered | Phase::Lingering | Phase::Free => self.retire(slot),
        }
    }

    /// Makes room for a flow: of a closed one if there is any, else of a half-open one, else of one whose
    /// client has not confirmed the answer, else of any open one; of each, the one idle for longest.
    pub(super) fn evict(&mut self, now_us: u64) {
        let closed = self.slots.first(Phase::Remembered).or(self.slots.first(Phase::Lingering));
        if let Some(slot) = closed {
            self.stats.forgotten += 1;
            self.retire(slot);
            return;
        }
        // An attempt is less than a connection: whoever floods the table with SYNs displaces these.
        let attempt = self.slots.first(Phase::HalfOpen);
        let attempt = attempt.or_else(|| self.unconfirmed.take(&self.slots));
        if let Some(slot) = attempt.or_else(|| self.slots.first(Phase::Open)) {
            self.stats.evicted += 1;
            self.close(slot, Reason::Evicted, now_us);
        }
    }
}
