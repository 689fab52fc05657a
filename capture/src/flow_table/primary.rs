//! Connections: which flows of different interfaces are observations of one, and which of them is the
//! primary one.

use std::collections::HashSet;
use std::net::IpAddr;

use flowtrail_schema::{IdKind, InterfaceKind, Reporter};
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
        let decided = flow.identity.choice != Choice::Open
            || (kind == IdKind::Complete
                && self.is_decided((flow.id_of(IdKind::Partial), IdKind::Partial)));
        let connection =
            self.connections.entry(key).or_insert(Connection { head: NONE, decided: false });
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
    /// its old id holds for the new one.
    pub(super) fn identify(&mut self, slots: &mut Slots, slot: Slot) -> bool {
        let old = key_of(slots, slot);
        let decided = self.is_decided(old);
        self.detach(slots, slot);
        let free = self.attach(slots, slot);
        if let Some(connection) = self.connections.get_mut(&key_of(slots, slot)) {
            connection.decided |= decided;
        }
        free
    }

    /// Makes the choice for a flow, if it is not made.
    pub(super) fn choose(
        &mut self,
        slots: &mut Slots,
        slot: Slot,
        points: &Points,
        node_addresses: &HashSet<IpAddr>,
    ) {
        if slots[slot].identity.choice != Choice::Open {
            return;
        }
        let key = key_of(slots, slot);
        let reporter =
            |slots: &Slots, head, slot| reporter(slots, head, slot, points, node_addresses);
        let mut head = slot;
        if let Some(connection) = self.connections.get_mut(&key) {
            head = connection.head;
            if !std::mem::replace(&mut connection.decided, true) {
                let undecided = siblings(slots, head)
                    .filter(|slot| slots[*slot].identity.choice == Choice::Open);
                let best = undecided.min_by_key(|slot| {
                    let flow = &slots[*slot];
                    let kind = points.interface(flow.key.point).map(|interface| interface.kind);
                    let place = place(kind, reporter(slots, head, *slot));
                    (flow.one_sided(), place, flow.key.point)
                });
                if let Some(best) = best {
                    slots[best].identity.reporter = reporter(slots, head, best);
                    slots[best].identity.choice = Choice::Primary;
                }
            }
        }
        if slots[slot].identity.choice == Choice::Open {
            slots[slot].identity.reporter = reporter(slots, head, slot);
            slots[slot].identity.choice = Choice::Secondary;
        }
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

fn key_of(slots: &Slots, slot: Slot) -> Key {
    let Identity { id, id_kind, .. } = slots[slot].identity;
    (id, id_kind)
}

fn siblings(slots: &Slots, head: Slot) -> impl Iterator<Item = Slot> {
    std::iter::successors(some(head), |slot| some(slots[*slot].sibling))
}

/// The order of preference: pods before uplinks, and the client's side first.
fn place(kind: Option<InterfaceKind>, reporter: Reporter) -> u8 {
    match (kind, reporter) {
        (Some(InterfaceKind::Pod), Reporter::Client) => 0,
        (Some(InterfaceKind::Pod), Reporter::Server) => 1,
        (Some(InterfaceKind::Uplink), Reporter::Client) => 2,
        (Some(InterfaceKind::Uplink), Reporter::Server) => 3,
        _ => 4,
    }
}

/// Which side of its connection an observation's interface leads to.
fn reporter(
    slots: &Slots,
    head: Slot,
    slot: Slot,
    points: &Points,
    node_addresses: &HashSet<IpAddr>,
) -> Reporter {
    let flow = &slots[slot];
    let Identity { client, inside, .. } = flow.identity;
    let kind = |slot: Slot| points.interface(slots[slot].key.point).map(|interface| interface.kind);
    let is_own = |end: End| node_addresses.contains(&flow.key.endpoint(end).ip);
    match kind(slot) {
        Some(InterfaceKind::Pod) => match inside {
            Some(end) if end == client => Reporter::Client,
            Some(_) => Reporter::Server,
            None => Reporter::Transit,
        },
        // A connection that also passes a pod's interface is the pod's, masqueraded or forwarded.
        Some(InterfaceKind::Uplink)
            if siblings(slots, head).any(|slot| kind(slot) == Some(InterfaceKind::Pod)) =>
        {
            Reporter::Transit
        }
        Some(InterfaceKind::Uplink) if is_own(client) => Reporter::Client,
        Some(InterfaceKind::Uplink) if is_own(client.other()) => Reporter::Server,
        _ => Reporter::Transit,
    }
}
