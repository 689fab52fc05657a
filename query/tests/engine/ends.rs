//! Graphs and series of one edge, of one node's edges and of workloads: what the whole graph says of them.

use flowtrail_query::{Edge, Graph, StatValue};
use proptest::collection::vec;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::common::{Served, served};
use crate::tiers::{DAY_S, DAY0, DAYS, any_row, begin_at};

/// Rows of some days, so that every table is read: the same in every run.
fn with_rows(database: &str) -> Served {
    let mut rows = vec(any_row(), 60).new_tree(&mut TestRunner::deterministic()).unwrap().current();
    begin_at(&mut rows, DAY0);
    let served = served(database);
    served.insert("flows", &rows);
    served
}

/// Off every boundary, so that days, hours, minutes and raw rows are in it.
const WINDOW: (u32, u32) = (DAY0 + 70, DAY0 + DAYS * DAY_S - 70);

impl Served {
    fn of(&self, pairs: &[(&str, &str)]) -> Graph {
        self.graph(WINDOW.0, WINDOW.1, pairs)
    }
}

fn sorted(edges: Vec<Edge>) -> Vec<Edge> {
    let mut edges = edges;
    edges.sort_by(|one, other| one.id.cmp(&other.id));
    edges
}

#[test]
fn an_edge_and_the_edges_of_a_node_are_those_of_the_whole_graph() {
    let served = with_rows("ends");
    for group_by in ["namespace", "workload", "pod", "service", "node", "ip"] {
        let level = ("group_by", group_by);
        let whole = served.of(&[level]).edges;
        // The largest and the smallest.
        for edge in [whole.first().unwrap(), whole.last().unwrap()] {
            assert_eq!(served.of(&[level, ("edge", &edge.id)]).edges, std::slice::from_ref(edge));
            type End = fn(&Edge) -> &str;
            let ends: [(&str, End); 2] =
                [("source", |edge| &edge.source), ("target", |edge| &edge.target)];
            for (name, end) in ends {
                let of_node = served.of(&[level, (name, end(edge))]).edges;
                let expected = whole.iter().filter(|other| end(other) == end(edge));
                assert_eq!(sorted(of_node), sorted(expected.cloned().collect()), "{name}");
            }
            let pairs = [level, ("edge", edge.id.as_str()), ("stat", "bytes")];
            let series = served.series(WINDOW.0, WINDOW.1, &pairs);
            let values = series.points.iter().filter_map(|point| point.value);
            let bytes: f64 = values
                .map(|value| match value {
                    StatValue::Count(count) => count as f64,
                    StatValue::Milliseconds(_) => panic!("bytes are counted"),
                })
                .sum();
            // Series are of whole steps: of all the days, which is all rows of the edge.
            let days = served.graph(DAY0, DAY0 + DAYS * DAY_S, &[level, ("edge", &edge.id)]);
            let traffic = &days.edges[0].traffic;
            assert_eq!(bytes, (traffic.sent.bytes + traffic.received.bytes) as f64, "{}", edge.id);
        }
    }
}

#[test]
fn workloads_are_those_with_which_an_edge_begins_or_ends() {
    let served = with_rows("ends_workloads");
    let whole = served.of(&[]).edges;
    let of = |names: &[&str]| {
        let ids: Vec<_> =
            names.iter().map(|name| format!("workload:shop/Deployment/{name}")).collect();
        let ends = |edge: &&Edge| ids.iter().any(|id| **id == *edge.source || **id == *edge.target);
        sorted(whole.iter().filter(ends).cloned().collect())
    };
    assert!(!of(&["app0"]).is_empty() && of(&["app0"]).len() < of(&["app0", "app1"]).len());
    assert_eq!(sorted(served.of(&[("workload", "shop/app0")]).edges), of(&["app0"]));
    assert_eq!(
        sorted(served.of(&[("workload", "shop/app0,shop/app1")]).edges),
        of(&["app0", "app1"])
    );
    assert!(served.of(&[("workload", "app0")]).edges.is_empty(), "of no namespace");
}
