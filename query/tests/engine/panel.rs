//! Bare arrays for Grafana's Infinity data source, against the real engine.

use flowtrail_schema::row::FlowRow;
use serde_json::{Value, json};

use crate::common::{Served, T0, row, served};

fn array(served: &Served, path: &str, pairs: &[(&str, &str)]) -> Vec<Value> {
    let (from, to) = (format!("{T0}000"), format!("{}000", T0 + 20));
    let window = [("from", from.as_str()), ("to", to.as_str())];
    let answer = served.get(path, &[&window, pairs].concat());
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn nodes_and_edges_are_of_one_graph() {
    let served = served("panel");
    assert!(array(&served, "/api/v1/graph/nodes", &[]).is_empty());
    assert!(array(&served, "/api/v1/graph/edges", &[]).is_empty());

    let refused = FlowRow { opened: 1, closed_refused: 1, ..row(T0, 1) };
    let elsewhere = FlowRow {
        opened: 1,
        server_workload: "cache".to_owned(),
        sent_bytes: 300,
        ..row(T0 + 10, 2)
    };
    served.insert("flows", &[refused, elsewhere]);
    let pairs = [("stat", "bytes")];
    let nodes = array(&served, "/api/v1/graph/nodes", &pairs);
    let edges = array(&served, "/api/v1/graph/edges", &pairs);
    let titles: Vec<_> = nodes.iter().map(|node| &node["title"]).collect();
    assert_eq!(titles, [&json!("web"), &json!("cache"), &json!("db")]);
    assert_eq!(edges[0]["mainstat"], "sent 15.00 B/s");
    let failed: Vec<_> = edges.iter().map(|edge| &edge["detail__failed"]).collect();
    assert_eq!(failed, [&json!(0), &json!(1)]);
    assert_ne!(edges[0]["color"], edges[1]["color"]);
    for end in edges.iter().flat_map(|edge| [&edge["source"], &edge["target"]]) {
        assert!(nodes.iter().any(|node| node["id"] == *end), "{end}");
    }
    let problem = served.problem("/api/v1/graph/nodes", &[("stat", "x")]);
    assert_eq!(problem.parameter.as_deref(), Some("stat"));
}
