//! `Flow`: the live state of one connection at one interface, and what it did since its last record.

use std::sync::Arc;

use flowtrail_schema::interval::{Interval, IntervalLength};
use flowtrail_schema::{Detail, FlowRecord, IdKind, Interface, Measure, Reporter, connection_id};

use super::Origin;
use super::delta::Delta;
use super::handshake::{Challenger, Mark};
use super::key::{End, FlowKey, PerEnd};
use super::sequence::Sequence;
use super::slots::{Links, NONE, Slot};
use crate::packet::Segment;

/// Where a flow is in its life. The first four are lists in [`Slots`](super::slots::Slots).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A SYN was seen, and no answer.
    HalfOpen,
    /// Answered, or joined midstream.
    Open,
    /// Closed: it absorbs what comes late.
    Lingering,
    /// Closed as unanswered: it absorbs further SYNs of the same attempt.
    Remembered,
    /// Out of reach of packets; only its last records wait to leave.
    Dead,
}

impl Phase {
    /// Phases that have a list: all but `Dead`.
    pub(super) const LISTED: usize = Self::Dead as usize;
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The agent's choice among its observations of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// No record has left yet.
    Open,
    /// This observation is the primary one.
    Primary,
    /// Another is.
    Secondary,
}

/// What a connection is, as opposed to what it does: all that a tombstone keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    /// Time of the SYN, or of the first packet seen, microseconds since the epoch.
    pub(super) start_us: u64,
    /// Initial sequence numbers, as far as they are known.
    pub(super) isn: PerEnd<Option<u32>>,
    /// The id that the connection is known by, and what it is made of.
    pub(super) id: u64,
    pub(super) id_kind: IdKind,
    pub(super) client: End,
    pub(super) handshake_seen: bool,
    pub(super) direction_inferred: bool,
    /// The end that the interface leads to, where packets tell.
    pub(super) inside: Option<End>,
    pub(super) choice: Choice,
    /// What the interface is to the connection; fixed with the choice.
    pub(super) reporter: Reporter,
}

impl Identity {
    /// A connection whose SYN or SYN-ACK was seen.
    pub(super) fn new(client: End, start_us: u64) -> Self {
        Self {
            start_us,
            isn: PerEnd::default(),
            id: 0,
            id_kind: IdKind::TupleHash,
            client,
            handshake_seen: true,
            direction_inferred: false,
            inside: None,
            choice: Choice::Open,
            reporter: Reporter::Transit,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) key: FlowKey,
    pub(super) links: Links,
    /// Another observation of the same connection.
    pub(super) sibling: Slot,
    /// Records that wait for the choice.
    pub(super) waiting: u32,
    pub(super) identity: Identity,
    pub(super) phase: Phase,
    /// Time of the latest packet, microseconds since the epoch.
    pub(super) last_seen_us: u64,
    /// Of a half-open or remembered flow the time of its last SYN, of an open one of the answer, of a
    /// closed one of the close.
    pub(super) since_us: u64,
    /// It was open once.
    pub(super) established: bool,
    pub(super) mark: Mark,
    pub(super) challenger: Option<Challenger>,
    pub(super) seen: PerEnd<bool>,
    pub(super) sequence: PerEnd<Sequence>,
    /// The sequence number after the FIN, once there was one.
    pub(super) fin: PerEnd<Option<u32>>,
    pub(super) fin_acknowledged: PerEnd<bool>,
    /// Start, in seconds, of the latest interval that `open_at_start` was counted in.
    counted_s: u32,
    pub(super) delta: Delta,
}

impl Flow {
    pub(super) fn new(key: FlowKey, identity: Identity, phase: Phase, time_us: u64) -> Self {
        Self {
            key,
            links: Links::default(),
            sibling: NONE,
            waiting: 0,
            identity,
            phase,
            last_seen_us: time_us,
            since_us: time_us,
            established: phase == Phase::Open,
            mark: Mark::Nothing,
            challenger: None,
            seen: PerEnd::default(),
            sequence: PerEnd::default(),
            fin: PerEnd::default(),
            fin_acknowledged: PerEnd::default(),
            counted_s: 0,
            delta: Delta::default(),
        }
    }

    pub(super) fn server(&self) -> End {
        self.identity.client.other()
    }

    /// Whether only one direction of a connection passes here. Half-open ones are not such.
    pub(super) fn one_sided(&self) -> bool {
        self.established && !(self.seen[End::Low] && self.seen[End::High])
    }

    /// The id that follows from what is known, if it is made of what `kind` says.
    pub(super) fn id_of(&self, kind: IdKind) -> u64 {
        let isn = |end| self.identity.isn[end].unwrap_or_default();
        match kind {
            IdKind::Complete => {
                connection_id::from_isns(isn(self.identity.client), isn(self.server()))
            }
            IdKind::Partial => connection_id::from_isns(isn(self.identity.client), 0),
            IdKind::TupleHash => {
                connection_id::from_tuple(self.key.endpoint(End::Low), self.key.endpoint(End::High))
            }
        }
    }

    /// Whether the flow was open when an interval began, and no record has said so.
    pub(super) fn is_uncounted_at(&self, interval: Interval) -> bool {
        self.phase == Phase::Open
            && self.since_us < interval.start_us()
            && u64::from(self.counted_s) < interval.start_s()
    }

    /// Starts to count for an interval. What was counted for another must have left.
    pub(super) fn begin_delta(&mut self, interval: Interval) {
        let open_at_start = self.is_uncounted_at(interval);
        if open_at_start {
            self.counted_s = interval.start_s() as u32;
        }
        self.delta = Delta::begin(interval, open_at_start);
    }

    /// Counts a packet. Its interval must have begun, and it must fit.
    pub(super) fn count(&mut self, sender: End, origin: Origin, time_us: u64, segment: &Segment) {
        let retransmitted = self.follow_sequence(sender, segment, time_us);
        self.delta.count(sender, time_us, segment, retransmitted);
        self.seen[sender] = true;
        self.last_seen_us = self.last_seen_us.max(time_us);
        if self.identity.inside.is_none() {
            self.identity.inside = match origin {
                Origin::Inside => Some(sender),
                Origin::Outside => Some(sender.other()),
                Origin::Unknown => None,
            };
        }
    }

    /// Keeps track of what an end has sent, and tells whether it had sent this before.
    fn follow_sequence(&mut self, sender: End, segment: &Segment, time_us: u64) -> bool {
        let flags = segment.flags;
        // The sequence numbers of a SYN that is not this connection's, or of a RST, follow no order.
        let other_syn = flags.syn && self.identity.isn[sender] != Some(segment.sequence);
        if other_syn || flags.rst {
            return false;
        }
        let length =
            segment.payload_bytes.saturating_add(u32::from(flags.syn) + u32::from(flags.fin));
        self.sequence[sender].follow(segment.sequence, length, time_us)
    }

    /// Notes in the current record how the connection ended.
    pub(super) fn note_close(&mut self, reason: Reason) {
        self.delta.closed = Some(reason);
        self.delta.duration_us = Some(self.last_seen_us.saturating_sub(self.identity.start_us));
    }

    /// Takes what was counted as a record; its choice is not made yet.
    pub(super) fn take_record(
        &mut self,
        length: IntervalLength,
        interface: Arc<Interface>,
    ) -> FlowRecord {
        let delta = std::mem::take(&mut self.delta);
        let Identity { start_us, client, .. } = self.identity;
        let interval = length.interval_at(u64::from(delta.interval_s) * 1_000_000);
        let (sent, received) = (delta.counters(client), delta.counters(client.other()));
        let without_packets = sent.packets + received.packets == 0;
        let last_seen_us = interval.start_us() + u64::from(delta.last_us);
        let aged_until_us = match (without_packets, delta.closed) {
            (false, _) => last_seen_us,
            (true, None) => interval.end_us(),
            (true, Some(_)) => self.last_seen_us,
        };
        FlowRecord {
            interval,
            interface,
            reporter: Reporter::Transit,
            local_primary: false,
            connection_id: self.identity.id,
            id_kind: self.identity.id_kind,
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
            syn_to_synack: measure(delta.syn_to_synack_us.map(u64::from)),
            synack_to_ack: measure(delta.synack_to_ack_us.map(u64::from)),
            first_response: measure(delta.first_response_us),
            duration: measure(delta.duration_us),
        }
    }
}

fn measure(duration_us: Option<u64>) -> Measure {
    duration_us.map(Measure::sample).unwrap_or_default()
}

/// Whether one sequence number comes before another, modulo 2^32 (RFC 9293, 3.4).
pub(super) fn precedes(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}
