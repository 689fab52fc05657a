//! What one connection says, packet by packet: TCP as far as an observer in the middle can tell.

use fastrand::Rng;

use super::{Connection, Event, Kind, MILLISECOND_US, SECOND_US};

/// Segments of a burst before its sender waits for acknowledgments (RFC 6928's initial window).
const WINDOW_SEGMENTS: usize = 10;
/// A full segment at a gigabit a second.
const SEGMENT_SPACING_US: u64 = 12;
/// One data segment in so many is sent twice.
const RETRANSMISSION_ONE_IN: u32 = 200;

#[derive(Clone, Copy, Debug)]
struct Side {
    isn: u32,
    /// Sequence numbers used.
    sent: u32,
}

impl Side {
    fn next(self) -> u32 {
        self.isn.wrapping_add(self.sent)
    }
}

/// One connection while it talks: time moves on with what is said.
pub(super) struct Talk<'a> {
    connection: u32,
    events: &'a mut Vec<Event>,
    time_us: u64,
    round_trip_us: u64,
    segment_bytes: usize,
    client: Side,
    server: Side,
    rng: Rng,
}

impl<'a> Talk<'a> {
    /// A connection that is about to begin; its packets go to `events`.
    pub(super) fn new(
        number: u32,
        connection: &Connection,
        events: &'a mut Vec<Event>,
        start_us: u64,
        rng: &mut Rng,
    ) -> Self {
        Self {
            connection: number,
            events,
            time_us: start_us,
            round_trip_us: rng.u64(200..40 * MILLISECOND_US),
            segment_bytes: segment_bytes(connection),
            client: Side { isn: rng.u32(..), sent: 0 },
            server: Side { isn: rng.u32(..), sent: 0 },
            rng: rng.fork(),
        }
    }

    pub(super) fn pause(&mut self, time_us: u64) {
        self.time_us += time_us;
    }

    pub(super) fn handshake(&mut self) {
        self.syn();
        self.syn_ack();
        self.pause(self.round_trip_us / 2);
        self.segment(true, 0, Kind::Ack);
    }

    pub(super) fn syn(&mut self) {
        self.segment(true, 0, Kind::Syn);
        self.pause(self.round_trip_us / 2);
    }

    pub(super) fn syn_ack(&mut self) {
        self.segment(false, 0, Kind::SynAck);
    }

    /// The three attempts of a client that then gives up.
    pub(super) fn syn_unanswered(&mut self) {
        for wait_us in [SECOND_US, 2 * SECOND_US, 0] {
            self.segment(true, 0, Kind::Syn);
            self.client.sent = 0;
            self.pause(wait_us);
        }
    }

    pub(super) fn syn_refused(&mut self) {
        self.syn();
        self.server.isn = 0;
        self.segment(false, 0, Kind::Reset);
    }

    /// What one side says: segments in bursts of a window, every second one acknowledged.
    pub(super) fn message(&mut self, from_client: bool, bytes: usize) {
        let (mut left, mut window, mut in_window) = (bytes, WINDOW_SEGMENTS, 0);
        while left > 0 {
            let length = left.min(self.segment_bytes);
            left -= length;
            let kind = if left == 0 { Kind::Push } else { Kind::Ack };
            self.segment(from_client, length as u16, kind);
            if self.rng.u32(..RETRANSMISSION_ONE_IN) == 0 {
                self.repeat_last();
            }
            self.pause(SEGMENT_SPACING_US);
            in_window += 1;
            if in_window % 2 == 0 && left > 0 {
                self.segment(!from_client, 0, Kind::Ack);
            }
            if in_window == window {
                (window, in_window) = (window * 2, 0);
                self.pause(self.round_trip_us);
            }
        }
        self.pause(self.round_trip_us / 2);
        // A single segment is acknowledged by the answer that it gets.
        if bytes > self.segment_bytes || self.rng.bool() {
            self.segment(!from_client, 0, Kind::Ack);
        }
    }

    /// The packet just sent, once more a round trip later.
    fn repeat_last(&mut self) {
        if let Some(&last) = self.events.last() {
            let time_us = last.time_us + self.round_trip_us;
            self.events.push(Event { time_us, ..last });
            self.time_us = time_us;
        }
    }

    pub(super) fn finish(&mut self, by_client: bool) {
        self.segment(by_client, 0, Kind::Fin);
        self.pause(self.round_trip_us / 2);
        self.segment(!by_client, 0, Kind::Fin);
        self.pause(self.round_trip_us / 2);
        self.segment(by_client, 0, Kind::Ack);
    }

    pub(super) fn reset(&mut self, by_client: bool) {
        self.segment(by_client, 0, Kind::Reset);
    }

    pub(super) fn segment(&mut self, from_client: bool, payload: u16, kind: Kind) {
        let (sender, receiver) = if from_client {
            (&mut self.client, self.server)
        } else {
            (&mut self.server, self.client)
        };
        self.events.push(Event {
            time_us: self.time_us,
            connection: self.connection,
            sequence: sender.next(),
            acknowledgment: receiver.next(),
            payload,
            from_client,
            kind,
        });
        let takes_one = matches!(kind, Kind::Syn | Kind::SynAck | Kind::Fin);
        sender.sent = sender.sent.wrapping_add(u32::from(payload) + u32::from(takes_one));
    }
}

/// What fits into a packet of 1,500 bytes beside the headers.
fn segment_bytes(connection: &Connection) -> usize {
    let ip = if connection.client.is_ipv6() { 40 } else { 20 };
    let tcp = if connection.timestamps { 32 } else { 20 };
    1_500 - ip - tcp
}
