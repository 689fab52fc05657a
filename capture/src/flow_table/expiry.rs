//! What time does to flows: intervals are cut, connections time out, and what is closed is forgotten.

use std::time::Duration;

use flowtrail_schema::interval::Interval;

use super::flow::{Phase, Reason};
use super::slots::Slot;
use super::{CUT_DELAY_US, FlowTable};

/// No answer so long after the last SYN, and the attempt has failed.
pub const UNANSWERED_AFTER: Duration = Duration::from_secs(10);

/// How long after its last SYN a failed attempt is remembered. Linux tries seven times in 127 s
/// (tcp_syn_retries), the last two 64 s apart.
pub const REMEMBERED: Duration = Duration::from_secs(130);

/// How long a closed flow absorbs late packets: TIME-WAIT of Linux.
pub const LINGER: Duration = Duration::from_secs(60);

impl FlowTable {
    /// Cuts every interval that has been over for long enough.
    pub(super) fn pass_time(&mut self, now_us: u64) {
        self.pass_time_until(now_us, |_| false);
    }

    /// The same, but no further than an interval after which it is `enough`. False if that was so.
    pub(super) fn pass_time_until(&mut self, now_us: u64, enough: impl Fn(&Self) -> bool) -> bool {
        let length = self.config.interval;
        let mut next = *self.next_cut.get_or_insert_with(|| length.interval_at(now_us));
        while next.end_us() + CUT_DELAY_US <= now_us {
            self.cut(next, next.end_us());
            next = next.next();
            if self.slots.is_empty() {
                next = next.max(length.interval_at(now_us.saturating_sub(CUT_DELAY_US)));
            }
            self.next_cut = Some(next);
            if enough(self) {
                return false;
            }
        }
        true
    }

    /// Cuts every interval that has begun, and takes what was counted for later ones too.
    pub(super) fn finish_intervals(&mut self, now_us: u64) {
        self.pass_time(now_us);
        while let Some(next) = self.next_cut.filter(|next| next.start_us() <= now_us) {
            self.cut(next, next.end_us().min(now_us.saturating_add(1)));
            self.next_cut = Some(next.next());
        }
        self.settle(None);
        for slot in std::mem::take(&mut self.dirty) {
            if self.slots[slot].delta.begun {
                self.choose(slot);
                self.flush(slot);
            }
        }
    }

    /// Cuts one interval: what timed out before `before_us` closes, then all that the interval holds
    /// leaves.
    fn cut(&mut self, interval: Interval, before_us: u64) {
        self.expire_before(before_us);
        if interval.starts_minute() {
            for slot in self.slots.places() {
                self.heartbeat(slot, interval);
            }
        }
        self.settle(Some(interval));
        for slot in std::mem::take(&mut self.dirty) {
            if self.slots[slot].delta.is_until(interval) {
                self.choose(slot);
                self.flush(slot);
            } else if self.slots[slot].delta.begun {
                self.dirty.push(slot);
            }
        }
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
            Phase::Dead => (u64::MAX, 0),
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
            Phase::Remembered | Phase::Lingering | Phase::Dead => self.retire(slot),
        }
    }

    /// Makes room for a flow: of closed ones if there are any, else of the one idle for longest.
    pub(super) fn evict(&mut self, now_us: u64) {
        let closed = self.slots.first(Phase::Remembered).or(self.slots.first(Phase::Lingering));
        if let Some(slot) = closed {
            self.stats.forgotten += 1;
            self.retire(slot);
            return;
        }
        let oldest = [Phase::HalfOpen, Phase::Open]
            .into_iter()
            .filter_map(|phase| self.slots.first(phase))
            .min_by_key(|slot| self.slots[*slot].last_seen_us);
        if let Some(slot) = oldest {
            self.stats.evicted += 1;
            self.close(slot, Reason::Evicted, now_us);
        }
    }
}
