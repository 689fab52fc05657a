//! What a packet means for the connection that has its tuple: how it opens, moves on and closes
//! (RFC 9293, 3.5 and 3.6, seen from beside the path).

use super::flow::{Flow, Phase, Reason, precedes};
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

/// What the next measure waits for, and since when (microseconds since the epoch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing more to measure.
    Nothing,
    /// The client's ACK of the SYN-ACK.
    SynAck(u64),
    /// The client's first payload.
    Handshake,
    /// The server's first payload.
    Request(u64),
}

impl Flow {
    /// Whose packet it is, before anything is counted.
    pub(super) fn verdict(&self, sender: End, segment: &Segment) -> Verdict {
        let flags = segment.flags;
        let known = |end: End, sequence| self.identity.isn[end].map(|isn| isn == sequence);
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
            Phase::Open => match self.challenger {
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
    pub(super) fn apply(&mut self, sender: End, segment: &Segment, time_us: u64) -> Effect {
        match self.phase {
            Phase::HalfOpen | Phase::Remembered => self.apply_half_open(sender, segment, time_us),
            Phase::Open => self.apply_open(sender, segment, time_us),
            Phase::Lingering | Phase::Dead => Effect::Nothing,
        }
    }

    fn apply_half_open(&mut self, sender: End, segment: &Segment, time_us: u64) -> Effect {
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
            if self.identity.isn[sender].is_some() {
                self.since_us = self.since_us.max(time_us);
                return Effect::SynAgain;
            }
            self.identity.isn[sender] = Some(segment.sequence);
            self.identity.client = End::Low;
            return Effect::Identified;
        }
        if flags.syn && acknowledges_syn {
            self.identity.isn[sender] = Some(segment.sequence);
            self.delta.syn_to_synack_us = Some(short_us(self.identity.start_us, time_us));
            self.mark = Mark::SynAck(time_us);
        } else if !flags.syn && flags.ack && sender == client && self.follows_syn(sender, segment) {
            // The answer passes elsewhere: this observation is one-sided.
            if self.identity.isn[receiver].is_none() {
                self.identity.isn[receiver] = Some(segment.acknowledgment.wrapping_sub(1));
            }
            self.mark = Mark::Handshake;
        } else {
            return Effect::Nothing;
        }
        self.since_us = time_us;
        self.established = true;
        self.move_marks(sender, segment, time_us);
        Effect::Answered
    }

    /// Whether an acknowledgment is of an end's SYN, or of payload that it sent with that (RFC 7413).
    fn has_sent(&self, end: End, acknowledgment: u32) -> bool {
        self.identity.isn[end].is_some_and(|isn| {
            let first = isn.wrapping_add(1);
            let next = self.sequence[end].next().unwrap_or(first);
            !precedes(acknowledgment, first) && !precedes(next, acknowledgment)
        })
    }

    /// Whether a segment comes after its sender's SYN, as opposed to one left over from an earlier
    /// connection of the tuple.
    fn follows_syn(&self, sender: End, segment: &Segment) -> bool {
        self.identity.isn[sender].is_some_and(|isn| precedes(isn, segment.sequence))
    }

    fn apply_open(&mut self, sender: End, segment: &Segment, time_us: u64) -> Effect {
        let flags = segment.flags;
        if flags.rst {
            return Effect::Closed(match sender == self.identity.client {
                true => Reason::ResetByClient,
                false => Reason::ResetByServer,
            });
        }
        if flags.syn {
            if !flags.ack && self.identity.isn[sender] != Some(segment.sequence) {
                let isn = segment.sequence;
                // A repeated SYN keeps the time of the first: that is when the connection began.
                if self.challenger.is_none_or(|was| was.isn != isn || was.client != sender) {
                    self.challenger = Some(Challenger { client: sender, isn, time_us });
                }
            }
            return Effect::Nothing;
        }
        self.move_marks(sender, segment, time_us);
        self.move_fins(sender, segment)
    }

    /// Takes the measures that a segment completes. Those that cannot be told for sure are not taken:
    /// a connection joined midstream has none, nor has a server that speaks first a response.
    fn move_marks(&mut self, sender: End, segment: &Segment, time_us: u64) {
        let from_client = sender == self.identity.client;
        if let Mark::SynAck(since_us) = self.mark
            && from_client
            && segment.flags.ack
            && !segment.flags.syn
        {
            self.delta.synack_to_ack_us = Some(short_us(since_us, time_us));
            self.mark = Mark::Handshake;
        }
        if segment.payload_bytes == 0 || segment.flags.syn {
            return;
        }
        self.mark = match (self.mark, from_client) {
            (Mark::Handshake, true) => Mark::Request(time_us),
            (Mark::Request(since_us), false) => {
                self.delta.first_response_us = Some(time_us.saturating_sub(since_us));
                Mark::Nothing
            }
            (Mark::Handshake | Mark::SynAck(_), false) => Mark::Nothing,
            (mark, _) => mark,
        };
    }

    fn move_fins(&mut self, sender: End, segment: &Segment) -> Effect {
        let flags = segment.flags;
        if flags.fin {
            let end = segment.sequence.wrapping_add(segment.payload_bytes).wrapping_add(1);
            self.fin[sender] = Some(end);
        }
        if flags.ack
            && let Some(end) = self.fin[sender.other()]
            && !precedes(segment.acknowledgment, end)
        {
            self.fin_acknowledged[sender.other()] = true;
        }
        match self.fin_acknowledged[End::Low] && self.fin_acknowledged[End::High] {
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

/// A duration that fits 32 bits, or 71 minutes: longer than any connection waits for an answer.
fn short_us(since_us: u64, until_us: u64) -> u32 {
    until_us.saturating_sub(since_us).try_into().unwrap_or(u32::MAX)
}
