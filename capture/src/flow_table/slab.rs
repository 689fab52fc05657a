//! `Slab`: values at fixed places, in pieces of equal size. It grows by a piece, so it never has to be
//! copied, nor has room for twice what it holds.

use std::ops::{Index, IndexMut};

/// A place.
pub(super) type Slot = u32;

/// No place: the end of a list.
pub(super) const NONE: Slot = Slot::MAX;

/// Values in a piece: about 200 KB of flows.
const PIECE: usize = 1 << PIECE_BITS;
const PIECE_BITS: u32 = 10;

#[derive(Debug)]
pub(super) struct Slab<T> {
    pieces: Vec<Vec<T>>,
}

pub(super) fn some(slot: Slot) -> Option<Slot> {
    (slot != NONE).then_some(slot)
}

impl<T> Slab<T> {
    /// Places ever used.
    pub(super) fn len(&self) -> Slot {
        let last = self.pieces.last().map_or(0, Vec::len);
        (self.pieces.len().saturating_sub(1) * PIECE + last) as Slot
    }

    /// Adds a value at a new place.
    pub(super) fn push(&mut self, value: T) -> Slot {
        let slot = self.len();
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE => piece.push(value),
            _ => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(value);
                self.pieces.push(piece);
            }
        }
        slot
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { pieces: Vec::new() }
    }
}

impl<T> Index<Slot> for Slab<T> {
    type Output = T;

    fn index(&self, slot: Slot) -> &T {
        &self.pieces[(slot >> PIECE_BITS) as usize][slot as usize % PIECE]
    }
}

impl<T> IndexMut<Slot> for Slab<T> {
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        &mut self.pieces[(slot >> PIECE_BITS) as usize][slot as usize % PIECE]
    }
}
