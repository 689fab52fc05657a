//! Short lists: what is listed of an edge or a node.

use crate::sql::MAX_LISTED;

/// The lowest of some values, each once, and one more than is listed: the same whatever the order of adding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed<T>(Vec<T>);

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> From<Vec<T>> for Listed<T> {
    fn from(mut values: Vec<T>) -> Self {
        // The store has sorted them: this only looks.
        values.sort_unstable();
        values.dedup();
        values.truncate(MAX_LISTED + 1);
        Self(values)
    }
}

impl Listed<String> {
    /// Of texts that are elsewhere.
    pub(super) fn of(texts: &[&str]) -> Self {
        texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>().into()
    }
}

impl<T: Ord + Clone> Listed<T> {
    pub(super) fn add(&mut self, other: &Self) {
        for value in &other.0 {
            if let Err(place) = self.0.binary_search(value) {
                // All that follow are higher.
                if place > MAX_LISTED {
                    break;
                }
                self.0.insert(place, value.clone());
                self.0.truncate(MAX_LISTED + 1);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What is listed, and whether there is more.
    pub(super) fn told(mut self) -> (Vec<T>, bool) {
        let more = self.0.len() > MAX_LISTED;
        self.0.truncate(MAX_LISTED);
        (self.0, more)
    }
}
