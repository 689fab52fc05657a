//! Short lists: what is told of the ends of an edge, or of a node.

use std::fmt::Debug;

use smallvec::{Array, SmallVec};

use super::MAX_LISTED;

/// The lowest of some values, each once, and one more than is listed: the same whatever the order of adding.
#[derive(Clone, Debug)]
pub(crate) struct Listed<A: Array<Item: Clone + Debug>>(SmallVec<A>);

impl<A: Array<Item: Clone + Debug>> Default for Listed<A> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<A: Array<Item: Ord + Copy + Debug>> FromIterator<A::Item> for Listed<A> {
    fn from_iter<I: IntoIterator<Item = A::Item>>(values: I) -> Self {
        // The store has sorted them: this only looks.
        let mut values: SmallVec<A> = values.into_iter().collect();
        values.sort_unstable();
        values.dedup();
        values.truncate(MAX_LISTED + 1);
        Self(values)
    }
}

impl<A: Array<Item: Ord + Copy + Debug>> Listed<A> {
    pub(crate) fn add(&mut self, other: &Self) {
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

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// What is listed.
    pub(crate) fn told(&self) -> &[A::Item] {
        &self.0[..self.0.len().min(MAX_LISTED)]
    }

    /// Whether there is more than is listed.
    pub(crate) fn has_more(&self) -> bool {
        self.0.len() > MAX_LISTED
    }
}
