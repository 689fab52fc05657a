//! The contract with the node graph panel: see Grafana's own sources, `public/app/plugins/panel/nodeGraph`.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;
use crate::answer::{Coverage, Window};
use crate::graph::tests::{any_rows, graph as graph_of};
use crate::sql::EdgeRow;

const STATS: [Stat; 7] = [
    Stat::Connections,
    Stat::Bytes,
    Stat::Packets,
    Stat::Duration,
    Stat::Latency,
    Stat::Retransmits,
    Stat::Failures,
];

fn graph(rows: Vec<EdgeRow<'_>>, stat: Stat) -> Graph {
    let window = Window {
        from: 0,
        to: 10_000,
        requested_from: 0,
        requested_to: 10_000,
        resolution_s: 10,
        complete_until: 10_000,
    };
    let (nodes, edges) = graph_of(rows, stat, 5);
    Graph { window, coverage: Coverage::default(), nodes, edges }
}

fn items(value: impl Serialize) -> Vec<Map<String, Value>> {
    serde_json::from_value(serde_json::to_value(value).unwrap()).unwrap()
}

fn ids(items: &[Map<String, Value>]) -> BTreeSet<&str> {
    items.iter().map(|item| item["id"].as_str().unwrap()).collect()
}

/// What the panel asks of both arrays.
fn keeps_the_rules(nodes: &[Map<String, Value>], edges: &[Map<String, Value>]) {
    for kind in [nodes, edges] {
        assert_eq!(ids(kind).len(), kind.len(), "ids are unique");
        for item in kind {
            assert!(item.keys().eq(kind[0].keys()), "every item has every field");
            for (name, value) in item {
                let known = match name.as_str() {
                    "id" | "source" | "target" | "title" | "subtitle" | "mainstat"
                    | "secondarystat" | "color" => value.is_string(),
                    "thickness" => value.is_number(),
                    name if name.starts_with("arc__") => {
                        value.as_f64().is_some_and(|arc| (0.0..=1.0).contains(&arc))
                    }
                    name if name.starts_with("detail__") => {
                        value.is_string() || value.is_number() || value.is_null()
                    }
                    _ => false,
                };
                assert!(known && name.chars().all(|c| !c.is_uppercase()), "{name}: {value}");
            }
        }
    }
    for node in nodes {
        let arcs = node.iter().filter(|(name, _)| name.starts_with("arc__"));
        let sum: f64 = arcs.map(|(_, arc)| arc.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{node:?}");
    }
    for edge in edges {
        for end in ["source", "target"] {
            assert!(ids(nodes).contains(edge[end].as_str().unwrap()), "{edge:?}");
        }
        let thickness = edge["thickness"].as_f64().unwrap();
        assert!((THICKNESS.0..=THICKNESS.1).contains(&thickness), "{edge:?}");
        let failed = edge["detail__failed"].as_u64().unwrap() > 0;
        assert_eq!(edge["color"] == RED, failed, "{edge:?}");
    }
}

proptest! {
    #[test]
    fn answers_keep_the_rules_of_the_panel(rows in any_rows()) {
        for stat in STATS {
            let graph = graph(rows.clone(), stat);
            keeps_the_rules(&items(nodes(&graph, stat)), &items(edges(&graph, stat)));
        }
    }
}

#[test]
fn an_empty_window_is_two_empty_arrays() {
    let graph = graph(Vec::new(), Stat::Bytes);
    assert_eq!(serde_json::to_value(nodes(&graph, Stat::Bytes)).unwrap(), serde_json::json!([]));
    assert_eq!(serde_json::to_value(edges(&graph, Stat::Bytes)).unwrap(), serde_json::json!([]));
}

#[test]
fn each_stat_has_its_texts() {
    let rows = vec![crate::graph::tests::row("web", "db", 5)];
    let texts = |stat| {
        let graph = graph(rows.clone(), stat);
        let (nodes, edges) = (items(nodes(&graph, stat)), items(edges(&graph, stat)));
        assert_eq!((&nodes[0]["title"], edges[0]["thickness"].as_f64()), (&"db".into(), Some(8.0)));
        [&nodes[0], &edges[0]].map(|item| {
            let text = |name: &str| item[name].as_str().unwrap().to_owned();
            format!("{}, {}", text("mainstat"), text("secondarystat"))
        })
    };
    // Of the server and of the edge to it, in 10 s.
    let expected = [
        ["5 connections, 0 open", "5 connections, 0 open"],
        ["sent 1000.00 B/s, received 500.00 B/s", "sent 500.00 B/s, received 1000.00 B/s"],
        [
            "sent 10.00 packets/s, received 5.00 packets/s",
            "sent 5.00 packets/s, received 10.00 packets/s",
        ],
        ["avg 50ms, max 80ms", "avg 50ms, max 80ms"],
        ["serves p95 1ms, calls p95 –", "p95 1ms, avg 1ms"],
        ["10 retransmitted, 6.67 % of packets", "10 retransmitted, 6.67 % of packets"],
        ["3 failed, 5 connections", "3 failed, 5 connections"],
    ];
    assert_eq!(STATS.map(texts), expected);
}
