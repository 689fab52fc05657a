//! The connections of one partition, each with what is known of it from all its observations: which one
//! is primary, where it was seen, and its names. A pure function of the partition's log, names apart.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hint::black_box;
use std::sync::Arc;

use flowtrail_schema::connection_id::client_isn;
use flowtrail_schema::{Endpoint, FlowRecord, IdKind, Reporter};
use foldhash::fast::RandomState;
use prometheus_client::metrics::counter::Counter;
use slotmap::{SlotMap, new_key_type};
use smallvec::SmallVec;

use crate::naming::{ConnectionNames, ResolvedWith};
use crate::points::Point;
use sighting::{Sighting, same_ends};

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

new_key_type! {
    /// A connection for as long as it is remembered: no other ever has the same.
    pub(crate) struct ConnectionKey;
}

/// What is known of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The one before it of those that are alike.
    older: Option<ConnectionKey>,
    server_isn: u32,
    first_seen_us: u64,
    last_seen_us: u64,
    /// The primary observation, once decided.
    pub(crate) primary: Option<Arc<Point>>,
    /// Where it was seen: most often on both sides.
    pub(crate) observations: SmallVec<[Observation; 2]>,
    /// Where its direction was inferred: the end that turned out to be the server.
    pub(crate) inferred_server: Option<Endpoint>,
    /// Its names, once resolved.
    pub(crate) names: Option<Arc<ConnectionNames>>,
    /// What its names were resolved with: until that changes, they stay.
    pub(crate) resolved_with: Option<ResolvedWith>,
}

/// A connection as one observation point shows it.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    pub(crate) point: Arc<Point>,
    pub(crate) reporter: Reporter,
    pub(crate) client: Endpoint,
    pub(crate) server: Endpoint,
}

/// A bounded table of connections; which one is forgotten depends on the log alone.
#[derive(Debug)]
pub(crate) struct Connections {
    /// Its order decides nothing; its hash is seeded anew each time, against those who choose keys.
    groups: HashMap<Shared, Group, RandomState>,
    connections: SlotMap<ConnectionKey, Connection>,
    /// Groups in about the order they were last touched: one that was touched since goes to the back
    /// when its turn comes.
    order: VecDeque<(Shared, u64)>,
    touches: u64,
    cap: usize,
    overflowed: Counter,
}

/// What all observations of a connection share, complete id or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shared {
    ClientIsn(u32),
    TupleHash(u64),
}

/// Connections that are alike in it.
#[derive(Clone, Copy, Debug)]
struct Group {
    newest: ConnectionKey,
    touched: u64,
}

impl Connections {
    /// A table of at most `cap` groups; what it must forget is counted in `overflowed`.
    pub(crate) fn new(cap: usize, overflowed: Counter) -> Self {
        Self {
            groups: HashMap::default(),
            connections: SlotMap::with_key(),
            order: VecDeque::new(),
            touches: 0,
            cap,
            overflowed,
        }
    }

    /// The connection that a record belongs to, with this observation noted.
    pub(crate) fn observe(
        &mut self,
        record: &FlowRecord,
        point: &Arc<Point>,
    ) -> (ConnectionKey, &mut Connection) {
        self.note(&Sighting::of(record, point))
    }

    /// Takes in what the table's rows of one observation tell.
    ///
    /// Restored from one row each, in the order of the rows' offsets, the connections are what they
    /// were when these rows were made. So they are if the rows of one connection id at one point are taken
    /// together (the earliest and the latest time, primary if one is, the latest names), in the order
    /// of their latest times, unless several connections of one client number were open at once.
    pub(crate) fn restore(&mut self, observation: Restored) {
        let (_, connection) = self.note(&Sighting::of_restored(&observation));
        let Restored { point, primary, names, inferred_server, .. } = observation;
        if primary && connection.primary.is_none() {
            connection.primary = Some(point);
        }
        connection.inferred_server = connection.inferred_server.or(inferred_server);
        if let Some(names) = names {
            connection.names = Some(match &connection.names {
                Some(known) => Arc::new(known.improved(&names)),
                None => names,
            });
        }
    }

    /// A connection that was observed before, if it is still remembered.
    pub(crate) fn get(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        self.connections.get_mut(key)
    }

    /// Reads of each connection where it lies. Memory answers many such reads in the time of one, but not
    /// those of work that needs the answer before it goes on.
    pub(crate) fn bring_near(&self, keys: impl Iterator<Item = ConnectionKey>) {
        let read = |key| {
            let names = self.connections.get(key)?.names.as_ref()?;
            Some(names.client.real.port)
        };
        black_box(keys.filter_map(read).fold(0, |all, one| all ^ one));
    }

    /// The same for those that records may be of.
    pub(crate) fn bring_near_alike(&self, records: &[FlowRecord]) {
        let shared = records.iter().map(|record| Shared::by(record.connection_id, record.id_kind));
        let newest: Vec<ConnectionKey> =
            shared.filter_map(|shared| Some(self.groups.get(&shared)?.newest)).collect();
        self.bring_near(newest.into_iter());
    }

    fn note(&mut self, sighting: &Sighting<'_>) -> (ConnectionKey, &mut Connection) {
        self.touches += 1;
        let shared = Shared::by(sighting.connection_id, sighting.id_kind);
        let found = match self.groups.get_mut(&shared) {
            Some(group) => {
                group.touched = self.touches;
                let newest = group.newest;
                self.find(newest, sighting).ok_or(Some(newest))
            }
            None => Err(None),
        };
        let key = found.unwrap_or_else(|older| self.add(shared, older, sighting));
        let connection = &mut self.connections[key];
        connection.note(sighting, &self.overflowed);
        (key, connection)
    }

    /// Those that are alike, the newest first.
    fn alike(&self, newest: ConnectionKey) -> impl Iterator<Item = (ConnectionKey, &Connection)> {
        let at = |key| self.connections.get(key).map(|connection| (key, connection));
        std::iter::successors(at(newest), move |(_, connection)| connection.older.and_then(at))
    }

    /// Of those that are alike, the one that something seen is of. A partial id (server's half 0) goes
    /// with a complete one unless the same interface shows both with different ends.
    fn find(&self, newest: ConnectionKey, sighting: &Sighting<'_>) -> Option<ConnectionKey> {
        let isn = sighting.server_isn();
        let fits = |connection: &Connection| connection.overlaps(sighting);
        let exact = |connection: &Connection| connection.server_isn == isn;
        let half = |connection: &Connection| isn == 0 || connection.server_isn == 0;
        let found = self.alike(newest).find(|(_, connection)| {
            fits(connection) && exact(connection) && (isn != 0 || !connection.differs(sighting))
        });
        let found = found.or_else(|| {
            self.alike(newest).find(|(_, connection)| {
                sighting.id_kind != IdKind::TupleHash
                    && fits(connection)
                    && half(connection)
                    && !connection.differs(sighting)
            })
        });
        found.map(|(key, _)| key)
    }

    /// A new connection, beside those that are alike.
    fn add(
        &mut self,
        shared: Shared,
        older: Option<ConnectionKey>,
        sighting: &Sighting<'_>,
    ) -> ConnectionKey {
        match older {
            Some(newest) => self.make_room_beside(newest),
            None => {
                self.order.push_back((shared, self.touches));
                while self.groups.len() >= self.cap {
                    self.forget_oldest();
                }
            }
        }
        let key = self.connections.insert(Connection::new(older, sighting));
        self.groups.insert(shared, Group { newest: key, touched: self.touches });
        key
    }

    fn make_room_beside(&mut self, newest: ConnectionKey) {
        let kept = self.alike(newest).nth(MAX_ALIKE - 2);
        let beyond = kept.and_then(|(key, connection)| Some((key, connection.older?)));
        if let Some((last_kept, first_seen)) = beyond {
            self.connections[last_kept].older = None;
            self.connections.remove(first_seen);
            self.overflowed.inc();
        }
    }

    fn forget_oldest(&mut self) {
        while let Some((shared, touched)) = self.order.pop_front() {
            let Entry::Occupied(group) = self.groups.entry(shared) else { continue };
            if group.get().touched > touched {
                self.order.push_back((shared, group.get().touched));
                continue;
            }
            let mut next = Some(group.remove().newest);
            while let Some(connection) = next.and_then(|key| self.connections.remove(key)) {
                next = connection.older;
            }
            self.overflowed.inc();
            return;
        }
    }
}

impl Shared {
    fn by(connection_id: u64, id_kind: IdKind) -> Self {
        match id_kind {
            IdKind::Complete | IdKind::Partial => Self::ClientIsn(client_isn(connection_id)),
            IdKind::TupleHash => Self::TupleHash(connection_id),
        }
    }
}

impl Connection {
    fn new(older: Option<ConnectionKey>, sighting: &Sighting<'_>) -> Self {
        Self {
            older,
            server_isn: sighting.server_isn(),
            first_seen_us: sighting.first_seen_us,
            last_seen_us: sighting.last_seen_us,
            primary: None,
            observations: SmallVec::new(),
            inferred_server: None,
            names: None,
            resolved_with: None,
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

    fn note(&mut self, sighting: &Sighting<'_>, overflowed: &Counter) {
        self.server_isn = self.server_isn.max(sighting.server_isn());
        self.first_seen_us = self.first_seen_us.min(sighting.first_seen_us);
        self.last_seen_us = self.last_seen_us.max(sighting.last_seen_us);
        let Sighting { point, reporter, client, server, .. } = *sighting;
        // What is forwarded out of the interface that it came in by shows two pairs of ends there.
        let here = |seen: &Observation| {
            same_ends((seen.client, seen.server), (client, server)) && seen.point.is(point)
        };
        if self.observations.iter().any(here) {
            return;
        }
        if self.observations.len() >= MAX_POINTS {
            overflowed.inc();
            return;
        }
        self.observations.push(Observation { point: Arc::clone(point), reporter, client, server });
    }

    fn overlaps(&self, sighting: &Sighting<'_>) -> bool {
        sighting.first_seen_us <= self.last_seen_us.saturating_add(OVERLAP_US)
            && self.first_seen_us <= sighting.last_seen_us.saturating_add(OVERLAP_US)
    }

    /// The same interface showed other ends.
    fn differs(&self, sighting: &Sighting<'_>) -> bool {
        let shown = (sighting.client, sighting.server);
        self.observations.iter().any(|seen| {
            !same_ends((seen.client, seen.server), shown) && seen.point.is(sighting.point)
        })
    }
}
