//! The nodes of a graph, by number: ends are many, and told apart by long texts.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Face;
use crate::params::GroupBy;
use crate::sql::{EncodedEnd, Malformed};

/// The nodes that ends are folded into. Numbers count from 0.
#[derive(Debug)]
pub(super) struct Faces<'a> {
    group_by: GroupBy,
    by_end: HashMap<EncodedEnd<'a>, usize, RandomState>,
    by_id: HashMap<Arc<str>, usize>,
    faces: Vec<Face>,
}

impl<'a> Faces<'a> {
    /// None yet.
    pub(super) fn new(group_by: GroupBy) -> Self {
        Self { group_by, by_end: HashMap::default(), by_id: HashMap::new(), faces: Vec::new() }
    }

    /// The node of an end.
    ///
    /// # Errors
    /// If it has a text that is not UTF-8.
    pub(super) fn of(&mut self, end: EncodedEnd<'a>) -> Result<usize, Malformed> {
        if let Some(node) = self.by_end.get(&end) {
            return Ok(*node);
        }
        let node = self.add(Face::of(self.group_by, &end.end()?));
        self.by_end.insert(end, node);
        Ok(node)
    }

    /// The node that `limit` folds into.
    pub(super) fn other(&mut self) -> usize {
        self.add(Face::other())
    }

    /// One that was seen with and without a workload has it.
    fn add(&mut self, face: Face) -> usize {
        let node = *self.by_id.entry(face.id().into()).or_insert(self.faces.len());
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

/// A node and its id.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) node: usize,
    pub(super) id: Arc<str>,
}
