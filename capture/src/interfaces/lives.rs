//! The lives of interfaces: the kernel gives an index, and its users a name, to one after another.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

/// An unwanted interface is not excluded before it is known for this long: a pod's veth may be there
/// before its peer is moved to the pod, an uplink before its route.
pub(super) const EXCLUDE_AFTER: Duration = Duration::from_secs(10);

/// Which interface has an index, and since when that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// Its own among all that were seen.
    pub(super) number: u64,
    pub(super) since: Instant,
}

/// The lives that go on.
#[derive(Debug, Default)]
pub(super) struct Lives {
    by_index: HashMap<u32, Life>,
    seen: u64,
}

impl Lives {
    /// Takes over which indices are in use now, and which were given up since the last time.
    pub(super) fn update(
        &mut self,
        gone: &HashSet<u32>,
        indices: impl Iterator<Item = u32>,
        now: Instant,
    ) {
        let mut before = std::mem::take(&mut self.by_index);
        before.retain(|index, _| !gone.contains(index));
        for index in indices {
            let life = before.remove(&index).unwrap_or_else(|| {
                self.seen += 1;
                Life { number: self.seen, since: now }
            });
            self.by_index.insert(index, life);
        }
    }

    /// The life of an index; 0 if it is not in use.
    pub(super) fn number(&self, index: u32) -> u64 {
        self.by_index.get(&index).map_or(0, |life| life.number)
    }

    /// Since when an index has been what it is.
    pub(super) fn since(&self, index: u32) -> Option<Instant> {
        self.by_index.get(&index).map(|life| life.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_is_used_again_is_another_life() {
        let start = Instant::now();
        let mut lives = Lives::default();
        let mut update = |gone: &[u32], now: &[u32]| {
            lives.update(&gone.iter().copied().collect(), now.iter().copied(), start);
            now.iter().map(|index| lives.number(*index)).collect::<Vec<_>>()
        };
        assert_eq!(update(&[], &[1, 2]), [1, 2]);
        assert_eq!(update(&[], &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(update(&[2], &[1, 2, 3]), [1, 4, 3], "gone and there again");
        assert_eq!(update(&[], &[1, 3]), [1, 3]);
        assert_eq!(update(&[], &[1, 2, 3]), [1, 5, 3], "not seen for a while");
        assert_eq!(update(&[7], &[1, 2, 3]), [1, 5, 3], "gone before it was seen");
    }
}
