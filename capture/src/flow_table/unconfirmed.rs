//! Unconfirmed: open flows whose client has not acknowledged the answer yet. Behind a server that answers,
//! a flood of SYNs from forged sources is of such.

use std::collections::VecDeque;

use super::slab::Slot;
use super::slots::Slots;

/// Flows in here at most, 256 KB: as many as a flood can be given up for at any time. Past that the one
/// that waits for longest is no longer known to be such.
const MAX_UNCONFIRMED: usize = 65_536;

/// Flows in the order of their answers, and some that are confirmed since.
#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    slots: VecDeque<Slot>,
}

impl Unconfirmed {
    pub(super) fn push(&mut self, slot: Slot) {
        if self.slots.len() >= MAX_UNCONFIRMED {
            self.slots.pop_front();
        }
        self.slots.push_back(slot);
    }

    /// The flow that has waited for longest.
    pub(super) fn take(&mut self, slots: &Slots) -> Option<Slot> {
        std::iter::from_fn(|| self.slots.pop_front()).find(|slot| slots[*slot].is_unconfirmed())
    }
}
