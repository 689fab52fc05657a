//! Observation points: one copy of each, as batches repeat them. Connections keep them for as long as
//! they live, and two that are one copy are told to be the same without reading them.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use flowtrail_schema::Interface;
use foldhash::fast::RandomState;

/// Different ones remembered, at most: 5,000 nodes with some pods each. Beyond it all are
/// forgotten, and those that come next are copies of their own.
const MAX_REMEMBERED: usize = 100_000;

/// An observation point: one interface of one agent.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) agent: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) interface: Arc<Interface>,
    /// Of what tells points apart: most that differ differ in it.
    hash: u64,
}

impl Point {
    /// The point that is an interface of an agent on a node.
    pub(crate) fn new(agent: Arc<str>, node: Arc<str>, interface: Arc<Interface>) -> Self {
        // Agents choose the names: no one else knows the seed.
        static SEEDED: LazyLock<RandomState> = LazyLock::new(RandomState::default);
        let hash = SEEDED.hash_one((&agent, &interface.name));
        Self { agent, node, interface, hash }
    }

    /// Whether both are the same interface of the same agent.
    pub(crate) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || self.hash == other.hash
                && self.agent == other.agent
                && self.interface.name == other.interface.name
    }
}

/// Points whose copies say the same of all.
#[derive(Debug)]
struct Copy(Arc<Point>);

impl PartialEq for Copy {
    fn eq(&self, Self(other): &Self) -> bool {
        self.0.is(other) && self.0.node == other.node && self.0.interface == other.interface
    }
}

impl Eq for Copy {}

impl Hash for Copy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

/// The copies.
#[derive(Debug, Default)]
pub(crate) struct Points(HashSet<Copy, RandomState>);

impl Points {
    /// The copy of a point.
    pub(crate) fn copy(&mut self, point: Arc<Point>) -> Arc<Point> {
        let point = Copy(point);
        if let Some(Copy(known)) = self.0.get(&point) {
            return Arc::clone(known);
        }
        if self.0.len() >= MAX_REMEMBERED {
            self.0.clear();
        }
        let copy = Arc::clone(&point.0);
        self.0.insert(point);
        copy
    }

    /// The copies for a batch of an agent.
    pub(crate) fn of_batch<'a>(&'a mut self, agent: &Arc<str>, node: &Arc<str>) -> OfBatch<'a> {
        OfBatch {
            agent: Arc::clone(agent),
            node: Arc::clone(node),
            points: self,
            by_address: HashMap::default(),
        }
    }
}

/// The copies for one batch, whose records share their interfaces.
pub(crate) struct OfBatch<'a> {
    agent: Arc<str>,
    node: Arc<str>,
    points: &'a mut Points,
    /// Held, so that an address means the same interface throughout.
    by_address: HashMap<usize, (Arc<Interface>, Arc<Point>), RandomState>,
}

impl OfBatch<'_> {
    /// The copy for one of the agent's interfaces.
    pub(crate) fn point(&mut self, interface: &Arc<Interface>) -> Arc<Point> {
        let Self { agent, node, points, by_address } = self;
        let (_, point) = by_address.entry(Arc::as_ptr(interface).addr()).or_insert_with(|| {
            let point = Point::new(Arc::clone(agent), Arc::clone(node), Arc::clone(interface));
            (Arc::clone(interface), points.copy(point.into()))
        });
        Arc::clone(point)
    }
}

#[cfg(test)]
mod tests {
    use flowtrail_schema::InterfaceKind;

    use super::*;

    fn point(agent: &str, node: &str, name: &str) -> Arc<Point> {
        let interface = Interface { name: name.to_owned(), kind: InterfaceKind::Pod };
        Point::new(agent.into(), node.into(), interface.into()).into()
    }

    #[test]
    fn equal_points_are_one_copy_and_their_number_is_bounded() {
        let mut points = Points::default();
        let first = points.copy(point("a", "n", "v"));
        assert!(Arc::ptr_eq(&first, &points.copy(point("a", "n", "v"))));
        for number in 0..=MAX_REMEMBERED {
            points.copy(point("a", "n", &number.to_string()));
        }
        assert!(points.0.len() <= MAX_REMEMBERED);
        let anew = points.copy(point("a", "n", "v"));
        assert!(!Arc::ptr_eq(&first, &anew) && first.is(&anew));
    }

    #[test]
    fn agent_and_interface_make_a_point_and_all_of_it_a_copy() {
        let mut points = Points::default();
        let first = points.copy(point("a", "n", "v"));
        assert!(!first.is(&point("b", "n", "v")) && !first.is(&point("a", "n", "w")));
        let moved = points.copy(point("a", "m", "v"));
        assert!(first.is(&moved) && &*moved.node == "m");
    }

    #[test]
    fn a_batch_finds_its_points_by_where_their_interfaces_are() {
        let mut points = Points::default();
        let (agent, node) = ("a".into(), "n".into());
        let known = points.copy(point("a", "n", "v"));
        let mut of_batch = points.of_batch(&agent, &node);
        for _again in 0..2 {
            assert!(Arc::ptr_eq(&of_batch.point(&point("x", "y", "v").interface), &known));
        }
    }
}
