//! Laws of the fold.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use flowtrail_schema::row::EntityKind;
use proptest::prelude::*;

use super::*;
use crate::answer::Traffic;
use crate::histogram::Buckets;
use crate::sql::{EncodedEnd, MAX_LISTED, SUMMED};

/// A workload of the namespace `shop`.
fn workload(name: &str) -> EncodedEnd<'static> {
    let number = EntityKind::Pod.number();
    let address = Ipv6Addr::UNSPECIFIED;
    EncodedEnd::of(&(number, "shop", "Deployment", name, "", "", "", "", address))
}

/// An edge with some of everything, in proportion to `connections`.
pub(crate) fn row<'a>(source: &'a str, target: &'a str, connections: u64) -> EdgeRow<'a> {
    let address = |last: u64| {
        let address = std::net::Ipv4Addr::new(192, 0, 2, last as u8).to_ipv6_mapped();
        Listed::from_iter([address])
    };
    let sum = |column: &str| {
        let (side, counter) = column.split_once('_').unwrap_or((column, ""));
        let bytes = if side == "sent" { 1_000 * connections } else { 2_000 * connections };
        match (column, counter) {
            ("opened" | "duration_count" | "syn_to_synack_count" | "closed_fin", _) => connections,
            ("closed_refused", _) => 1,
            ("closed_unanswered", _) => 2,
            ("duration_us", _) => 50_000 * connections,
            ("syn_to_synack_us", _) => 1_000 * connections,
            (_, "header_bytes" | "payload_bytes") => bytes / 2,
            (_, "packets") => bytes / 100,
            (_, "retransmitted_packets") => connections,
            (_, "zero_window_packets") => 1,
            _ => 0,
        }
    };
    EdgeRow {
        pair: Pair {
            source: workload(source),
            target: workload(target),
            labels: Labels {
                server_ports: [443].into_iter().collect(),
                services: [target].into_iter().collect(),
                client_addresses: address(connections),
                server_addresses: address(connections + 1),
            },
        },
        first_seen_ms: 1_000 + connections as i64,
        last_seen_ms: 9_000 + connections as i64,
        sums: SUMMED.map(sum),
        largest: [80_000, 1_000, 0],
        latency_buckets: Buckets::of(&[(72, connections)]),
        first_response_buckets: Buckets::default(),
    }
}

fn open<'a>(source: &'a str, target: &'a str, connections: u64) -> OpenRow<'a> {
    let EdgeRow { pair, .. } = row(source, target, connections);
    OpenRow { pair, at_s: 0, connections, inferred: connections }
}

/// The graph of some sums between workloads.
pub(crate) fn graph(rows: Vec<EdgeRow<'_>>, stat: Stat, limit: usize) -> (Vec<Node>, Vec<Edge>) {
    let mut folded = Folded::new(GroupBy::Workload);
    rows.into_iter().for_each(|row| folded.add_edge(row).unwrap());
    folded.graph(&Expression::default(), stat, limit, 0)
}

fn of(rows: Vec<EdgeRow<'_>>, limit: usize) -> (Vec<Node>, Vec<Edge>) {
    graph(rows, Stat::Connections, limit)
}

#[test]
fn no_rows_give_no_graph() {
    assert_eq!(of(Vec::new(), 10), (Vec::new(), Vec::new()));
}

#[test]
fn rows_of_the_same_ends_become_one_edge() {
    let (nodes, edges) = of(vec![row("web", "db", 3), row("web", "db", 4)], 10);
    let [edge] = edges.as_slice() else { panic!("{edges:?}") };
    assert_eq!(edge.id, "workload:shop/Deployment/web>workload:shop/Deployment/db");
    assert_eq!((edge.first_seen, edge.last_seen), (1_003, 9_004));
    assert_eq!(edge.traffic.connections, 7);
    assert_eq!(edge.traffic.failed, 6);
    assert_eq!(edge.traffic.sent.bytes, 7_000);
    assert_eq!(edge.traffic.retransmits, 14);
    assert_eq!(edge.traffic.duration.avg_ms, Some(50.0));
    let p95 = edge.traffic.latency.p95_ms.unwrap();
    assert!((0.95..=1.0).contains(&p95), "{p95}");
    assert_eq!(edge.traffic.first_response.avg_ms, None);
    let ids: Vec<_> = nodes.iter().map(|node| &*node.id).collect();
    assert_eq!(ids, ["workload:shop/Deployment/db", "workload:shop/Deployment/web"]);
    assert_eq!(nodes[0].as_server, edge.traffic);
    assert_eq!(nodes[0].as_client, Traffic::default());
    assert_eq!((nodes[1].name.as_str(), nodes[1].workload_kind.as_str()), ("web", "Deployment"));
    assert_eq!(nodes[1].addresses, ["192.0.2.3", "192.0.2.4"]);
}

#[test]
fn what_a_node_talks_with_itself_is_on_both_of_its_sides() {
    let (nodes, edges) = of(vec![row("web", "web", 3), row("web", "db", 4)], 10);
    let [db, web] = nodes.as_slice() else { panic!("{nodes:?}") };
    assert_eq!((web.as_client.connections, web.as_server.connections), (7, 3));
    assert_eq!(
        web.as_server,
        edges.iter().find(|edge| edge.source == edge.target).unwrap().traffic
    );
    assert_eq!((db.as_client.connections, db.as_server.connections), (0, 4));
    assert_eq!(web.addresses, ["192.0.2.3", "192.0.2.4"]);
    assert_eq!(db.addresses, ["192.0.2.5"]);
}

#[test]
fn open_connections_count_although_they_were_silent() {
    let mut folded = Folded::new(GroupBy::Workload);
    folded.add_edge(row("web", "db", 2)).unwrap();
    for (target, connections, at_end) in [("db", 3, false), ("cache", 1, false), ("db", 4, true)] {
        folded.add_open(open("web", target, connections), !at_end, at_end).unwrap();
    }
    let (_, edges) = folded.graph(&Expression::default(), Stat::Connections, 10, 500);
    let [db, cache] = edges.as_slice() else { panic!("{edges:?}") };
    assert_eq!((db.traffic.connections, db.traffic.open, db.traffic.opened), (5, 4, 2));
    assert_eq!(db.traffic.direction_inferred, 0.6);
    assert_eq!((cache.traffic.connections, cache.first_seen, cache.last_seen), (1, 500, 500));
}

#[test]
fn beyond_the_limit_all_is_kept_under_other() {
    let rows = vec![
        row("a", "b", 9),
        row("b", "a", 1),
        row("a", "c", 2),
        row("c", "b", 3),
        row("c", "d", 4),
    ];
    let (nodes, edges) = of(rows, 1);
    let ids: Vec<_> =
        edges.iter().map(|edge| edge.id.replace("workload:shop/Deployment/", "")).collect();
    assert_eq!(ids, ["a>b", "other>other", "other>b", "a>other", "b>other"]);
    assert_eq!(edges.iter().map(|edge| edge.traffic.connections).sum::<u64>(), 19);
    let other = nodes.iter().find(|node| &*node.id == "other").unwrap();
    assert_eq!((other.kind.as_str(), other.name.as_str()), ("other", "other"));
    assert_eq!(other.as_server.connections, 1 + 2 + 4);
}

#[test]
fn long_lists_say_that_there_is_more() {
    let mut long = row("web", "db", 1);
    long.pair.labels.server_ports = (1..=MAX_LISTED as u16 + 1).collect();
    let (_, edges) = of(vec![long, row("web", "db", 1)], 10);
    assert_eq!(edges[0].server_ports.len(), MAX_LISTED);
    assert!(edges[0].more);
}

pub(crate) fn any_rows() -> impl Strategy<Value = Vec<EdgeRow<'static>>> {
    let name = || prop::sample::select(["w0", "w1", "w2", "w3", "w4", "w5"].as_slice());
    let row = (name(), name(), 1..50_u64)
        .prop_map(|(source, target, connections)| row(source, target, connections));
    prop::collection::vec(row, 0..30)
}

proptest! {
    #[test]
    fn the_order_of_rows_does_not_matter(rows in any_rows(), limit in 1..10_usize) {
        let mut reversed = rows.clone();
        reversed.reverse();
        prop_assert_eq!(of(rows, limit), of(reversed, limit));
    }

    #[test]
    fn a_graph_is_whole_whatever_the_limit(rows in any_rows(), limit in 1..10_usize) {
        let opened = SUMMED.iter().position(|column| *column == "opened").unwrap();
        let connections: u64 = rows.iter().map(|row| row.sums[opened]).sum();
        let (nodes, edges) = of(rows, limit);
        let ids: BTreeSet<_> = nodes.iter().map(|node| &node.id).collect();
        prop_assert_eq!(ids.len(), nodes.len());
        let edge_ids: BTreeSet<_> = edges.iter().map(|edge| &edge.id).collect();
        prop_assert_eq!(edge_ids.len(), edges.len());
        let ends: BTreeSet<_> = edges.iter().flat_map(|edge| [&edge.source, &edge.target]).collect();
        prop_assert_eq!(&ends, &ids);
        for node in &nodes {
            let of = |edge: &Edge, is_client: bool| {
                *if is_client { &edge.source } else { &edge.target } == node.id
            };
            for (is_client, told) in [(true, &node.as_client), (false, &node.as_server)] {
                let of_it: Vec<_> = edges.iter().filter(|edge| of(edge, is_client)).collect();
                let sum = |of: fn(&Traffic) -> u64| -> (u64, u64) {
                    (of_it.iter().map(|edge| of(&edge.traffic)).sum(), of(told))
                };
                let sums = [
                    sum(|traffic| traffic.connections),
                    sum(|traffic| traffic.sent.bytes),
                    sum(|traffic| traffic.latency.count),
                ];
                prop_assert!(sums.iter().all(|(sum, told)| sum == told), "{}: {sums:?}", node.id);
            }
        }
        let own = edges.iter().filter(|edge| &*edge.source != "other" && &*edge.target != "other");
        prop_assert!(own.count() <= limit);
        for sum in [
            edges.iter().map(|edge| edge.traffic.connections).sum::<u64>(),
            nodes.iter().map(|node| node.as_client.connections).sum(),
            nodes.iter().map(|node| node.as_server.connections).sum(),
        ] {
            prop_assert_eq!(sum, connections);
        }
    }
}
