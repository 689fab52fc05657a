//! The contract with the Node Graph API data source and the node graph panel.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::answer::{Coverage, Window};
use crate::graph::tests::{graph as graph_of, row};
use crate::params::Stat;
use crate::sql::SUMMED;

const WINDOW: Window = Window {
    from: 0,
    to: 10_000,
    requested_from: 0,
    requested_to: 10_000,
    resolution_s: 10,
    complete_until: 10_000,
};

fn graph() -> Graph {
    let mut silent = row("web", "cache", 1);
    for (sum, column) in silent.sums.iter_mut().zip(SUMMED) {
        if ["opened", "duration", "sent", "received"].iter().any(|name| column.starts_with(name)) {
            *sum = 0;
        }
    }
    silent.largest[0] = 0;
    let rows = vec![row("web", "db", 5), row("web", "web", 2), silent];
    let (nodes, edges) = graph_of(rows, Stat::Connections, 10);
    Graph { window: WINDOW, coverage: Coverage::default(), nodes, edges }
}

fn json(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

#[test]
fn data_keeps_the_rules_of_the_panel() {
    for stats_type in [StatsType::Connection, StatsType::Bytes, StatsType::Duration] {
        let (fields, data) = (json(fields(stats_type)), json(data(&graph(), stats_type)));
        for (kind, fields) in [("nodes", "nodes_fields"), ("edges", "edges_fields")]
            .map(|(kind, name)| (kind, fields[name].as_array().unwrap()))
        {
            let mut ids = BTreeSet::new();
            for item in data[kind].as_array().unwrap() {
                assert!(ids.insert(item["id"].as_str().unwrap()), "{item}");
                assert_eq!(item.as_object().unwrap().len(), fields.len(), "{item}");
                for field in fields {
                    let value = &item[field["field_name"].as_str().unwrap()];
                    match field["type"].as_str().unwrap() {
                        "string" => assert!(value.is_string(), "{field} {item}"),
                        _ => assert!(value.is_number(), "{field} {item}"),
                    }
                }
            }
        }
        let nodes = data["nodes"].as_array().unwrap();
        for node in nodes {
            let arcs = node["arc__1"].as_f64().unwrap() + node["arc__2"].as_f64().unwrap();
            assert!((arcs - 1.0).abs() < 1e-9, "{node}");
        }
        for edge in data["edges"].as_array().unwrap() {
            for end in ["source", "target"] {
                assert!(nodes.iter().any(|node| node["id"] == edge[end]), "{edge}");
            }
        }
    }
}

#[test]
fn an_empty_graph_has_two_arrays() {
    let empty = Graph {
        window: WINDOW,
        coverage: Coverage::default(),
        nodes: Vec::new(),
        edges: Vec::new(),
    };
    let data = json(data(&empty, StatsType::Connection));
    assert_eq!(data, serde_json::json!({"nodes": [], "edges": []}));
}

#[test]
fn words_and_colours_are_those_of_the_seed_project() {
    let shown = |stats_type| {
        let data = json(data(&graph(), stats_type));
        let find = |kind: &str, id: &str| {
            let items = data[kind].as_array().unwrap().iter();
            let ends = |item: &&Value| item["id"].as_str().unwrap().ends_with(id);
            let item = items.clone().find(ends).unwrap();
            [&item["mainStat"], &item["secondaryStat"]]
                .map(|stat| stat.as_str().unwrap().to_owned())
        };
        [
            find("nodes", "/web"),
            find("edges", "web>workload:shop/Deployment/db"),
            find("edges", "/cache"),
        ]
    };
    let expected =
        [["all: 7", "persistent: 0"], ["all: 5", "persistent: 0"], ["all: 0", "persistent: 0"]];
    assert_eq!(shown(StatsType::Connection), expected);
    // web received 2 x 2000 + 2 x 1000 from itself in both roles, and 5 x 2000 from db, in 10 s.
    let expected = [
        ["recv: 1.56KB/s", "resp: 1.07KB/s"],
        ["sent: 500.00B/s", "recv: 1000.00B/s"],
        ["sent: 0.00B/s", "recv: 0.00B/s"],
    ];
    assert_eq!(shown(StatsType::Bytes), expected);
    let expected =
        [["avg: 50ms", "max: 80ms"], ["avg: 50ms", "max: 80ms"], ["avg: N/A", "max: N/A"]];
    assert_eq!(shown(StatsType::Duration), expected);

    let colours = |stats_type| {
        let fields = json(fields(stats_type));
        ["arc__1", "arc__2"].map(|name| {
            let fields = fields["nodes_fields"].as_array().unwrap();
            fields.iter().find(|field| field["field_name"] == name).unwrap()["color"].clone()
        })
    };
    assert_eq!(colours(StatsType::Connection), ["green", "red"]);
    assert_eq!(colours(StatsType::Bytes), ["blue", "yellow"]);
    assert_eq!(colours(StatsType::Duration), ["purple", "white"]);
}

#[test]
fn durations_read_well() {
    assert_eq!(duration(0.4), "<0.001s");
    assert_eq!(duration(1_234.5), "1.234s");
    assert_eq!(duration(125_900.0), "2m 5s");
}
