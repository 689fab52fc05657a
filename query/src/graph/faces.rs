//! The nodes of a graph, by number: ends are many, and told apart by long texts.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::Face;
use crate::params::GroupBy;
use crate::sql::End;

/// Between texts: in none of them, as all are UTF-8.
const SEPARATOR: u8 = 0xff;

/// The nodes that ends are folded into. Numbers count from 0.
#[derive(Debug)]
pub(super) struct Faces {
    group_by: GroupBy,
    /// By what [`write_key`] makes of them.
    by_end: HashMap<Box<[u8]>, usize, RandomState>,
    /// The key of the end at hand.
    key: Vec<u8>,
    by_id: HashMap<String, usize>,
    faces: Vec<Face>,
}

impl Faces {
    /// None yet.
    pub(super) fn new(group_by: GroupBy) -> Self {
        Self {
            group_by,
            by_end: HashMap::default(),
            key: Vec::new(),
            by_id: HashMap::new(),
            faces: Vec::new(),
        }
    }

    /// The node of an end.
    pub(super) fn of(&mut self, end: End<&str>) -> usize {
        write_key(&end, &mut self.key);
        if let Some(node) = self.by_end.get(self.key.as_slice()) {
            return *node;
        }
        let node = self.add(Face::of(self.group_by, &end));
        self.by_end.insert(self.key.as_slice().into(), node);
        node
    }

    /// The node that `limit` folds into.
    pub(super) fn other(&mut self) -> usize {
        self.add(Face::other())
    }

    /// One that was seen with and without a workload has it.
    fn add(&mut self, face: Face) -> usize {
        let node = *self.by_id.entry(face.id()).or_insert(self.faces.len());
        match self.faces.get_mut(node) {
            None => self.faces.push(face),
            Some(known) => {
                if (&known.workload, &known.workload_kind) < (&face.workload, &face.workload_kind) {
                    *known = face;
                }
            }
        }
        node
    }

    /// The nodes with their ids, ordered by these.
    pub(super) fn by_id(&mut self) -> Vec<Named> {
        let ids = std::mem::take(&mut self.by_id).into_iter();
        let mut named: Vec<_> = ids.map(|(id, node)| Named { node, id }).collect();
        named.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        named
    }

    /// What a node is.
    pub(super) fn take(&mut self, node: usize) -> Face {
        self.faces.get_mut(node).map(std::mem::take).unwrap_or_default()
    }
}

/// Bytes that are the same for the same end: found faster than eight values that are each somewhere else.
fn write_key(end: &End<&str>, key: &mut Vec<u8>) {
    let (kind, namespace, workload_kind, workload, name, node, of, service, address) = end;
    key.clear();
    key.extend_from_slice(&address.octets());
    key.extend_from_slice(&kind.to_ne_bytes());
    for text in [namespace, workload_kind, workload, name, node, of, service] {
        key.extend_from_slice(text.as_bytes());
        key.push(SEPARATOR);
    }
}

/// A node and its id.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) node: usize,
    pub(super) id: String,
}
