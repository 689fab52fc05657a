//! Connections: which flows of different interfaces are observations of one, and which of them is the
//! primary one.

use std::collections::HashSet;
use std::net::IpAddr;

use flowtrail_schema::{IdKind, InterfaceKind, Reporter, connection_id};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::flow::{Choice, Identity, Phase};
use super::key::End;
use super::points::{PointId, Points};
use super::slots::{NONE, Slot, Slots, some};

/// A connection's id and what it is made of. All three kinds join observations: a failed attempt seen
/// at two interfaces has a partial id at both, a connection joined midstream a hash.
type Key = (u64, IdKind);

#[derive(Clone, Copy, Debug)]
struct Connection {
    /// First of its observations; each names the next.
    head: Slot,
    /// One was chosen, whether it still lives or not: the choice is for the connection's life.
    decided: bool,
    /// Of a partial id: the complete one that an observation has found it to be. Others may be on
    /// their way to it.
    completed: Option<u64>,
}

/// The connections that have live observations.
#[derive(Debug, Default)]
pub(super) struct Registry {
    connections: HashMap<Key, Connection, RandomState>,
}

impl Registry {
    /// Makes a flow an observation of the connection it belongs to. False if the id it would have had
    /// is in use by another tuple on the same interface: then it has a hash of its tuple for id.
    pub(super) fn attach(&mut self, slots: &mut Slots, slot: Slot) -> bool {
        let flow = &slots[slot];
        let client = flow.identity.isn[flow.identity.client];
        let mut kind = match (client, flow.identity.isn[flow.server()]) {
            (Some(_), Some(_)) => IdKind::Complete,
            (Some(_), None) => IdKind::Partial,
            (None, _) => IdKind::TupleHash,
        };
        let wanted = (flow.id_of(kind), kind);
        let free = !self.is_used_at(slots, wanted, flow.key.point);
        if !free {
            kind = IdKind::TupleHash;
        }
        let key = (flow.id_of(kind), kind);
        let decided = flow.identity.choice != Choice::Open;
        if let Some(partial) = partial_of(key)
            && let Some(connection) = self.connections.get_mut(&partial)
        {
            connection.completed = Some(key.0);
        }
        let connection = self.connections.entry(key).or_insert(NEW);
        connection.decided |= decided;
        let head = std::mem::replace(&mut connection.head, slot);
        let mut others = siblings(slots, head);
        let has_primary = others.any(|other| slots[other].identity.choice == Choice::Primary);
        drop(others);
        let flow = &mut slots[slot];
        (flow.identity.id, flow.identity.id_kind) = key;
        flow.sibling = head;
        // Two that were chosen while nobody could know that they are one connection.
        if has_primary && flow.identity.choice == Choice::Primary {
            flow.identity.choice = Choice::Secondary;
        }
        free
    }

    /// Ends that a flow is an observation of its connection.
    pub(super) fn detach(&mut self, slots: &mut Slots, slot: Slot) {
        let key = key_of(slots, slot);
        let next = std::mem::replace(&mut slots[slot].sibling, NONE);
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let head = connection.head;
        if head == slot {
            connection.head = next;
        } else {
            let previous = siblings(slots, head).find(|other| slots[*other].sibling == slot);
            if let Some(previous) = previous {
                slots[previous].sibling = next;
            }
        }
        if connection.head == NONE {
            self.connections.remove(&key);
        }
    }

    /// Gives a flow the id that follows from the sequence numbers it knows now. The choice made under
    /// its old id holds for the new one. While the old one lives, [`choose`](Self::choose) sees to that.
    pub(super) fn identify(&mut self, slots: &mut Slots, slot: Slot) -> bool {
        let old = key_of(slots, slot);
        let decided = self.is_decided(old);
        self.detach(slots, slot);
        let decided = decided && !self.connections.contains_key(&old);
        let free = self.attach(slots, slot);
        if let Some(connection) = self.connections.get_mut(&key_of(slots, slot)) {
            connection.decided |= decided;
        }
        free
    }

    /// Makes the choice for a flow, if it is not made.
    pub(super) fn choose(&mut self, slots: &mut Slots, slot: Slot, surroundings: Surroundings<'_>) {
        if slots[slot].identity.choice != Choice::Open {
            return;
        }
        let keys = self.keys_of_same(slots, key_of(slots, slot));
        let same = keys.map(|key| *key.and_then(|key| self.connections.get(&key)).unwrap_or(&NEW));
        let heads = same.map(|connection| connection.head);
        if !same.iter().any(|connection| connection.decided) {
            let best = observations(slots, heads)
                .filter(|slot| slots[*slot].identity.choice == Choice::Open)
                .min_by_key(|slot| surroundings.preference(slots, heads, *slot));
            if let Some(best) = best {
                slots[best].identity.reporter = surroundings.reporter(slots, heads, best);
                slots[best].identity.choice = Choice::Primary;
            }
        }
        for key in keys.iter().flatten() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.decided = true;
            }
        }
        if slots[slot].identity.choice == Choice::Open {
            slots[slot].identity.reporter = surroundings.reporter(slots, heads, slot);
            slots[slot].identity.choice = Choice::Secondary;
        }
    }

    /// A connection's keys: while some of its observations have the complete id and others have only
    /// half of it yet, both. Half an id proves little: whoever scans may give all its connections the
    /// same. Where an interface has a tuple of each, they are two.
    fn keys_of_same(&self, slots: &Slots, key: Key) -> [Option<Key>; 2] {
        let other = match key.1 {
            IdKind::Complete => partial_of(key).filter(|partial| {
                self.connections.get(partial).is_some_and(|it| it.completed == Some(key.0))
            }),
            IdKind::Partial => self
                .connections
                .get(&key)
                .and_then(|connection| connection.completed)
                .map(|id| (id, IdKind::Complete)),
            IdKind::TupleHash => None,
        };
        [Some(key), other.filter(|other| !self.meet(slots, key, *other))]
    }

    /// Whether an interface has observations of both connections, with different tuples.
    fn meet(&self, slots: &Slots, one: Key, other: Key) -> bool {
        let of = |key| self.connections.get(&key).map_or(NONE, |connection| connection.head);
        siblings(slots, of(one)).any(|a| {
            let a = &slots[a].key;
            siblings(slots, of(other)).any(|b| slots[b].key.point == a.point && slots[b].key != *a)
        })
    }

    /// Whether no connection is known.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    fn is_used_at(&self, slots: &Slots, key: Key, point: PointId) -> bool {
        self.connections.get(&key).is_some_and(|connection| {
            siblings(slots, connection.head)
                .any(|slot| slots[slot].key.point == point && slots[slot].phase != Phase::Dead)
        })
    }

    fn is_decided(&self, key: Key) -> bool {
        self.connections.get(&key).is_some_and(|connection| connection.decided)
    }
}

const NEW: Connection = Connection { head: NONE, decided: false, completed: None };

/// The partial id that a complete one was, or would have been.
fn partial_of((id, kind): Key) -> Option<Key> {
    let partial = connection_id::from_isns(connection_id::client_isn(id), 0);
    (kind == IdKind::Complete).then_some((partial, IdKind::Partial))
}

fn key_of(slots: &Slots, slot: Slot) -> Key {
    let Identity { id, id_kind, .. } = slots[slot].identity;
    (id, id_kind)
}

fn siblings(slots: &Slots, head: Slot) -> impl Iterator<Item = Slot> {
    std::iter::successors(some(head), |slot| some(slots[*slot].sibling))
}

fn observations(slots: &Slots, heads: [Slot; 2]) -> impl Iterator<Item = Slot> {
    heads.into_iter().flat_map(|head| siblings(slots, head))
}

/// What the choice depends on besides the observations.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) points: &'a Points,
    pub(super) node_addresses: &'a HashSet<IpAddr>,
}

impl Surroundings<'_> {
    /// The order of preference, least first: both directions, then pods before uplinks, and of either
    /// the client's side.
    fn preference(self, slots: &Slots, heads: [Slot; 2], slot: Slot) -> (bool, u8, PointId) {
        let place = match (self.kind(slots, slot), self.reporter(slots, heads, slot)) {
            (Some(InterfaceKind::Pod), Reporter::Client) => 0,
            (Some(InterfaceKind::Pod), Reporter::Server) => 1,
            (Some(InterfaceKind::Uplink), Reporter::Client) => 2,
            (Some(InterfaceKind::Uplink), Reporter::Server) => 3,
            _ => 4,
        };
        (slots[slot].one_sided(), place, slots[slot].key.point)
    }

    /// Which side of its connection an observation's interface leads to.
    fn reporter(self, slots: &Slots, heads: [Slot; 2], slot: Slot) -> Reporter {
        let flow = &slots[slot];
        let Identity { client, inside, .. } = flow.identity;
        let is_own = |end: End| self.node_addresses.contains(&flow.key.endpoint(end).ip);
        match self.kind(slots, slot) {
            Some(InterfaceKind::Pod) => match inside {
                Some(end) if end == client => Reporter::Client,
                Some(_) => Reporter::Server,
                None => Reporter::Transit,
            },
            // What also passes a pod's interface is the pod's, masqueraded or forwarded.
            Some(InterfaceKind::Uplink)
                if observations(slots, heads)
                    .any(|slot| self.kind(slots, slot) == Some(InterfaceKind::Pod)) =>
            {
                Reporter::Transit
            }
            Some(InterfaceKind::Uplink) if is_own(client) => Reporter::Client,
            Some(InterfaceKind::Uplink) if is_own(client.other()) => Reporter::Server,
            _ => Reporter::Transit,
        }
    }

    fn kind(self, slots: &Slots, slot: Slot) -> Option<InterfaceKind> {
        self.points.interface(slots[slot].key.point).map(|interface| interface.kind)
    }
}
