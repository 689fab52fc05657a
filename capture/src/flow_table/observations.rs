//! Observations: which flows of different interfaces are of one connection, and which of them is the
//! primary one. The workers' tables share them, for a NAT's two sides come to different workers.

use flowtrail_schema::{IdKind, InterfaceKind, Reporter, connection_id};
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher as _;

use super::flow::Identity;
use super::key::{End, FlowKey};
use super::points::{PointId, Points};
use super::slab::{NONE, Slab, Slot, some};

/// An observation, as long as its flow lives or records of it wait.
pub(super) type ObservationId = Slot;

/// A connection's id and what it is made of. All three kinds join observations: a failed attempt seen
/// at two interfaces has a partial id at both, a connection joined midstream a hash.
type ConnectionKey = (u64, IdKind);

/// The agent's choice among its observations of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// No record has left yet.
    Open,
    /// This observation is the primary one.
    Primary,
    /// Another is.
    Secondary,
}

/// The choice, and with it what the interface is to the connection: both for the connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) choice: Choice,
    pub(super) reporter: Reporter,
}

impl Standing {
    pub(super) const OPEN: Self = Self { choice: Choice::Open, reporter: Reporter::Transit };
}

/// What the choice depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// The end that the interface leads to; `Transit` where packets do not tell.
    pub(super) leads_to: Reporter,
    /// The end whose address and socket are the node's own, for an uplink.
    pub(super) own: Reporter,
    pub(super) one_sided: bool,
}

/// One observation. Twenty bytes, for there is one for every flow.
#[derive(Clone, Copy, Debug)]
struct Observation {
    /// The two halves of the connection's id. Of a partial id the server's half is what another
    /// observation has found it to be, if `COMPLETED`.
    client_half: u32,
    server_half: u32,
    /// Another observation of the same connection.
    next: Slot,
    point: PointId,
    /// Records that wait for the choice.
    waiting: u16,
    bits: Bits,
}

/// Four enums of two bits each, and some flags.
#[derive(Clone, Copy, Debug)]
struct Bits(u16);

const KIND: u16 = 0;
const CHOICE: u16 = 2;
const REPORTER: u16 = 4;
const LEADS_TO: u16 = 6;
const OWN: u16 = 8;
const ONE_SIDED: u16 = 1 << 10;
/// One was chosen, whether it still lives or not: the choice is for the connection's life.
const DECIDED: u16 = 1 << 11;
const COMPLETED: u16 = 1 << 12;
/// Its flow is gone; only records wait, and it is in no connection's list.
const RETIRED: u16 = 1 << 13;

impl Bits {
    fn get(self, shift: u16) -> u16 {
        self.0 >> shift & 0b11
    }

    fn set(&mut self, shift: u16, value: u16) {
        self.0 = self.0 & !(0b11 << shift) | value << shift;
    }

    fn is(self, flag: u16) -> bool {
        self.0 & flag != 0
    }

    fn put(&mut self, flag: u16, value: bool) {
        self.0 = if value { self.0 | flag } else { self.0 & !flag };
    }

    fn reporter(self, shift: u16) -> Reporter {
        Reporter::from_number(self.get(shift).into()).unwrap_or(Reporter::Transit)
    }

    fn set_reporter(&mut self, shift: u16, reporter: Reporter) {
        self.set(shift, reporter.number() as u16);
    }
}

impl Observation {
    fn kind(&self) -> IdKind {
        IdKind::from_number(self.bits.get(KIND).into()).unwrap_or(IdKind::TupleHash)
    }

    fn key(&self) -> ConnectionKey {
        let kind = self.kind();
        let server_half = if kind == IdKind::Partial { 0 } else { self.server_half };
        (connection_id::from_isns(self.client_half, server_half), kind)
    }

    fn set_key(&mut self, (id, kind): ConnectionKey) {
        self.client_half = connection_id::client_isn(id);
        self.server_half = id as u32;
        self.bits.set(KIND, kind.number() as u16);
        self.bits.put(COMPLETED, false);
    }

    /// Whether two tuples of one id cannot be of one connection: they are on the same interface, and
    /// go the same way there.
    fn is_apart_from(&self, other: &Self) -> bool {
        self.point == other.point && !self.is_way_back_of(other)
    }

    /// Whether one tuple's connection comes in where the other's goes out: the node translates it and
    /// sends it back, as with a NodePort whose pod is elsewhere, or a pod that calls its own Service.
    fn is_way_back_of(&self, other: &Self) -> bool {
        let ways = [self, other].map(|it| it.bits.reporter(LEADS_TO));
        self.point == other.point
            && matches!(
                ways,
                [Reporter::Client, Reporter::Server] | [Reporter::Server, Reporter::Client]
            )
    }

    fn choice(&self) -> Choice {
        match self.bits.get(CHOICE) {
            0 => Choice::Open,
            1 => Choice::Primary,
            _ => Choice::Secondary,
        }
    }

    fn set_choice(&mut self, choice: Choice) {
        self.bits.set(CHOICE, choice as u16);
    }
}

/// All observations of the connections that have live ones.
#[derive(Debug, Default)]
pub(super) struct Observations {
    slab: Slab<Observation>,
    free: Option<Slot>,
    /// The first observation of each connection; each names the next.
    heads: HashTable<Slot>,
    hasher: RandomState,
}

impl Observations {
    /// Adds the observation of a flow. False if the id it would have had is in use by another tuple on
    /// the same interface: then it has a hash of its tuple for id.
    pub(super) fn attach(
        &mut self,
        flow: &FlowKey,
        identity: &Identity,
        standing: Standing,
        facts: Facts,
    ) -> (ObservationId, bool) {
        let mut bits = Bits(0);
        bits.set(CHOICE, standing.choice as u16);
        bits.set_reporter(REPORTER, standing.reporter);
        let observation = Observation {
            client_half: 0,
            server_half: 0,
            next: NONE,
            point: flow.point,
            waiting: 0,
            bits,
        };
        let slot = match self.free {
            Some(slot) => {
                self.free = some(self.slab[slot].next);
                self.slab[slot] = observation;
                slot
            }
            None => self.slab.push(observation),
        };
        self.set_facts(slot, facts);
        let free = self.join(slot, flow, identity);
        (slot, free)
    }

    /// Gives an observation the id that follows from the sequence numbers known now. The choice made
    /// under its old id holds for the new one. While the old one lives, [`choose`](Self::choose) sees
    /// to that. False as for [`attach`](Self::attach).
    pub(super) fn identify(&mut self, slot: Slot, flow: &FlowKey, identity: &Identity) -> bool {
        let old = self.slab[slot].key();
        self.leave(slot);
        if self.head(old).is_some() {
            self.slab[slot].bits.put(DECIDED, false);
        }
        self.join(slot, flow, identity)
    }

    pub(super) fn set_facts(&mut self, slot: Slot, facts: Facts) {
        let bits = &mut self.slab[slot].bits;
        bits.set_reporter(LEADS_TO, facts.leads_to);
        bits.set_reporter(OWN, facts.own);
        bits.put(ONE_SIDED, facts.one_sided);
    }

    /// The connection's id, and what it is made of.
    pub(super) fn id(&self, slot: Slot) -> (u64, IdKind) {
        self.slab[slot].key()
    }

    pub(super) fn standing(&self, slot: Slot) -> Standing {
        let observation = &self.slab[slot];
        Standing { choice: observation.choice(), reporter: observation.bits.reporter(REPORTER) }
    }

    pub(super) fn point(&self, slot: Slot) -> PointId {
        self.slab[slot].point
    }

    /// One more record waits for the choice.
    pub(super) fn wait(&mut self, slot: Slot) {
        self.slab[slot].waiting += 1;
    }

    /// A record that waited has left.
    pub(super) fn waited(&mut self, slot: Slot, points: &mut Points) {
        let observation = &mut self.slab[slot];
        observation.waiting -= 1;
        if observation.waiting == 0 && observation.bits.is(RETIRED) {
            self.forget(slot, points);
        }
    }

    /// The flow is gone: the choice is made for it, and what comes later is not of its connection. It is
    /// known until its records have left.
    pub(super) fn retire(&mut self, slot: Slot, points: &mut Points) {
        self.choose(slot, points);
        self.leave(slot);
        let observation = &mut self.slab[slot];
        observation.bits.put(RETIRED, true);
        if observation.waiting == 0 {
            self.forget(slot, points);
        }
    }

    fn forget(&mut self, slot: Slot, points: &mut Points) {
        points.release(self.slab[slot].point);
        self.slab[slot].next = self.free.unwrap_or(NONE);
        self.free = Some(slot);
    }

    /// Makes an observation one of the connection that its sequence numbers tell.
    fn join(&mut self, slot: Slot, flow: &FlowKey, identity: &Identity) -> bool {
        let wanted = key_of(flow, identity);
        let free = !self.is_used(wanted, slot);
        let key = if free { wanted } else { tuple_key(flow) };
        let server_half = key.0 as u32;
        let partial = partial_of(key).and_then(|partial| self.head(partial));
        self.each_sibling(partial, |other| {
            other.server_half = server_half;
            other.bits.put(COMPLETED, true);
        });
        let head = self.head(key);
        let has_primary = self.siblings(head).any(|other| other.choice() == Choice::Primary);
        let first = head.map(|head| self.slab[head]);

        let observation = &mut self.slab[slot];
        observation.set_key(key);
        observation.next = head.unwrap_or(NONE);
        if let Some(first) = first.filter(|first| first.bits.is(COMPLETED)) {
            observation.server_half = first.server_half;
            observation.bits.put(COMPLETED, true);
        }
        // Two that were chosen while nobody could know that they are one connection.
        if has_primary && observation.choice() == Choice::Primary {
            observation.set_choice(Choice::Secondary);
        }
        let decided = observation.bits.is(DECIDED)
            || observation.choice() != Choice::Open
            || first.is_some_and(|first| first.bits.is(DECIDED));
        self.set_head(key, head, slot);
        if decided {
            self.each_sibling(Some(slot), |other| other.bits.put(DECIDED, true));
        }
        free
    }

    /// Ends that an observation is one of its connection.
    fn leave(&mut self, slot: Slot) {
        let key = self.slab[slot].key();
        let next = std::mem::replace(&mut self.slab[slot].next, NONE);
        let Some(head) = self.head(key) else { return };
        if head != slot {
            let mut before = head;
            while self.slab[before].next != slot {
                match some(self.slab[before].next) {
                    Some(other) => before = other,
                    None => return,
                }
            }
            self.slab[before].next = next;
        } else if next != NONE {
            self.set_head(key, Some(head), next);
        } else if let Ok(entry) =
            self.heads.find_entry(self.hasher.hash_one(key), |other| *other == slot)
        {
            entry.remove();
        }
    }

    fn head(&self, key: ConnectionKey) -> Option<Slot> {
        let hash = self.hasher.hash_one(key);
        self.heads.find(hash, |slot| self.slab[*slot].key() == key).copied()
    }

    fn set_head(&mut self, key: ConnectionKey, old: Option<Slot>, new: Slot) {
        let hash = self.hasher.hash_one(key);
        if let Some(head) = old.and_then(|old| self.heads.find_mut(hash, |slot| *slot == old)) {
            *head = new;
            return;
        }
        let Self { heads, slab, hasher, .. } = self;
        heads.insert_unique(hash, new, |slot| hasher.hash_one(slab[*slot].key()));
    }

    fn slots(&self, head: Option<Slot>) -> impl Iterator<Item = Slot> {
        std::iter::successors(head, |slot| some(self.slab[*slot].next))
    }

    fn siblings(&self, head: Option<Slot>) -> impl Iterator<Item = &Observation> {
        self.slots(head).map(|slot| &self.slab[slot])
    }

    fn each_sibling(&mut self, head: Option<Slot>, mut change: impl FnMut(&mut Observation)) {
        let mut next = head;
        while let Some(slot) = next {
            let observation = &mut self.slab[slot];
            change(observation);
            next = some(observation.next);
        }
    }

    /// Whether another connection has an id on the interface of an observation.
    fn is_used(&self, key: ConnectionKey, slot: Slot) -> bool {
        self.siblings(self.head(key)).any(|it| it.is_apart_from(&self.slab[slot]))
    }

    /// Whether there is none.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }
}

/// The choice.
impl Observations {
    /// Makes the choice for an observation, if it is not made.
    pub(super) fn choose(&mut self, slot: Slot, points: &Points) {
        if self.slab[slot].choice() != Choice::Open {
            return;
        }
        let heads = self.heads_of_same(self.slab[slot].key());
        let decided = heads.iter().flatten().any(|head| self.slab[*head].bits.is(DECIDED));
        if !decided {
            let best = self
                .all(heads)
                .filter(|slot| self.slab[*slot].choice() == Choice::Open)
                .min_by_key(|slot| self.preference(points, heads, *slot));
            if let Some(best) = best {
                self.settle(best, Choice::Primary, heads, points);
            }
        }
        for head in heads {
            self.each_sibling(head, |other| other.bits.put(DECIDED, true));
        }
        if self.slab[slot].choice() == Choice::Open {
            self.settle(slot, Choice::Secondary, heads, points);
        }
    }

    fn settle(&mut self, slot: Slot, choice: Choice, heads: [Option<Slot>; 2], points: &Points) {
        let reporter = self.reporter(points, heads, slot);
        self.slab[slot].bits.set_reporter(REPORTER, reporter);
        self.slab[slot].set_choice(choice);
    }

    /// The observations of a connection: while some of them have the complete id and others have only
    /// half of it yet, of both ids. Half an id proves little: whoever scans may give all its connections
    /// the same. Where an interface has a tuple of each, they are two.
    fn heads_of_same(&self, key: ConnectionKey) -> [Option<Slot>; 2] {
        let head = self.head(key);
        let other = match key.1 {
            IdKind::Complete => {
                partial_of(key).and_then(|partial| self.head(partial)).filter(|it| {
                    let partial = &self.slab[*it];
                    partial.bits.is(COMPLETED) && partial.server_half == key.0 as u32
                })
            }
            IdKind::Partial => head.map(|head| self.slab[head]).and_then(|partial| {
                let id = connection_id::from_isns(partial.client_half, partial.server_half);
                partial.bits.is(COMPLETED).then(|| self.head((id, IdKind::Complete)))?
            }),
            IdKind::TupleHash => None,
        };
        [head, other.filter(|other| !self.meet(head, Some(*other)))]
    }

    /// Whether both have an observation on one interface that are of two connections.
    fn meet(&self, one: Option<Slot>, other: Option<Slot>) -> bool {
        self.siblings(one).any(|a| self.siblings(other).any(|b| a.is_apart_from(b)))
    }

    fn all(&self, heads: [Option<Slot>; 2]) -> impl Iterator<Item = Slot> {
        heads.into_iter().flat_map(|head| self.slots(head))
    }

    /// The order of preference, least first: both directions, then pods before uplinks, and of either
    /// the client's side.
    fn preference(
        &self,
        points: &Points,
        heads: [Option<Slot>; 2],
        slot: Slot,
    ) -> (bool, u8, PointId, bool) {
        let observation = &self.slab[slot];
        let kind = points.kind(observation.point);
        let place = match (kind, self.reporter(points, heads, slot)) {
            (Some(InterfaceKind::Pod), Reporter::Client) => 0,
            (Some(InterfaceKind::Pod), Reporter::Server) => 1,
            (Some(InterfaceKind::Uplink), Reporter::Client) => 2,
            (Some(InterfaceKind::Uplink), Reporter::Server) => 3,
            _ => 4,
        };
        // Of a connection that is forwarded where it came from, the way in: it shows the client.
        let is_way_out = observation.bits.reporter(LEADS_TO) == Reporter::Client;
        (observation.bits.is(ONE_SIDED), place, observation.point, is_way_out)
    }

    /// Which side of its connection an observation's interface leads to.
    fn reporter(&self, points: &Points, heads: [Option<Slot>; 2], slot: Slot) -> Reporter {
        let observation = &self.slab[slot];
        let is_pods = |slot| points.kind(self.slab[slot].point) == Some(InterfaceKind::Pod);
        let is_back = |slot| self.slab[slot].is_way_back_of(observation);
        match points.kind(observation.point) {
            Some(InterfaceKind::Pod) => observation.bits.reporter(LEADS_TO),
            // What also passes a pod's interface is the pod's, masqueraded or forwarded.
            // So is what goes out again where it came in: a NodePort's, for a pod of another node.
            Some(InterfaceKind::Uplink)
                if !self.all(heads).any(|slot| is_pods(slot) || is_back(slot)) =>
            {
                observation.bits.reporter(OWN)
            }
            _ => Reporter::Transit,
        }
    }
}

/// The key that a flow's sequence numbers make.
fn key_of(flow: &FlowKey, identity: &Identity) -> ConnectionKey {
    match (identity.isn(identity.client), identity.isn(identity.server())) {
        (Some(client), Some(server)) => {
            (connection_id::from_isns(client, server), IdKind::Complete)
        }
        (Some(client), None) => (connection_id::from_isns(client, 0), IdKind::Partial),
        (None, _) => tuple_key(flow),
    }
}

fn tuple_key(flow: &FlowKey) -> ConnectionKey {
    let [low, high] = [End::Low, End::High].map(|end| flow.endpoint(end));
    (connection_id::from_tuple(low, high), IdKind::TupleHash)
}

/// The partial id that a complete one was, or would have been.
fn partial_of((id, kind): ConnectionKey) -> Option<ConnectionKey> {
    let partial = connection_id::from_isns(connection_id::client_isn(id), 0);
    (kind == IdKind::Complete).then_some((partial, IdKind::Partial))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_is_small() {
        assert_eq!(size_of::<Observation>(), 20);
    }
}
