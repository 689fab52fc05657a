//! `Flow`: the live state of one connection at one interface, and what it did since its last record.
//!
//! There may be a million of them: what few flows have is kept apart, in [`Aside`].

use flowtrail_schema::interval::Interval;

use super::Origin;
use super::delta::Delta;
use super::handshake::{Challenger, Mark};
use super::key::{End, Ends, FlowKey, PerEnd};
use super::observations::ObservationId;
use super::sequence::Sequence;
use super::slab::NONE;
use super::slots::Links;
use crate::packet::Segment;

/// Where a flow is in its life. All but `Free` are lists in [`Slots`](super::slots::Slots).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// A SYN was seen, and no answer.
    HalfOpen,
    /// Answered, or joined midstream.
    Open,
    /// Closed: it absorbs what comes late.
    Lingering,
    /// Closed as unanswered: it absorbs further SYNs of the same attempt.
    Remembered,
    /// No flow: a place for one.
    Free,
}

impl Phase {
    /// Phases that have a list: all but `Free`.
    pub(super) const LISTED: usize = Self::Free as usize;
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reason {
    Fin,
    ResetByClient,
    ResetByServer,
    Refused,
    Unanswered,
    Idle,
    Superseded,
    Evicted,
}

/// What a connection is, as opposed to what it does: what is kept of it when its flow is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Time of the SYN, or of the first packet seen, microseconds since the epoch.
    pub(super) start_us: u64,
    /// Initial sequence numbers, of the ends whose number is known.
    isns: PerEnd<u32>,
    known: Ends,
    pub(super) client: End,
    pub(super) handshake_seen: bool,
    pub(super) direction_inferred: bool,
    /// The end that the interface leads to, where packets tell.
    pub(super) inside: Option<End>,
}

impl Identity {
    /// A connection whose SYN or SYN-ACK was seen.
    pub(super) fn new(client: End, start_us: u64) -> Self {
        Self {
            start_us,
            isns: PerEnd::default(),
            known: Ends::default(),
            client,
            handshake_seen: true,
            direction_inferred: false,
            inside: None,
        }
    }

    pub(super) fn server(&self) -> End {
        self.client.other()
    }

    /// The initial sequence number of an end, if it is known.
    pub(super) fn isn(&self, end: End) -> Option<u32> {
        self.known.contains(end).then_some(self.isns[end])
    }

    pub(super) fn set_isn(&mut self, end: End, isn: u32) {
        self.isns[end] = isn;
        self.known.insert(end);
    }

    /// Learns from a packet's origin which end the interface leads to.
    pub(super) fn learn_inside(&mut self, sender: End, origin: Origin) {
        if self.inside.is_none() {
            self.inside = match origin {
                Origin::Inside => Some(sender),
                Origin::Outside => Some(sender.other()),
                Origin::Unknown => None,
            };
        }
    }
}

/// What few flows have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Aside {
    /// The SYN of a new connection on the tuple of an open one.
    pub(super) challenger: Option<Challenger>,
    /// A first response that took more than 71 minutes, until the next record.
    pub(super) slow_response_us: Option<u64>,
}

impl Aside {
    pub(super) fn is_empty(&self) -> bool {
        self.challenger.is_none() && self.slow_response_us.is_none()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) key: FlowKey,
    pub(super) links: Links,
    /// What all workers know of it.
    pub(super) observation: ObservationId,
    /// Start, in seconds, of the latest interval that needs no `open_at_start` any more: it was counted,
    /// or the connection opened in it.
    counted_s: u32,
    pub(super) identity: Identity,
    /// Time of the latest packet, microseconds since the epoch.
    pub(super) last_seen_us: u64,
    /// Of a half-open or remembered flow the time of its last SYN, of a closed one that of its last
    /// packet before it closed; of an open one, what its [`Mark`] waits since.
    pub(super) since_us: u64,
    pub(super) sequence: PerEnd<Sequence>,
    pub(super) delta: Delta,
    pub(super) phase: Phase,
    pub(super) mark: Mark,
    /// It was open once.
    pub(super) established: bool,
    /// There is an [`Aside`].
    pub(super) has_aside: bool,
    /// The node has its address, but not its socket.
    pub(super) is_others_socket: bool,
    /// Ends that sent something.
    pub(super) seen: Ends,
    /// Ends whose `sequence` has begun.
    sequenced: Ends,
    /// Ends that sent a FIN, and those whose FIN is acknowledged.
    pub(super) fin: Ends,
    pub(super) fin_acknowledged: Ends,
}

impl Flow {
    pub(super) fn new(key: FlowKey, identity: Identity, phase: Phase, time_us: u64) -> Self {
        Self {
            key,
            links: Links::default(),
            observation: NONE,
            counted_s: 0,
            identity,
            last_seen_us: time_us,
            since_us: time_us,
            sequence: PerEnd::default(),
            delta: Delta::default(),
            phase,
            mark: Mark::Nothing,
            established: phase == Phase::Open,
            has_aside: false,
            is_others_socket: false,
            seen: Ends::default(),
            sequenced: Ends::default(),
            fin: Ends::default(),
            fin_acknowledged: Ends::default(),
        }
    }

    /// Whether only one direction of a connection passes here. Half-open ones are not such.
    pub(super) fn one_sided(&self) -> bool {
        self.established && !self.seen.is_both()
    }

    /// Notes that `open_at_start` is not to be counted for an interval, nor for one before it.
    pub(super) fn set_counted(&mut self, interval: Interval) {
        self.counted_s = self.counted_s.max(interval.start_s() as u32);
    }

    /// Start of the latest interval, in seconds, that is not to be counted.
    pub(super) fn counted_s(&self) -> u32 {
        self.counted_s
    }

    pub(super) fn set_counted_s(&mut self, counted_s: u32) {
        self.counted_s = counted_s;
    }

    /// Whether the flow was open when an interval began, and no record has said so.
    pub(super) fn is_uncounted_at(&self, interval: Interval) -> bool {
        self.phase == Phase::Open && u64::from(self.counted_s) < interval.start_s()
    }

    /// Starts to count for an interval. What was counted for another must have left.
    pub(super) fn begin_delta(&mut self, interval: Interval) {
        let open_at_start = self.is_uncounted_at(interval);
        if open_at_start {
            self.set_counted(interval);
        }
        self.delta = Delta::begin(interval, open_at_start);
    }

    /// Counts a packet. Its interval must have begun, and it must fit.
    pub(super) fn count(&mut self, sender: End, time_us: u64, segment: &Segment) {
        let retransmitted = self.follow_sequence(sender, segment, time_us);
        self.delta.count(sender, time_us, segment, retransmitted);
        self.seen.insert(sender);
        self.last_seen_us = self.last_seen_us.max(time_us);
    }

    /// Keeps track of what an end has sent, and tells whether it had sent this before.
    fn follow_sequence(&mut self, sender: End, segment: &Segment, time_us: u64) -> bool {
        let flags = segment.flags;
        // The sequence numbers of a SYN that is not this connection's, or of a RST, follow no order.
        let other_syn = flags.syn && self.identity.isn(sender) != Some(segment.sequence);
        if other_syn || flags.rst {
            return false;
        }
        if !self.sequenced.contains(sender) {
            self.begin_sequence(sender, Sequence::starting_at(segment.sequence));
        }
        let length =
            segment.payload_bytes.saturating_add(u32::from(flags.syn) + u32::from(flags.fin));
        self.sequence[sender].follow(segment.sequence, length, time_us)
    }

    pub(super) fn begin_sequence(&mut self, end: End, sequence: Sequence) {
        self.sequenced.insert(end);
        self.sequence[end] = sequence;
    }

    /// The number after the highest that an end has sent.
    pub(super) fn next_sequence(&self, end: End) -> Option<u32> {
        self.sequenced.contains(end).then(|| self.sequence[end].next())
    }
}

/// Whether one sequence number comes before another, modulo 2^32 (RFC 9293, 3.4).
pub(super) fn precedes(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}
