//! Where flows are kept: a slab, an index by key, and for each phase a list in the order of waiting.

use std::hash::BuildHasher as _;
use std::ops::{Index, IndexMut};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::flow::{Flow, Phase};
use super::key::FlowKey;
use super::slab::{NONE, Slab, Slot, some};

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
    flows: Slab<Flow>,
    free: Slot,
    /// Places with a flow.
    len: usize,
    index: HashTable<Slot>,
    hasher: RandomState,
    lists: [List; Phase::LISTED],
}

impl Slots {
    pub(super) fn new() -> Self {
        Self {
            flows: Slab::default(),
            free: NONE,
            len: 0,
            index: HashTable::new(),
            hasher: RandomState::default(),
            lists: [List { head: NONE, tail: NONE }; Phase::LISTED],
        }
    }

    /// Flows there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All places ever used, for looking through the flows in the order of memory.
    pub(super) fn places(&self) -> std::ops::Range<Slot> {
        0..self.flows.len()
    }

    pub(super) fn find(&self, key: &FlowKey) -> Option<Slot> {
        let hash = self.hasher.hash_one(key);
        self.index.find(hash, |slot| self.flows[*slot].key == *key).copied()
    }

    /// Adds a flow whose key is not there yet.
    pub(super) fn insert(&mut self, flow: Flow) -> Slot {
        let (key, phase) = (flow.key, flow.phase);
        let slot = match some(self.free) {
            Some(slot) => {
                self.free = self.flows[slot].links.next;
                self.flows[slot] = flow;
                slot
            }
            None => self.flows.push(flow),
        };
        self.len += 1;
        let Self { flows, index, hasher, .. } = self;
        index.insert_unique(hasher.hash_one(key), slot, |slot| hasher.hash_one(flows[*slot].key));
        self.link(slot, phase);
        slot
    }

    /// Puts a flow at the end of a phase's list: it waits from now on.
    pub(super) fn move_to(&mut self, slot: Slot, phase: Phase) {
        self.unlink(slot);
        self.link(slot, phase);
    }

    /// Forgets a flow; its place is free for another.
    pub(super) fn remove(&mut self, slot: Slot) {
        self.unlink(slot);
        let hash = self.hasher.hash_one(self[slot].key);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        self.len -= 1;
        let free = std::mem::replace(&mut self.free, slot);
        let flow = &mut self[slot];
        flow.phase = Phase::Free;
        flow.links.next = free;
    }

    /// The flow of a phase that has waited for the longest time.
    pub(super) fn first(&self, phase: Phase) -> Option<Slot> {
        some(self.lists[phase as usize].head)
    }

    /// The one after it.
    pub(super) fn next(&self, slot: Slot) -> Option<Slot> {
        some(self[slot].links.next)
    }

    /// Puts every list in order: open flows by their last packet, others by when they began to wait.
    pub(super) fn sort_lists(&mut self) {
        for phase in [Phase::HalfOpen, Phase::Open, Phase::Lingering, Phase::Remembered] {
            let listed = std::iter::successors(self.first(phase), |slot| self.next(*slot));
            let waits_since = |flow: &Flow| match phase {
                Phase::Open => flow.last_seen_us,
                _ => flow.since_us,
            };
            let mut order: Vec<_> = listed.map(|slot| (waits_since(&self[slot]), slot)).collect();
            order.sort_unstable();
            for (_, slot) in order {
                self.move_to(slot, phase);
            }
        }
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

impl Index<Slot> for Slots {
    type Output = Flow;

    fn index(&self, slot: Slot) -> &Flow {
        &self.flows[slot]
    }
}

impl IndexMut<Slot> for Slots {
    fn index_mut(&mut self, slot: Slot) -> &mut Flow {
        &mut self.flows[slot]
    }
}
