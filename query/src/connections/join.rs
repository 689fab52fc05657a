//! The observations of a connection: which rows are of it, decided as ingest's `connections.rs` does. Pure.
//!
//! Observations have the client's initial sequence number alike, overlap in time, and do not have two servers'
//! numbers. Where one number is not known yet, the same interface must not show both with different ends.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use flowtrail_schema::{IdKind, InterfaceKind, Reporter};

use super::comparison::Side;
use super::cursor::Key;
use super::sql::{ClosedColumns, CountersColumns, EndColumns, ObservationRow, is_cut};
use crate::answer::{Closed, Counters};

/// How far apart two observations may be and still overlap, seconds: ingest has the same. An open connection
/// has a row every minute, and an agent may miss one.
pub(crate) const OVERLAP_S: u32 = 180;

/// Observations listed of one connection: ingest joins as many.
const MAX_OBSERVATIONS: usize = 12;

/// A connection of a page with its observations.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    pub(crate) key: Key,
    /// What the edge counts of it.
    pub(crate) counted: Seen,
    /// The counted one first.
    pub(crate) observations: Vec<Seen>,
    pub(crate) more_observations: bool,
}

/// What was seen of a connection at one point.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Its ends here, and what it is told from others by.
    pub(crate) key: Key,
    /// The same ends as the counted ones, or the same complete id.
    pub(crate) certain: bool,
    /// Its newest names, kinds and flags.
    pub(crate) row: ObservationRow,
    /// The sums of the window.
    pub(crate) sums: Sums,
}

/// What is summed over the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) rows: u64,
    pub(crate) opened: u64,
    pub(crate) joined: u64,
    pub(crate) closed: Closed,
    pub(crate) sent: Counters,
    pub(crate) received: Counters,
    pub(crate) syn_to_synack: (u64, u64),
    pub(crate) synack_to_ack: (u64, u64),
    pub(crate) first_response: (u64, u64),
    /// First and last packet, microseconds since the epoch.
    pub(crate) packets_us: Option<(i64, i64)>,
}

/// The connections of a page, in its order, each with its observations among some rows.
pub(crate) fn join(page: &[Key], rows: Vec<ObservationRow>) -> Vec<Joined> {
    let mut alike: BTreeMap<(bool, bool, u64), Vec<Seen>> = BTreeMap::new();
    let mut counted: BTreeMap<Key, Seen> = BTreeMap::new();
    let mut rows_of_ends: BTreeMap<Key, usize> = BTreeMap::new();
    for row in rows {
        let key = Key::from(row.key);
        *rows_of_ends.entry(key).or_default() += 1;
        let seen = Seen::of(row);
        if seen.row.counted {
            add(counted.entry(key).or_insert_with(|| seen.empty()), &seen);
        }
        let group = alike.entry((key.folded, key.hashed, key.shared)).or_default();
        match group.iter_mut().find(|known| known.is_at(&seen)) {
            Some(known) => add(known, &seen),
            None => group.push(seen),
        }
    }
    let connection = |key: &Key| {
        let group = alike.get(&(key.folded, key.hashed, key.shared))?;
        let mut observations: Vec<Seen> = of(key, group).cloned().collect();
        let first = observations.first()?.clone();
        for seen in &mut observations {
            seen.certain = seen.is_certain(&first);
        }
        let cut = observations
            .iter()
            .any(|seen| rows_of_ends.get(&seen.key).is_some_and(|rows| is_cut(*rows)));
        let more_observations = cut || observations.len() > MAX_OBSERVATIONS;
        observations.truncate(MAX_OBSERVATIONS);
        let counted = counted.get(key).cloned().unwrap_or_else(|| first.empty());
        Some(Joined { key: *key, counted, observations, more_observations })
    };
    page.iter().filter_map(connection).collect()
}

/// The observations of one connection among those that are alike, the counted one first.
fn of<'a>(key: &Key, group: &'a [Seen]) -> impl Iterator<Item = &'a Seen> {
    let own = |seen: &&Seen| seen.key == *key;
    let counted = group.iter().find(|seen| own(seen) && seen.row.primary);
    // Other connections that are alike: each takes what fits it better.
    let others: Vec<&Seen> =
        group.iter().filter(|seen| seen.row.primary && seen.key != *key).collect();
    let mut found: Vec<&Seen> = match counted {
        None => Vec::new(),
        Some(counted) => {
            let fits_best = |seen: &&Seen| {
                let fit = counted.fit(seen, group);
                fit > Fit::None
                    && others.iter().all(|other| other.fit(seen, group) <= fit)
                    && (own(seen) || !seen.row.primary)
            };
            group.iter().filter(fits_best).collect()
        }
    };
    // Stable: what was first stays first among equals.
    found.sort_by_key(|seen| (!(seen.row.primary && seen.key == *key), seen.row.point.4));
    found.into_iter()
}

/// How well an observation fits a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    None,
    /// Half an id and the time.
    Half,
    /// The whole id.
    Id,
    /// The same ends.
    Ends,
}

impl Seen {
    fn of(row: ObservationRow) -> Self {
        let sums = if row.within { Sums::of(&row) } else { Sums::default() };
        Self { key: row.key.into(), certain: true, row, sums }
    }

    /// The same without sums.
    fn empty(&self) -> Self {
        Self { sums: Sums::default(), ..self.clone() }
    }

    fn is_at(&self, other: &Self) -> bool {
        self.key == other.key && self.row.point == other.row.point
    }

    fn is_at_interface_of(&self, other: &Self) -> bool {
        let (point, other) = (&self.row.point, &other.row.point);
        (&point.0, &point.1, &point.2) == (&other.0, &other.1, &other.2)
    }

    pub(crate) fn id_kind(&self) -> IdKind {
        IdKind::from_number(i32::from(self.row.id_kind)).unwrap_or(IdKind::TupleHash)
    }

    /// The server's initial sequence number, if it is known.
    fn server_isn(&self) -> Option<u32> {
        (self.id_kind() == IdKind::Complete).then_some(self.row.connection_id as u32)
    }

    fn fit(&self, other: &Self, group: &[Self]) -> Fit {
        let (_, _, end_s) = self.row.intervals_s;
        let (_, _, other_end_s) = other.row.intervals_s;
        let overlap = self.row.intervals_s.0 <= other_end_s.saturating_add(OVERLAP_S)
            && other.row.intervals_s.0 <= end_s.saturating_add(OVERLAP_S);
        if self.key == other.key {
            return Fit::Ends;
        }
        if self.key.hashed || self.key.folded || !overlap {
            return Fit::None;
        }
        match (self.server_isn(), other.server_isn()) {
            (Some(isn), Some(other)) if isn == other => Fit::Id,
            (Some(_), Some(_)) => Fit::None,
            // The same interface shows both, so they are two.
            _ if group
                .iter()
                .any(|seen| seen.key == self.key && seen.is_at_interface_of(other)) =>
            {
                Fit::None
            }
            _ => Fit::Half,
        }
    }

    fn is_certain(&self, counted: &Self) -> bool {
        self.key == counted.key
            || self.server_isn().is_some() && self.server_isn() == counted.server_isn()
    }

    pub(crate) fn reporter(&self) -> Option<Side> {
        match Reporter::from_number(i32::from(self.row.point.4))? {
            Reporter::Client => Some(Side::Client),
            Reporter::Server => Some(Side::Server),
            Reporter::Transit => None,
        }
    }

    /// Its end was seen here.
    pub(crate) fn has_ended(&self) -> bool {
        self.row.closed_last.0 > 0
    }

    pub(crate) fn is_at_pod(&self) -> bool {
        self.row.point.3 == InterfaceKind::Pod.number()
    }
}

/// Adds rows of the same observation.
fn add(to: &mut Seen, other: &Seen) {
    to.sums.add(&other.sums);
    let (row, more) = (&mut to.row, &other.row);
    if (more.intervals_s.1, more.packets_us.1) > (row.intervals_s.1, row.packets_us.1) {
        row.client.clone_from(&more.client);
        row.server.clone_from(&more.server);
        row.service.clone_from(&more.service);
    }
    row.primary |= more.primary;
    row.local_primary |= more.local_primary;
    row.detail = row.detail.max(more.detail);
    row.connection_id = row.connection_id.max(more.connection_id);
    row.id_kind = row.id_kind.min(more.id_kind);
    let (handshake_seen, one_sided, direction_inferred) = more.flags;
    row.flags.0 |= handshake_seen;
    row.flags.1 |= one_sided;
    row.flags.2 |= direction_inferred;
    row.started_us = match (row.started_us, more.started_us) {
        (0, started) | (started, 0) => started,
        (one, other) => one.min(other),
    };
    row.packets_us.1 = row.packets_us.1.max(more.packets_us.1);
    let (first_s, last_s, end_s) = more.intervals_s;
    row.intervals_s = (
        row.intervals_s.0.min(first_s),
        row.intervals_s.1.max(last_s),
        row.intervals_s.2.max(end_s),
    );
    row.open_s = row.open_s.max(more.open_s);
    row.closed_last = row.closed_last.max(more.closed_last);
}

impl Sums {
    fn of(row: &ObservationRow) -> Self {
        let (first_us, last_us) = row.packets_us;
        Self {
            rows: row.rows,
            opened: row.life.0,
            joined: row.life.1,
            closed: closed(row.closed),
            sent: counters(row.sent),
            received: counters(row.received),
            syn_to_synack: row.syn_to_synack,
            synack_to_ack: row.synack_to_ack,
            first_response: row.first_response,
            packets_us: (last_us > 0).then_some((first_us, last_us)),
        }
    }

    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.opened += other.opened;
        self.joined += other.joined;
        self.closed += other.closed;
        self.sent += other.sent;
        self.received += other.received;
        let samples = [
            (&mut self.syn_to_synack, other.syn_to_synack),
            (&mut self.synack_to_ack, other.synack_to_ack),
            (&mut self.first_response, other.first_response),
        ];
        for (sum, other) in samples {
            sum.0 += other.0;
            sum.1 += other.1;
        }
        self.packets_us = match (self.packets_us, other.packets_us) {
            (Some((first, last)), Some((other_first, other_last))) => {
                Some((first.min(other_first), last.max(other_last)))
            }
            (one, another) => one.or(another),
        };
    }
}

impl Joined {
    /// The counted observation.
    pub(crate) fn primary(&self) -> &Seen {
        self.observations.first().unwrap_or(&self.counted)
    }

    /// Nodes whose agents saw it, or should have.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &str> {
        let ends = [&self.counted.row.client, &self.counted.row.server].map(|end| end.5.as_str());
        let points = self.observations.iter().map(|seen| seen.row.point.0.as_str());
        points.chain(ends).filter(|node| !node.is_empty())
    }

    /// Addresses that its ends were seen as.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Ipv6Addr> {
        [Side::Client, Side::Server].into_iter().flat_map(|side| self.addresses_of(side))
    }

    /// Addresses and ports that an end was seen as, on observations that are its for certain.
    pub(crate) fn ends(&self, side: Side) -> impl Iterator<Item = (Ipv6Addr, u16)> {
        let seen = self.observations.iter().filter(|seen| seen.certain);
        let seen = seen.map(move |seen| seen.end(side));
        let named = end_of(&self.counted.row, side);
        seen.chain([(named.7, named.8)])
    }

    fn addresses_of(&self, side: Side) -> impl Iterator<Item = Ipv6Addr> {
        self.ends(side).map(|(address, _)| address)
    }

    /// Ports that its server was seen as.
    pub(crate) fn server_ports(&self) -> impl Iterator<Item = u16> {
        [self.key.server_port, self.counted.row.server.8].into_iter()
    }

    /// From its start, if that is known, to its last packet; microseconds since the epoch.
    pub(crate) fn life_us(&self) -> (i64, i64) {
        let row = &self.primary().row;
        let first_us = i64::from(row.intervals_s.0) * 1_000_000;
        let start_us = if row.started_us > 0 { row.started_us.min(first_us) } else { first_us };
        (start_us, i64::from(row.intervals_s.2) * 1_000_000)
    }
}

impl Seen {
    /// Address and port of an end here.
    pub(crate) fn end(&self, side: Side) -> (Ipv6Addr, u16) {
        match side {
            Side::Client => (self.key.client_ip, self.key.client_port),
            Side::Server => (self.key.server_ip, self.key.server_port),
        }
    }
}

/// The names of an end.
pub(crate) fn end_of(row: &ObservationRow, side: Side) -> &EndColumns {
    match side {
        Side::Client => &row.client,
        Side::Server => &row.server,
    }
}

fn counters(columns: CountersColumns) -> Counters {
    let (bytes, payload_bytes, packets, retransmitted_packets, zero_window_packets) = columns;
    Counters { bytes, payload_bytes, packets, retransmitted_packets, zero_window_packets }
}

fn closed(columns: ClosedColumns) -> Closed {
    let (fin, reset_by_client, reset_by_server, refused, unanswered, idle, superseded, evicted) =
        columns;
    Closed { fin, reset_by_client, reset_by_server, refused, unanswered, idle, superseded, evicted }
}

#[cfg(test)]
pub(crate) mod tests;
