//! Tombstones: what is kept of a connection that was given up while open, so that it keeps its id and
//! direction if it comes back.

use std::collections::VecDeque;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::flow::Identity;
use super::key::FlowKey;
use super::observations::Standing;

/// Tombstones of a worker at most: some 12 MB. Past that the oldest is forgotten, and counted; its connection
/// would come back as one joined midstream.
const MAX_TOMBSTONES: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Tombstones {
    by_key: HashMap<FlowKey, (Identity, Standing), RandomState>,
    /// Keys in the order of their burial; those taken since are still in it.
    order: VecDeque<FlowKey>,
    forgotten: u64,
}

impl Tombstones {
    pub(super) fn bury(&mut self, key: FlowKey, identity: Identity, standing: Standing) {
        if self.order.len() >= MAX_TOMBSTONES
            && let Some(oldest) = self.order.pop_front()
            && self.by_key.remove(&oldest).is_some()
        {
            self.forgotten += 1;
        }
        self.by_key.insert(key, (identity, standing));
        self.order.push_back(key);
    }

    pub(super) fn take(&mut self, key: &FlowKey) -> Option<(Identity, Standing)> {
        self.by_key.remove(key)
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Tombstones forgotten because there were too many, ever.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}
