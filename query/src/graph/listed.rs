//! Short lists: what is listed of an edge or a node.

use std::fmt::Debug;

use smallvec::{Array, SmallVec};

use crate::sql::MAX_LISTED;

/// The lowest of some values, each once, and one more than is listed: the same whatever the order of adding.
#[derive(Debug)]
pub(super) struct Listed<A: Array<Item: Debug>>(SmallVec<A>);

impl<A: Array<Item: Debug>> Default for Listed<A> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<A: Array<Item: Ord + Copy + Debug>> From<SmallVec<A>> for Listed<A> {
    fn from(mut values: SmallVec<A>) -> Self {
        // The store has sorted them: this only looks.
        values.sort_unstable();
        values.dedup();
        values.truncate(MAX_LISTED + 1);
        Self(values)
    }
}

impl<A: Array<Item: Ord + Copy + Debug>> Listed<A> {
    pub(super) fn add(&mut self, other: &Self) {
        for value in &other.0 {
            if let Err(place) = self.0.binary_search(value) {
                // All that follow are higher.
                if place > MAX_LISTED {
                    break;
                }
                self.0.insert(place, *value);
                self.0.truncate(MAX_LISTED + 1);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What is listed.
    pub(super) fn told(&self) -> &[A::Item] {
        &self.0[..self.0.len().min(MAX_LISTED)]
    }

    /// Whether there is more than is listed.
    pub(super) fn has_more(&self) -> bool {
        self.0.len() > MAX_LISTED
    }
}
