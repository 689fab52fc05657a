//! The connections of one partition, each with what is known of it from all its observations: which one
//! is primary, where it was seen, and its names. A pure function of the partition's log, names apart.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use flowtrail_schema::connection_id::client_isn;
use flowtrail_schema::{Endpoint, FlowRecord, IdKind, Interface, Reporter};
use foldhash::fast::RandomState;
use prometheus_client::metrics::counter::Counter;

use crate::naming::ConnectionNames;
use sighting::{Sighting, ends};

pub(crate) use sighting::Restored;

mod sighting;

/// Connections remembered for each partition, at most: with four partitions a million, as many as
/// a large cluster opens in a few minutes. Beyond it the least recently seen is forgotten and counted: its
/// next record is decided and named anew.
pub(crate) const MAX_CONNECTIONS: usize = 250_000;

/// Connections kept under one client sequence number, at most: more is not chance (they are 32 bits)
/// but someone choosing them. Beyond it the one seen first is forgotten and counted.
const MAX_ALIKE: usize = 8;

/// Observation points remembered for a connection, at most: pod, host and uplink on two nodes make
/// six. Others are not joined, and counted.
const MAX_POINTS: usize = 12;

/// How far apart two observations may be and still overlap: an open connection emits a record at least
/// every minute, and an agent may miss one.
const OVERLAP_US: u64 = 180_000_000;

/// What is known of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    server_isn: u32,
    first_seen_us: u64,
    last_seen_us: u64,
    /// The primary observation, once decided.
    pub(crate) primary: Option<Point>,
    /// Where it was seen.
    pub(crate) observations: Vec<Observation>,
    /// Where its direction was inferred: the end that turned out to be the server.
    pub(crate) inferred_server: Option<Endpoint>,
    /// Its names, once resolved.
    pub(crate) names: Option<Arc<ConnectionNames>>,
    /// How many observations its names were settled with: until there are more, they stay.
    pub(crate) settled_with: Option<usize>,
}

/// An observation point: one interface of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) agent: Arc<str>,
    pub(crate) interface: Arc<Interface>,
}

/// A connection as one observation point shows it.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    pub(crate) point: Point,
    pub(crate) node: Arc<str>,
    pub(crate) reporter: Reporter,
    pub(crate) client: Endpoint,
    pub(crate) server: Endpoint,
}

/// A bounded table of connections; which one is forgotten depends on the log alone.
#[derive(Debug)]
pub(crate) struct Connections {
    /// Its order decides nothing; its hash is seeded anew each time, against those who choose keys.
    groups: HashMap<Key, Group, RandomState>,
    /// Keys in about the order they were last touched: a key whose group was touched since goes
    /// to the back when its turn comes.
    order: VecDeque<(Key, u64)>,
    touches: u64,
    cap: usize,
    overflowed: Counter,
}

/// What all observations of a connection share, complete id or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    ClientIsn(u32),
    TupleHash(u64),
}

#[derive(Debug, Default)]
struct Group {
    connections: Vec<Connection>,
    touched: u64,
}

impl Connections {
    /// A table of at most `cap` groups; what it must forget is counted in `overflowed`.
    pub(crate) fn new(cap: usize, overflowed: Counter) -> Self {
        Self { groups: HashMap::default(), order: VecDeque::new(), touches: 0, cap, overflowed }
    }

    /// The connection that a record belongs to, with this observation noted.
    pub(crate) fn observe(
        &mut self,
        record: &FlowRecord,
        agent: &Arc<str>,
        node: &Arc<str>,
    ) -> &mut Connection {
        self.note(&Sighting::of(record, agent), node)
    }

    /// Takes in what the table's rows of one observation tell.
    ///
    /// Restored from one row each, in the order of the rows' offsets, the connections are what they
    /// were when these rows were made. So they are if the rows of one connection id at one point are taken
    /// together (the earliest and the latest time, primary if one is, the latest names), in the order
    /// of their latest times, unless several connections of one client number were open at once.
    pub(crate) fn restore(&mut self, observation: Restored) {
        let connection = self.note(&Sighting::of_restored(&observation), &observation.node);
        let Restored { agent, interface, primary, names, inferred_server, .. } = observation;
        if primary && connection.primary.is_none() {
            connection.primary = Some(Point { agent, interface });
        }
        connection.inferred_server = connection.inferred_server.or(inferred_server);
        if let Some(names) = names {
            connection.names = Some(match &connection.names {
                Some(known) => Arc::new(known.improved(ConnectionNames::clone(&names))),
                None => names,
            });
        }
    }

    /// The connection of a record that was observed before, if it is still remembered.
    pub(crate) fn find(
        &mut self,
        record: &FlowRecord,
        agent: &Arc<str>,
    ) -> Option<&mut Connection> {
        let sighting = Sighting::of(record, agent);
        let group = self.groups.get_mut(&Key::of(&sighting))?;
        let index = group.find(&sighting)?;
        group.connections.get_mut(index)
    }

    fn note(&mut self, sighting: &Sighting<'_>, node: &Arc<str>) -> &mut Connection {
        let key = Key::of(sighting);
        self.touches += 1;
        if !self.groups.contains_key(&key) {
            self.order.push_back((key, self.touches));
            while self.groups.len() >= self.cap {
                self.forget_oldest();
            }
        }
        let group = self.groups.entry(key).or_default();
        group.touched = self.touches;
        let index = match group.find(sighting) {
            Some(index) => index,
            None => {
                if group.connections.len() >= MAX_ALIKE {
                    group.connections.remove(0);
                    self.overflowed.inc();
                }
                group.connections.push(Connection::new(sighting));
                group.connections.len() - 1
            }
        };
        let connection = &mut group.connections[index];
        connection.note(sighting, node, &self.overflowed);
        connection
    }

    fn forget_oldest(&mut self) {
        while let Some((key, touched)) = self.order.pop_front() {
            match self.groups.get(&key) {
                Some(group) if group.touched > touched => {
                    self.order.push_back((key, group.touched))
                }
                Some(_) => {
                    self.groups.remove(&key);
                    self.overflowed.inc();
                    return;
                }
                None => {}
            }
        }
    }
}

impl Key {
    fn of(sighting: &Sighting<'_>) -> Self {
        match sighting.id_kind {
            IdKind::Complete | IdKind::Partial => {
                Self::ClientIsn(client_isn(sighting.connection_id))
            }
            IdKind::TupleHash => Self::TupleHash(sighting.connection_id),
        }
    }
}

impl Group {
    /// The connection that something seen is of. A partial id (server's half 0) goes with a complete
    /// one unless the same interface shows both with different ends.
    fn find(&self, sighting: &Sighting<'_>) -> Option<usize> {
        let isn = sighting.server_isn();
        let fits = |connection: &Connection| connection.overlaps(sighting);
        let exact = |connection: &Connection| connection.server_isn == isn;
        let half = |connection: &Connection| isn == 0 || connection.server_isn == 0;
        let all = || self.connections.iter().enumerate().rev();
        let found = all().find(|(_, connection)| {
            fits(connection) && exact(connection) && (isn != 0 || !connection.differs(sighting))
        });
        let found = found.or_else(|| {
            all().find(|(_, connection)| {
                sighting.id_kind != IdKind::TupleHash
                    && fits(connection)
                    && half(connection)
                    && !connection.differs(sighting)
            })
        });
        found.map(|(index, _)| index)
    }
}

impl Connection {
    fn new(sighting: &Sighting<'_>) -> Self {
        Self {
            server_isn: sighting.server_isn(),
            first_seen_us: sighting.first_seen_us,
            last_seen_us: sighting.last_seen_us,
            primary: None,
            observations: Vec::with_capacity(1),
            inferred_server: None,
            names: None,
            settled_with: None,
        }
    }

    /// Time of its earliest packet so far, microseconds since the epoch.
    pub(crate) fn first_seen_us(&self) -> u64 {
        self.first_seen_us
    }

    /// Both halves of its id are known.
    pub(crate) fn is_complete(&self) -> bool {
        self.server_isn != 0
    }

    fn note(&mut self, sighting: &Sighting<'_>, node: &Arc<str>, overflowed: &Counter) {
        self.server_isn = self.server_isn.max(sighting.server_isn());
        self.first_seen_us = self.first_seen_us.min(sighting.first_seen_us);
        self.last_seen_us = self.last_seen_us.max(sighting.last_seen_us);
        let Sighting { agent, interface, reporter, client, server, .. } = *sighting;
        // What is forwarded out of the interface that it came in by shows two pairs of ends there.
        let here = |seen: &Observation| {
            seen.point.is(interface, agent)
                && ends(seen.client, seen.server) == ends(client, server)
        };
        if self.observations.iter().any(here) {
            return;
        }
        if self.observations.len() >= MAX_POINTS {
            overflowed.inc();
            return;
        }
        let point = Point { agent: Arc::clone(agent), interface: Arc::clone(interface) };
        self.observations.push(Observation {
            point,
            node: Arc::clone(node),
            reporter,
            client,
            server,
        });
    }

    fn overlaps(&self, sighting: &Sighting<'_>) -> bool {
        sighting.first_seen_us <= self.last_seen_us.saturating_add(OVERLAP_US)
            && self.first_seen_us <= sighting.last_seen_us.saturating_add(OVERLAP_US)
    }

    /// The same interface showed other ends.
    fn differs(&self, sighting: &Sighting<'_>) -> bool {
        self.observations.iter().any(|seen| {
            seen.point.is(sighting.interface, sighting.agent)
                && ends(seen.client, seen.server) != ends(sighting.client, sighting.server)
        })
    }
}

impl Point {
    /// Whether this is an interface of an agent.
    pub(crate) fn is(&self, interface: &Interface, agent: &str) -> bool {
        let same_agent = std::ptr::eq(&*self.agent, agent) || *self.agent == *agent;
        let same_interface =
            || std::ptr::eq(&*self.interface, interface) || self.interface.name == interface.name;
        same_agent && same_interface()
    }
}
