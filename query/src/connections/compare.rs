//! The client's side of a connection held against the server's: what did not arrive, if that can be told. Pure.
//!
//! Packets and bytes are what interfaces saw: with segmentation and receive offload one packet may become many
//! and many one, headers included. Payload does not change by that. So payload that is missing was lost; packets
//! that are missing were lost for certain only in a direction without payload, which nothing merges.

use super::comparison::{
    Comparison, Difference, Direction, Disagreement, GapKind, Obstacle, Side, Verdict,
};
use super::evidence::Gap;
use super::join::{Joined, Seen};
use crate::answer::Counters;
use crate::window::{Bounds, minute_before};

/// How near to a bound of the window packets may be under way across it: longer than any path, and than
/// clocks of nodes that are kept differ.
const UNDER_WAY_US: i64 = 2_000_000;

/// The sides of a connection.
struct Sides<'a> {
    client: &'a Seen,
    server: &'a Seen,
}

/// Compares the sides. `gaps` are those of an agent on a node.
pub(super) fn compare(
    joined: &Joined,
    bounds: Bounds,
    gaps: impl Fn(&Seen) -> Vec<Gap>,
) -> (Comparison, Vec<Disagreement>) {
    let (client_side, server_side) = (side_of(joined, Side::Client), side_of(joined, Side::Server));
    let at = |index: Option<usize>| index.and_then(|index| joined.observations.get(index));
    let mut comparison = Comparison { client_side, server_side, ..Comparison::default() };
    if joined.key.folded {
        comparison.not_comparable.push(Obstacle::Summary);
        return (comparison, Vec::new());
    }
    let (Some(client), Some(server)) = (at(client_side), at(server_side)) else {
        let missing = [(client_side, Side::Client), (server_side, Side::Server)];
        let missing = missing.into_iter().filter(|(index, _)| index.is_none());
        comparison.not_comparable =
            missing.map(|(_, side)| Obstacle::NoObservation { side }).collect();
        return (comparison, Vec::new());
    };
    let sides = Sides { client, server };
    comparison.not_comparable = sides.obstacles(bounds, gaps);
    if !comparison.not_comparable.is_empty() {
        return (comparison, Vec::new());
    }
    let (client, server) = (&client.sums, &server.sums);
    let sent = difference(client.sent, server.sent);
    let received = difference(server.received, client.received);
    (comparison.sent, comparison.received) = (Some(sent), Some(received));
    let mut found = Vec::new();
    found.extend(disagreement(Direction::Sent, sent));
    found.extend(disagreement(Direction::Received, received));
    found.extend(sides.retransmissions());
    found.extend(sides.no_answer());
    found.extend(sides.close_reason());
    (comparison, found)
}

/// The observation that speaks for a side: a pod's own interface before others, then the one with most rows.
fn side_of(joined: &Joined, side: Side) -> Option<usize> {
    let seen = joined.observations.iter().enumerate();
    let seen = seen.filter(|(_, seen)| seen.reporter() == Some(side));
    // The first of equals.
    let best =
        seen.rev().max_by_key(|(_, seen)| (seen.certain, seen.is_at_pod(), seen.sums.rows))?;
    Some(best.0)
}

impl Sides<'_> {
    fn each(&self) -> [(Side, &Seen); 2] {
        [(Side::Client, self.client), (Side::Server, self.server)]
    }

    fn both(&self, holds: impl Fn(&Seen) -> bool) -> bool {
        holds(self.client) && holds(self.server)
    }

    /// Why the two cannot be compared.
    fn obstacles(&self, bounds: Bounds, gaps: impl Fn(&Seen) -> Vec<Gap>) -> Vec<Obstacle> {
        let mut found = Vec::new();
        if !self.both(|seen| seen.certain) {
            found.push(Obstacle::Uncertain);
        }
        let last_s = if self.both(Seen::has_ended) {
            self.each().map(|(_, seen)| seen.row.intervals_s.2).into_iter().max()
        } else {
            None
        };
        let first_s = self.each().map(|(_, seen)| seen.row.intervals_s.0).into_iter().min();
        let first_s = first_s.unwrap_or(bounds.from_s).max(bounds.from_s);
        let last_s = last_s.unwrap_or(bounds.to_s).min(bounds.to_s);
        for (side, seen) in self.each() {
            if seen.row.flags.1 {
                found.push(Obstacle::OneSided { side });
            }
            if seen.sums.joined > 0 {
                found.push(Obstacle::Joined { side });
            }
            if seen.sums.closed.evicted > 0 {
                found.push(Obstacle::Evicted { side });
            }
            let silent = !seen.has_ended()
                && seen.row.open_s > 0
                && seen.row.intervals_s.1 < minute_before(bounds.to_s);
            if silent {
                found.push(Obstacle::RowsMissing { side });
            }
            let within = |gap: &&Gap| gap.from_s < last_s && gap.to_s > first_s;
            if let Some(gap) = gaps(seen).iter().find(within) {
                let agent = seen.row.point.1.clone();
                let Gap { kind: gap, from_s, to_s } = *gap;
                found.push(Obstacle::Gap { side, agent, gap, from_s, to_s });
            }
        }
        let packets = || self.each().into_iter().filter_map(|(_, seen)| seen.sums.packets_us);
        let us = |time_s: u32| i64::from(time_s) * 1_000_000;
        let begins_here = self.both(|seen| seen.sums.opened > 0);
        if !begins_here && packets().any(|(first, _)| first < us(bounds.from_s) + UNDER_WAY_US) {
            found.push(Obstacle::CutAtStart);
        }
        if packets().any(|(_, last)| last >= us(bounds.to_s) - UNDER_WAY_US) {
            found.push(Obstacle::CutAtEnd);
        }
        found
    }

    /// Packets sent again that one side saw more of.
    fn retransmissions(&self) -> impl Iterator<Item = Disagreement> {
        let (client, server) = (&self.client.sums, &self.server.sums);
        [
            (Direction::Sent, client.sent, server.sent),
            (Direction::Received, client.received, server.received),
        ]
        .into_iter()
        .map(|(direction, client, server)| {
            (direction, client.retransmitted_packets, server.retransmitted_packets)
        })
        .filter(|(_, client_side, server_side)| client_side != server_side)
        .map(|(direction, client_side, server_side)| Disagreement::Retransmissions {
            direction,
            client_side,
            server_side,
        })
    }

    /// A side that saw packets but nothing in return, where the other saw both.
    fn no_answer(&self) -> Option<Disagreement> {
        let unanswered =
            |seen: &Seen| (seen.sums.sent.packets > 0) != (seen.sums.received.packets > 0);
        let sides = self.each().map(|(side, seen)| (side, unanswered(seen)));
        match sides {
            [(side, true), (_, false)] | [(_, false), (side, true)] => {
                Some(Disagreement::NoAnswer { side })
            }
            _ => None,
        }
    }

    fn close_reason(&self) -> Option<Disagreement> {
        let [client, server] = self.each().map(|(_, seen)| close_reason(seen.row.closed_last.1));
        match (client, server) {
            (Some(client), Some(server)) if client != server => Some(Disagreement::CloseReason {
                client_side: client.to_owned(),
                server_side: server.to_owned(),
            }),
            _ => None,
        }
    }
}

/// The reason of a number, as rows have it.
pub(super) fn close_reason(number: u8) -> Option<&'static str> {
    let reasons = flowtrail_schema::Closed::default().reasons();
    let index = usize::from(number).checked_sub(1)?;
    reasons.get(index).map(|(reason, _)| *reason)
}

/// What one side sent, less what the other received.
fn difference(sender: Counters, receiver: Counters) -> Difference {
    let less = |one: u64, other: u64| {
        i64::try_from(i128::from(one) - i128::from(other)).unwrap_or(i64::MAX)
    };
    let packets = less(sender.packets, receiver.packets);
    let bytes = less(sender.bytes, receiver.bytes);
    let payload_bytes = less(sender.payload_bytes, receiver.payload_bytes);
    let verdict = match (payload_bytes, packets, bytes) {
        (1.., ..) => Verdict::Lost,
        (..0, ..) => Verdict::Unseen,
        (0, 0, 0) => Verdict::Same,
        (0, 0, _) => Verdict::Headers,
        (0, 1.., _) if sender.payload_bytes == 0 => Verdict::Lost,
        (0, ..0, _) if sender.payload_bytes == 0 => Verdict::Unseen,
        (0, 1.., _) => Verdict::FewerPackets,
        (0, ..0, _) => Verdict::MorePackets,
    };
    Difference { packets, bytes, payload_bytes, verdict }
}

fn disagreement(direction: Direction, difference: Difference) -> Option<Disagreement> {
    let Difference { packets, bytes, payload_bytes, verdict } = difference;
    match verdict {
        Verdict::Lost => Some(Disagreement::Lost { direction, packets, bytes, payload_bytes }),
        Verdict::Unseen => Some(Disagreement::Unseen {
            direction,
            packets: -packets,
            payload_bytes: -payload_bytes,
        }),
        Verdict::Same | Verdict::FewerPackets | Verdict::MorePackets | Verdict::Headers => None,
    }
}

impl From<u8> for GapKind {
    /// As `sql::gaps` numbers them.
    fn from(number: u8) -> Self {
        match number {
            2 => Self::PacketsDropped,
            3 => Self::RecordsDropped,
            4 => Self::Folded,
            _ => Self::NoReport,
        }
    }
}
