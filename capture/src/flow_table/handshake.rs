//! What a packet means for the connection that has its tuple: how it opens, moves on and closes
//! (RFC 9293, 3.5 and 3.6, seen from beside the path).

use super::delta::Taken;
use super::flow::{Aside, Flow, Phase, Reason, precedes};
use super::key::End;
use crate::packet::Segment;

/// Whose packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The connection's that has the tuple.
    Same,
    /// A new connection's: the one that had the tuple has to go.
    Another,
    /// It answers the SYN of a new connection, which now takes the tuple.
    Answers(Challenger),
}

/// What a packet did to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// The client tries again.
    SynAgain,
    /// Both initial sequence numbers became known, and no answer yet (simultaneous open).
    Identified,
    /// The connection is open.
    Answered,
    Closed(Reason),
}

/// A SYN of a new connection on the tuple of an open one. Only if it is answered is the open one
/// over: anyone can send a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Challenger {
    pub(super) client: End,
    pub(super) isn: u32,
    pub(super) time_us: u64,
}

/// What the next measure waits for. The time it counts from is the flow's `since_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mark {
    /// Nothing more to measure.
    Nothing,
    /// The client's ACK of the SYN-ACK.
    SynAck,
    /// The same, and the server's first payload: the SYN had the client's (RFC 7413), and it counts from
    /// there.
    FastOpen,
    /// The client's first payload.
    Handshake,
    /// The server's first payload.
    Request,
}

impl Flow {
    /// Whether a server has answered, and its client not said that it got that: so it is with forged
    /// sources.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.phase == Phase::Open && matches!(self.mark, Mark::SynAck | Mark::FastOpen)
    }

    /// Whose packet it is, before anything is counted.
    pub(super) fn verdict(
        &self,
        sender: End,
        segment: &Segment,
        challenger: Option<Challenger>,
    ) -> Verdict {
        let flags = segment.flags;
        let known = |end: End, sequence| self.identity.isn(end).map(|isn| isn == sequence);
        let starts = flags.syn && !flags.ack && !flags.rst;
        let answers = flags.syn && flags.ack && !flags.rst;
        let acknowledged = segment.acknowledgment.wrapping_sub(1);
        match self.phase {
            // A SYN from the other end, too, is a simultaneous open.
            Phase::HalfOpen if starts && known(sender, segment.sequence) == Some(false) => {
                Verdict::Another
            }
            Phase::Remembered | Phase::Lingering
                if starts && known(sender, segment.sequence) != Some(true) =>
            {
                Verdict::Another
            }
            Phase::Lingering if answers && known(sender.other(), acknowledged) != Some(true) => {
                Verdict::Another
            }
            Phase::Open => match challenger {
                Some(challenger) if challenger.is_answered_by(sender, segment) => {
                    Verdict::Answers(challenger)
                }
                _ => Verdict::Same,
            },
            _ => Verdict::Same,
        }
    }

    /// Moves the connection on by one of its packets. Phase and id are changed by the table, after
    /// what is returned.
    pub(super) fn apply(
        &mut self,
        sender: End,
        segment: &Segment,
        time_us: u64,
        aside: &mut Aside,
    ) -> Effect {
        match self.phase {
            Phase::HalfOpen | Phase::Remembered => {
                self.apply_half_open(sender, segment, time_us, aside)
            }
            Phase::Open => self.apply_open(sender, segment, time_us, aside),
            Phase::Lingering | Phase::Free => Effect::Nothing,
        }
    }

    fn apply_half_open(
        &mut self,
        sender: End,
        segment: &Segment,
        time_us: u64,
        aside: &mut Aside,
    ) -> Effect {
        let flags = segment.flags;
        let receiver = sender.other();
        let client = self.identity.client;
        let acknowledges_syn = flags.ack && self.has_sent(receiver, segment.acknowledgment);
        if flags.rst {
            return match sender == client {
                _ if self.phase == Phase::Remembered => Effect::Nothing,
                true => Effect::Closed(Reason::ResetByClient),
                // RFC 9293, 3.10.7.3: a RST counts only if it acknowledges the SYN.
                false if acknowledges_syn => Effect::Closed(Reason::Refused),
                false => Effect::Nothing,
            };
        }
        if flags.syn && !flags.ack {
            if self.identity.isn(sender).is_some() {
                self.since_us = self.since_us.max(time_us);
                return Effect::SynAgain;
            }
            self.identity.set_isn(sender, segment.sequence);
            self.identity.client = End::Low;
            return Effect::Identified;
        }
        if flags.syn && acknowledges_syn {
            // In a simultaneous open both ends sent a SYN: no answer is that of the client's alone, and
            // what a handshake takes is not measured.
            if self.identity.isn(sender).is_some() {
                self.mark = Mark::Handshake;
            } else {
                self.delta.syn_to_synack_us = short(self.identity.start_us, time_us);
                let acknowledged = segment.acknowledgment.wrapping_sub(1);
                let is_fast = self.identity.isn(receiver) != Some(acknowledged);
                self.mark = if is_fast { Mark::FastOpen } else { Mark::SynAck };
            }
            self.identity.set_isn(sender, segment.sequence);
        } else if !flags.syn && flags.ack && sender == client && self.follows_syn(sender, segment) {
            // The answer passes elsewhere: this observation is one-sided.
            if self.identity.isn(receiver).is_none() {
                self.identity.set_isn(receiver, segment.acknowledgment.wrapping_sub(1));
            }
            self.mark = Mark::Handshake;
        } else {
            return Effect::Nothing;
        }
        self.since_us = time_us;
        self.established = true;
        self.move_marks(sender, segment, time_us, aside);
        Effect::Answered
    }

    /// Whether an acknowledgment is of an end's SYN, or of payload that it sent with that (RFC 7413).
    fn has_sent(&self, end: End, acknowledgment: u32) -> bool {
        self.identity.isn(end).is_some_and(|isn| {
            let first = isn.wrapping_add(1);
            let next = self.next_sequence(end).unwrap_or(first);
            !precedes(acknowledgment, first) && !precedes(next, acknowledgment)
        })
    }

    /// Whether a segment comes after its sender's SYN, as opposed to one left over from an earlier
    /// connection of the tuple.
    fn follows_syn(&self, sender: End, segment: &Segment) -> bool {
        self.identity.isn(sender).is_some_and(|isn| precedes(isn, segment.sequence))
    }

    fn apply_open(
        &mut self,
        sender: End,
        segment: &Segment,
        time_us: u64,
        aside: &mut Aside,
    ) -> Effect {
        let flags = segment.flags;
        if flags.rst {
            return Effect::Closed(match sender == self.identity.client {
                true => Reason::ResetByClient,
                false => Reason::ResetByServer,
            });
        }
        if flags.syn {
            if !flags.ack && self.identity.isn(sender) != Some(segment.sequence) {
                let isn = segment.sequence;
                // A repeated SYN keeps the time of the first: that is when the connection began.
                if aside.challenger.is_none_or(|was| was.isn != isn || was.client != sender) {
                    aside.challenger = Some(Challenger { client: sender, isn, time_us });
                }
            }
            return Effect::Nothing;
        }
        self.move_marks(sender, segment, time_us, aside);
        self.move_fins(sender, segment)
    }

    /// Takes the measures that a segment completes. Those that cannot be told for sure are not taken:
    /// a connection joined midstream has none, nor has a server that speaks first a response.
    fn move_marks(&mut self, sender: End, segment: &Segment, time_us: u64, aside: &mut Aside) {
        let from_client = sender == self.identity.client;
        if matches!(self.mark, Mark::SynAck | Mark::FastOpen)
            && from_client
            && segment.flags.ack
            && !segment.flags.syn
        {
            self.delta.synack_to_ack_us = short(self.since_us, time_us);
            if self.mark == Mark::FastOpen {
                self.since_us = self.identity.start_us;
                self.mark = Mark::Request;
            } else {
                self.mark = Mark::Handshake;
            }
        }
        if segment.payload_bytes == 0 || segment.flags.syn {
            return;
        }
        self.mark = match (self.mark, from_client) {
            (Mark::Handshake, true) => {
                self.since_us = time_us;
                Mark::Request
            }
            (Mark::Request, false) => {
                self.take_response(time_us.saturating_sub(self.since_us), aside);
                Mark::Nothing
            }
            (Mark::FastOpen, false) => {
                self.take_response(time_us.saturating_sub(self.identity.start_us), aside);
                Mark::SynAck
            }
            (Mark::Handshake | Mark::SynAck, false) => Mark::Nothing,
            (mark, _) => mark,
        };
    }

    fn take_response(&mut self, response_us: u64, aside: &mut Aside) {
        match Taken::new(response_us) {
            Some(taken) => self.delta.first_response_us = taken,
            None => aside.slow_response_us = Some(response_us),
        }
    }

    fn move_fins(&mut self, sender: End, segment: &Segment) -> Effect {
        let flags = segment.flags;
        if flags.fin {
            self.fin.insert(sender);
        }
        let receiver = sender.other();
        // A FIN is the last that its end sends: it is acknowledged when all is.
        if flags.ack
            && self.fin.contains(receiver)
            && let Some(next) = self.next_sequence(receiver)
            && !precedes(segment.acknowledgment, next)
        {
            self.fin_acknowledged.insert(receiver);
        }
        match self.fin_acknowledged.is_both() {
            true => Effect::Closed(Reason::Fin),
            false => Effect::Nothing,
        }
    }
}

impl Challenger {
    /// Whether a segment answers the SYN: the server's SYN-ACK or RST, or the client's ACK of an
    /// answer that passed elsewhere.
    fn is_answered_by(self, sender: End, segment: &Segment) -> bool {
        let flags = segment.flags;
        let first = self.isn.wrapping_add(1);
        if sender == self.client {
            flags.ack && !flags.syn && !flags.rst && segment.sequence == first
        } else {
            flags.ack && (flags.syn || flags.rst) && segment.acknowledgment == first
        }
    }
}

/// How long a handshake's step took. None takes longer than fits: half-open flows are given up sooner.
fn short(since_us: u64, until_us: u64) -> Taken {
    Taken::new(until_us.saturating_sub(since_us)).unwrap_or_default()
}
