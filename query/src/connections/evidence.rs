//! Joined rows → connections as they are answered, with what agents and Kubernetes did meanwhile. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use flowtrail_schema::row::EntityKind;
use flowtrail_schema::{Detail, IdKind, InterfaceKind, Reporter};

use super::answer::{Connection, End, Latencies, Observation, Ownership, Start, State};
use super::compare::{close_reason, compare};
use super::comparison::{Disagreement, GapKind, Side};
use super::join::{Joined, Seen, Sums, end_of};
use super::sql::{EndColumns, GapRow, MAX_GAPS, OwnershipRow};
use crate::window::{Bounds, minute_before};

/// A time in which an agent did not see all, seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) kind: GapKind,
    pub(super) from_s: u32,
    pub(super) to_s: u32,
}

/// What is known beside rows of connections.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    bounds: Option<Bounds>,
    /// What the agents' gaps were asked for of, seconds since the epoch.
    watched_s: (u32, u32),
    /// By node and agent; one without any reported all the time.
    gaps: BTreeMap<(String, String), Vec<Gap>>,
    ownerships: BTreeMap<Ipv6Addr, Vec<OwnershipRow>>,
}

impl Evidence {
    pub(super) fn new(
        bounds: Bounds,
        watched_s: (u32, u32),
        gaps: Vec<GapRow>,
        ownerships: Vec<OwnershipRow>,
    ) -> Self {
        let mut evidence = Self { bounds: Some(bounds), watched_s, ..Self::default() };
        for row in gaps {
            let of_agent = evidence.gaps.entry((row.node, row.agent)).or_default();
            of_agent.push(Gap { kind: row.reason.into(), from_s: row.from_s, to_s: row.to_s });
        }
        for of_agent in evidence.gaps.values_mut() {
            // Those beyond are not known.
            if of_agent.len() >= MAX_GAPS
                && let Some(last) = of_agent.last_mut()
            {
                last.to_s = bounds.to_s;
            }
            of_agent.retain(|gap| gap.from_s < gap.to_s);
        }
        for row in ownerships {
            evidence.ownerships.entry(row.address).or_default().push(row);
        }
        evidence
    }

    /// A connection as it is answered. `end_s` is when its state is told of.
    pub(super) fn connection(&self, joined: &Joined, end_s: u32) -> Connection {
        let (comparison, mut disagreements) = match self.bounds {
            Some(bounds) => {
                let (from_s, to_s) = self.watched_s;
                let never = [Gap { kind: GapKind::NoReport, from_s, to_s }];
                compare(joined, bounds, |seen| match self.gaps_of(seen) {
                    Some(gaps) => gaps.to_vec(),
                    None => never.to_vec(),
                })
            }
            None => Default::default(),
        };
        for side in [Side::Client, Side::Server] {
            disagreements.extend(self.missing(joined, side));
            disagreements.extend(names(joined, side));
        }
        disagreements.extend(services(joined));
        let primary = joined.primary();
        let (row, sums) = (&primary.row, &joined.counted.sums);
        let named = &joined.counted.row;
        let started_us = Some(row.started_us).filter(|started| *started > 0);
        let last_us = sums.packets_us.map(|(_, last)| last);
        let duration_us = started_us.zip(last_us).map(|(first, last)| last - first);
        let observations = joined.observations.iter().map(observation).collect();
        Connection {
            id: id(row.connection_id),
            id_kind: primary.id_kind().as_str().to_owned(),
            detail: word(Detail::from_number, Detail::as_str, row.detail),
            state: state(joined, end_s),
            close_reason: close_reason(row.closed_last.1).map(str::to_owned),
            started_us,
            start: match (sums.opened, sums.joined) {
                (1.., _) => Start::Opened,
                (0, 1..) => Start::Joined,
                (0, 0) => Start::Before,
            },
            first_seen_us: sums.packets_us.map(|(first, _)| first),
            last_seen_us: last_us,
            duration_ms: duration_us.map(|us| us as f64 / 1_000.0),
            handshake_seen: row.flags.0,
            direction_inferred: row.flags.2,
            client: self.end(joined, Side::Client),
            server: self.end(joined, Side::Server),
            service: Some(label(&named.service.0, &named.service.1))
                .filter(|name| !name.is_empty()),
            opened: sums.opened,
            joined: sums.joined,
            closed: sums.closed,
            sent: sums.sent,
            received: sums.received,
            latency: latencies(sums),
            comparison,
            disagreements,
            observations,
            more_observations: joined.more_observations,
        }
    }

    fn gaps_of(&self, seen: &Seen) -> Option<&Vec<Gap>> {
        let (node, agent, ..) = &seen.row.point;
        self.gaps.get(&(node.clone(), agent.clone()))
    }

    /// The side that nobody saw although an agent was on its node all the time.
    fn missing(&self, joined: &Joined, side: Side) -> Option<Disagreement> {
        let node = &end_of(&joined.counted.row, side).5;
        let looked_from = joined.observations.iter().any(|seen| seen.reporter() == Some(side));
        if looked_from || node.is_empty() || joined.key.folded {
            return None;
        }
        let (first_s, _, last_s) = joined.primary().row.intervals_s;
        let saw_all =
            |gaps: &Vec<Gap>| !gaps.iter().any(|gap| gap.from_s < last_s && gap.to_s > first_s);
        let mut agents = self.gaps.iter().filter(|((at, _), _)| at == node);
        agents
            .any(|(_, gaps)| saw_all(gaps))
            .then(|| Disagreement::Missing { side, node: node.clone() })
    }

    fn end(&self, joined: &Joined, side: Side) -> End {
        let (kind, namespace, name, workload, workload_kind, node, uncertain, real_ip, real_port) =
            end_of(&joined.counted.row, side);
        let (address, port) = joined.counted.end(side);
        End {
            kind: word(EntityKind::from_number, EntityKind::as_str, *kind),
            namespace: namespace.clone(),
            name: name.clone(),
            workload: workload.clone(),
            workload_kind: workload_kind.clone(),
            node: node.clone(),
            uncertain: *uncertain,
            address: text(address),
            port,
            real_address: text(*real_ip),
            real_port: *real_port,
            held_by: self.held_by(joined, side),
        }
    }

    /// Who held the addresses that an end was seen as, while the connection lived.
    fn held_by(&self, joined: &Joined, side: Side) -> Vec<Ownership> {
        let ends: BTreeSet<(Ipv6Addr, u16)> = joined.ends(side).collect();
        let (start_us, last_us) = joined.life_us();
        let of = |address: Ipv6Addr| self.ownerships.get(&address).into_iter().flatten();
        let at_ends = ends.iter().flat_map(|(address, port)| {
            of(*address).filter(move |row| row.port == 0 || row.port == *port)
        });
        // A port of every node counts where one of them was called.
        let is_node = at_ends.clone().any(|row| row.kind == EntityKind::Node.number());
        let node_ports = of(Ipv6Addr::UNSPECIFIED)
            .filter(|row| is_node && ends.iter().any(|(_, port)| row.port == *port));
        let lived = |row: &&OwnershipRow| {
            row.start_us <= last_us && (row.end_us == 0 || row.end_us >= start_us)
        };
        let rows: BTreeSet<_> = at_ends.chain(node_ports).filter(lived).collect();
        let named = end_of(&joined.counted.row, side);
        let service = &joined.counted.row.service;
        let ownership = |row: &OwnershipRow| Ownership {
            address: text(row.address),
            port: row.port,
            uid: row.uid.clone(),
            kind: word(EntityKind::from_number, EntityKind::as_str, row.kind),
            namespace: row.namespace.clone(),
            name: row.name.clone(),
            start_us: row.start_us,
            end_us: Some(row.end_us).filter(|end| *end > 0),
            certain_until_us: row.certain_until_us,
            named: (row.kind, &row.namespace, &row.name) == (named.0, &named.1, &named.2)
                || side == Side::Server
                    && row.kind == EntityKind::Service.number()
                    && (&row.namespace, &row.name) == (&service.0, &service.1),
        };
        rows.into_iter().map(ownership).collect()
    }
}

/// How a connection stood at `end_s`.
fn state(joined: &Joined, end_s: u32) -> State {
    let primary = joined.primary();
    let row = &primary.row;
    let (closed_s, _) = row.closed_last;
    // Every open connection has a row in the first interval of a minute.
    let heard_of = row.intervals_s.1 >= minute_before(end_s);
    let half_open = primary.id_kind() == IdKind::Partial;
    if joined.key.folded {
        State::Folded
    } else if closed_s > 0 && closed_s >= row.open_s {
        State::Closed
    } else if row.open_s == 0 && !half_open && !row.flags.1 {
        // What came after a close that is before these rows.
        State::Closed
    } else if !heard_of {
        State::Silent
    } else if half_open {
        State::HalfOpen
    } else {
        State::Open
    }
}

/// Names of an end that are not the same everywhere. Where it is not certain that a row is of the connection,
/// its names say nothing.
fn names(joined: &Joined, end: Side) -> Option<Disagreement> {
    let names: BTreeSet<String> =
        certain(joined).map(|seen| name_of(end_of(&seen.row, end))).collect();
    (names.len() > 1).then(|| Disagreement::Names { end, names: names.into_iter().collect() })
}

fn services(joined: &Joined) -> Option<Disagreement> {
    let services: BTreeSet<String> = certain(joined)
        .map(|seen| label(&seen.row.service.0, &seen.row.service.1))
        .filter(|name| !name.is_empty())
        .collect();
    (services.len() > 1)
        .then(|| Disagreement::Services { services: services.into_iter().collect() })
}

fn certain(joined: &Joined) -> impl Iterator<Item = &Seen> {
    joined.observations.iter().filter(|seen| seen.certain)
}

fn observation(seen: &Seen) -> Observation {
    let (row, sums) = (&seen.row, &seen.sums);
    let (node, agent, interface, interface_kind, reporter) = &row.point;
    let (handshake_seen, one_sided, direction_inferred) = row.flags;
    let ((client_ip, client_port), (server_ip, server_port)) =
        (seen.end(Side::Client), seen.end(Side::Server));
    Observation {
        node: node.clone(),
        agent: agent.clone(),
        interface: interface.clone(),
        interface_kind: word(InterfaceKind::from_number, InterfaceKind::as_str, *interface_kind),
        reporter: word(Reporter::from_number, Reporter::as_str, *reporter),
        primary: row.primary,
        local_primary: row.local_primary,
        certain: seen.certain,
        id: id(row.connection_id),
        id_kind: seen.id_kind().as_str().to_owned(),
        client_address: text(client_ip),
        client_port,
        server_address: text(server_ip),
        server_port,
        client_name: name_of(&row.client),
        server_name: name_of(&row.server),
        service_name: label(&row.service.0, &row.service.1),
        rows: sums.rows,
        first_seen_us: sums.packets_us.map(|(first, _)| first),
        last_seen_us: sums.packets_us.map(|(_, last)| last),
        handshake_seen,
        one_sided,
        direction_inferred,
        opened: sums.opened,
        joined: sums.joined,
        closed: sums.closed,
        sent: sums.sent,
        received: sums.received,
        latency: latencies(sums),
    }
}

fn latencies(sums: &Sums) -> Latencies {
    let mean =
        |(sum_us, count): (u64, u64)| (count > 0).then(|| sum_us as f64 / count as f64 / 1_000.0);
    Latencies {
        syn_to_synack_ms: mean(sums.syn_to_synack),
        synack_to_ack_ms: mean(sums.synack_to_ack),
        first_response_ms: mean(sums.first_response),
    }
}

/// As Wireshark shows the two sequence numbers, one after the other.
fn id(connection_id: u64) -> String {
    format!("{connection_id:016x}")
}

fn text(address: Ipv6Addr) -> String {
    address.to_canonical().to_string()
}

/// `namespace/name`, or the address of what has no name.
fn name_of(end: &EndColumns) -> String {
    if end.2.is_empty() { text(end.7) } else { label(&end.1, &end.2) }
}

fn label(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// The word of an enum's number; a column of them holds no other.
fn word<T>(of: fn(i32) -> Option<T>, word: fn(T) -> &'static str, number: i8) -> String {
    of(i32::from(number)).map(word).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
