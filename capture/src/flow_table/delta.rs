//! `Delta`: what a flow counts between two records, all within one interval.

use flowtrail_schema::interval::Interval;
use flowtrail_schema::{Closed, Counters, Measure};

use super::flow::Reason;
use super::key::{End, PerEnd};
use crate::packet::Segment;

/// What a flow did since its last record. Small, for there is one in every flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delta {
    /// Start of the interval in seconds since the epoch, plus one; 0 while nothing is counted.
    interval: u32,
    /// First and last packet, microseconds since the interval's start.
    pub(super) first_us: u32,
    pub(super) last_us: u32,
    counts: PerEnd<Counts>,
    pub(super) syn_to_synack_us: Taken,
    pub(super) synack_to_ack_us: Taken,
    pub(super) first_response_us: Taken,
    pub(super) opened: bool,
    pub(super) joined: bool,
    /// The connection was open when the interval began.
    pub(super) open_at_start: bool,
    pub(super) closed: Option<Reason>,
}

/// The counters of one end. A flow that needs more bits makes another record (see [`Delta::fits`]).
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    bytes: u32,
    payload_bytes: u32,
    packets: u32,
    retransmitted_packets: u16,
    zero_window_packets: u16,
}

/// A measure that may have been taken, in four bytes: up to 71 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken(u32);

impl Taken {
    const NOTHING: u32 = u32::MAX;

    /// A measure in microseconds, unless it is too long.
    pub(super) fn new(duration_us: u64) -> Option<Self> {
        u32::try_from(duration_us).ok().filter(|short| *short != Self::NOTHING).map(Self)
    }

    pub(super) fn measure(self) -> Measure {
        if self.0 == Self::NOTHING { Measure::default() } else { Measure::sample(self.0.into()) }
    }
}

impl Default for Taken {
    fn default() -> Self {
        Self(Self::NOTHING)
    }
}

impl Delta {
    /// Starts to count for an interval.
    pub(super) fn begin(interval: Interval, open_at_start: bool) -> Self {
        Self { interval: interval.start_s() as u32 + 1, open_at_start, ..Self::default() }
    }

    /// Whether anything is counted.
    pub(super) fn has_begun(&self) -> bool {
        self.interval > 0
    }

    /// Start of the interval that is counted for, seconds since the epoch.
    pub(super) fn interval_s(&self) -> u64 {
        u64::from(self.interval.saturating_sub(1))
    }

    /// Whether this is of an interval.
    pub(super) fn is_of(&self, interval: Interval) -> bool {
        self.has_begun() && self.interval_s() == interval.start_s()
    }

    /// Whether this is of an interval or of one before it.
    pub(super) fn is_until(&self, interval: Interval) -> bool {
        self.has_begun() && self.interval_s() <= interval.start_s()
    }

    /// Whether the counters can take a packet.
    pub(super) fn fits(&self, sender: End, segment: &Segment) -> bool {
        let counts = &self.counts[sender];
        // The counters of 32 bits are at most as large as that of bytes.
        counts.bytes.checked_add(segment.ip_bytes).is_some()
            && counts.retransmitted_packets < u16::MAX
            && counts.zero_window_packets < u16::MAX
    }

    /// Counts a packet of the interval that fits.
    pub(super) fn count(
        &mut self,
        sender: End,
        time_us: u64,
        segment: &Segment,
        retransmitted: bool,
    ) {
        let first = self.packets(End::Low) + self.packets(End::High) == 0;
        let counts = &mut self.counts[sender];
        counts.bytes += segment.ip_bytes;
        counts.payload_bytes += segment.payload_bytes;
        counts.packets += 1;
        counts.retransmitted_packets += u16::from(retransmitted);
        // The window of a RST means nothing.
        counts.zero_window_packets += u16::from(segment.window == 0 && !segment.flags.rst);

        let offset_us = (time_us - self.interval_s() * 1_000_000) as u32;
        self.first_us = if first { offset_us } else { self.first_us.min(offset_us) };
        self.last_us = self.last_us.max(offset_us);
    }

    /// What one end sent.
    pub(super) fn counters(&self, end: End) -> Counters {
        let counts = self.counts[end];
        Counters {
            bytes: counts.bytes.into(),
            payload_bytes: counts.payload_bytes.into(),
            packets: counts.packets.into(),
            retransmitted_packets: counts.retransmitted_packets.into(),
            zero_window_packets: counts.zero_window_packets.into(),
        }
    }

    /// How the connection ended, if it did.
    pub(super) fn closed(&self) -> Closed {
        let mut closed = Closed::default();
        let Some(reason) = self.closed else { return closed };
        *match reason {
            Reason::Fin => &mut closed.fin,
            Reason::ResetByClient => &mut closed.reset_by_client,
            Reason::ResetByServer => &mut closed.reset_by_server,
            Reason::Refused => &mut closed.refused,
            Reason::Unanswered => &mut closed.unanswered,
            Reason::Idle => &mut closed.idle,
            Reason::Superseded => &mut closed.superseded,
            Reason::Evicted => &mut closed.evicted,
        } = 1;
        closed
    }

    fn packets(&self, end: End) -> u64 {
        self.counts[end].packets.into()
    }
}
