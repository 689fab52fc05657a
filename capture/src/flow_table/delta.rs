//! `Delta`: what a flow counts between two records, all within one interval.

use flowtrail_schema::interval::Interval;
use flowtrail_schema::{Closed, Counters};

use super::flow::Reason;
use super::key::{End, PerEnd};
use crate::packet::Segment;

/// What a flow did since its last record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delta {
    pub(super) begun: bool,
    /// Start of the interval in seconds since the epoch.
    pub(super) interval_s: u32,
    /// First and last packet, microseconds since the interval's start.
    pub(super) first_us: u32,
    pub(super) last_us: u32,
    counts: PerEnd<Counts>,
    pub(super) opened: bool,
    pub(super) joined: bool,
    /// The connection was open when the interval began.
    pub(super) open_at_start: bool,
    pub(super) closed: Option<Reason>,
    pub(super) syn_to_synack_us: Option<u32>,
    pub(super) synack_to_ack_us: Option<u32>,
    pub(super) first_response_us: Option<u64>,
    pub(super) duration_us: Option<u64>,
}

/// The counters of one end. 32 bits do for bytes: a flow that sends more makes another record (see
/// [`Delta::fits`]), and the other counters are smaller than bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    bytes: u32,
    payload_bytes: u32,
    packets: u32,
    retransmitted_packets: u32,
    zero_window_packets: u32,
}

impl Delta {
    /// Starts to count for an interval.
    pub(super) fn begin(interval: Interval, open_at_start: bool) -> Self {
        let interval_s = interval.start_s() as u32;
        Self { begun: true, interval_s, open_at_start, ..Self::default() }
    }

    /// Whether this is of an interval.
    pub(super) fn is_of(&self, interval: Interval) -> bool {
        self.begun && u64::from(self.interval_s) == interval.start_s()
    }

    /// Whether this is of an interval or of one before it.
    pub(super) fn is_until(&self, interval: Interval) -> bool {
        self.begun && u64::from(self.interval_s) <= interval.start_s()
    }

    /// Whether the counters can take a packet.
    pub(super) fn fits(&self, sender: End, segment: &Segment) -> bool {
        self.counts[sender].bytes.checked_add(segment.ip_bytes).is_some()
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
        counts.retransmitted_packets += u32::from(retransmitted);
        // The window of a RST means nothing.
        counts.zero_window_packets += u32::from(segment.window == 0 && !segment.flags.rst);

        let offset_us = (time_us - u64::from(self.interval_s) * 1_000_000) as u32;
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
