//! Where flows are kept: a slab, an index by key, and for each phase a list in the order of waiting.

use std::hash::BuildHasher as _;
use std::ops::{Index, IndexMut};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::flow::{Flow, Phase};
use super::key::FlowKey;

/// The place of a flow.
pub(super) type Slot = u32;

/// No flow: the end of a list.
pub(super) const NONE: Slot = Slot::MAX;

/// A flow's neighbours in the list of its phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    previous: Slot,
    next: Slot,
}

impl Default for Links {
    fn default() -> Self {
        Self { previous: NONE, next: NONE }
    }
}

#[derive(Clone, Copy, Debug)]
struct List {
    head: Slot,
    tail: Slot,
}

pub(super) struct Slots {
    flows: Vec<Flow>,
    free: Vec<Slot>,
    index: HashTable<Slot>,
    hasher: RandomState,
    lists: [List; Phase::LISTED],
}

impl Slots {
    pub(super) fn new() -> Self {
        Self {
            flows: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
            lists: [List { head: NONE, tail: NONE }; Phase::LISTED],
        }
    }

    /// Flows that a packet can find.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is nothing at all, not even what waits to be freed.
    pub(super) fn is_empty(&self) -> bool {
        self.flows.len() == self.free.len()
    }

    /// All places ever used, for looking through the flows in the order of memory.
    pub(super) fn places(&self) -> std::ops::Range<Slot> {
        0..self.flows.len() as Slot
    }

    pub(super) fn find(&self, key: &FlowKey) -> Option<Slot> {
        let hash = self.hasher.hash_one(key);
        self.index.find(hash, |slot| self.flows[*slot as usize].key == *key).copied()
    }

    /// Adds a flow whose key is not there yet.
    pub(super) fn insert(&mut self, flow: Flow) -> Slot {
        let (key, phase) = (flow.key, flow.phase);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.flows[slot as usize] = flow;
                slot
            }
            None => {
                self.flows.push(flow);
                (self.flows.len() - 1) as Slot
            }
        };
        let Self { flows, index, hasher, .. } = self;
        index.insert_unique(hasher.hash_one(key), slot, |slot| {
            hasher.hash_one(flows[*slot as usize].key)
        });
        self.link(slot, phase);
        slot
    }

    /// Puts a flow at the end of a phase's list: it waits from now on.
    pub(super) fn move_to(&mut self, slot: Slot, phase: Phase) {
        self.unlink(slot);
        self.link(slot, phase);
    }

    /// Takes a flow out of reach of packets; its place stays until it is freed.
    pub(super) fn retire(&mut self, slot: Slot) {
        self.unlink(slot);
        self[slot].phase = Phase::Dead;
        let hash = self.hasher.hash_one(self[slot].key);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
    }

    /// Gives the place of a retired flow to others.
    pub(super) fn free(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    /// The flow of a phase that has waited for the longest time.
    pub(super) fn first(&self, phase: Phase) -> Option<Slot> {
        some(self.lists[phase as usize].head)
    }

    /// The one after it.
    pub(super) fn next(&self, slot: Slot) -> Option<Slot> {
        some(self[slot].links.next)
    }

    fn link(&mut self, slot: Slot, phase: Phase) {
        let list = &mut self.lists[phase as usize];
        let links = Links { previous: list.tail, next: NONE };
        if list.tail == NONE {
            list.head = slot;
        }
        list.tail = slot;
        if links.previous != NONE {
            self[links.previous].links.next = slot;
        }
        self[slot].links = links;
        self[slot].phase = phase;
    }

    fn unlink(&mut self, slot: Slot) {
        let Flow { links, phase, .. } = self[slot];
        let list = &mut self.lists[phase as usize];
        if list.head == slot {
            list.head = links.next;
        }
        if list.tail == slot {
            list.tail = links.previous;
        }
        if links.previous != NONE {
            self[links.previous].links.next = links.next;
        }
        if links.next != NONE {
            self[links.next].links.previous = links.previous;
        }
        self[slot].links = Links::default();
    }
}

pub(super) fn some(slot: Slot) -> Option<Slot> {
    (slot != NONE).then_some(slot)
}

impl Index<Slot> for Slots {
    type Output = Flow;

    fn index(&self, slot: Slot) -> &Flow {
        &self.flows[slot as usize]
    }
}

impl IndexMut<Slot> for Slots {
    fn index_mut(&mut self, slot: Slot) -> &mut Flow {
        &mut self.flows[slot as usize]
    }
}
