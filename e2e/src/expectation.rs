//! What `/api/v1/graph` must say about the demo's traffic: each workload edge once, with the bytes
//! that the programs transferred and the kernel counted.

use serde_json::Value;

use crate::traffic::{Outcome, Truth};

/// Every way in which a graph (group_by=workload) differs from the truth; none if it is right.
pub fn differences(graph: &Value, truths: &[Truth]) -> Vec<String> {
    let mut differences = Vec::new();
    let edges = graph["edges"].as_array().map(Vec::as_slice).unwrap_or_default();
    for truth in truths {
        let (client, server) = (label(truth.traffic.client), label(truth.traffic.server));
        let name = format!("{client} -> {server}");
        let ends = (client, server);
        let mut found = edges.iter().filter(|edge| ends_of(graph, edge) == ends);
        match (found.next(), found.next()) {
            (Some(edge), None) => compare(&name, edge, truth, &mut differences),
            (None, _) => differences.push(format!("{name}: no edge")),
            (Some(_), Some(_)) => differences.push(format!("{name}: more than one edge")),
        }
    }
    for edge in edges {
        let ends = ends_of(graph, edge);
        let expected = truths
            .iter()
            .any(|truth| ends == (label(truth.traffic.client), label(truth.traffic.server)));
        if !expected {
            differences.push(format!("{} -> {}: not expected", ends.0, ends.1));
        }
    }
    differences
}

fn compare(name: &str, edge: &Value, truth: &Truth, differences: &mut Vec<String>) {
    let done = truth.transferred;
    let attempts = done.connections + done.failed;
    let closed = |reason: &str| edge["closed"][reason].as_u64().unwrap_or(0);
    let closed_total: u64 = edge["closed"]
        .as_object()
        .map_or(0, |reasons| reasons.values().filter_map(Value::as_u64).sum());
    let mut expect = |what: &str, is: Option<u64>, should: u64| {
        if is != Some(should) {
            differences.push(format!("{name}: {what} is {is:?}, should be {should}"));
        }
    };
    expect("connections", edge["connections"].as_u64(), attempts);
    expect("opened", edge["opened"].as_u64(), attempts);
    expect("failed", edge["failed"].as_u64(), done.failed);
    // What the programs transferred, and what the kernel sent again of it: on a busy machine it now and
    // then does, before the acknowledgment has come. nftables counts that too.
    for (direction, transferred) in [("sent", done.sent), ("received", done.received)] {
        let counters = &edge[direction];
        let payload = counters["payload_bytes"].as_u64();
        let again = counters["retransmitted_packets"].as_u64().unwrap_or_default();
        let more = payload.and_then(|payload| payload.checked_sub(transferred));
        let is_again = more.is_some_and(|more| more > 0 && more <= again * u64::from(u16::MAX));
        let field = format!("{direction}.payload_bytes");
        expect(&field, payload, if is_again { payload.unwrap_or_default() } else { transferred });
    }
    expect("sent.bytes", edge["sent"]["bytes"].as_u64(), truth.sent_bytes);
    expect("received.bytes", edge["received"]["bytes"].as_u64(), truth.received_bytes);
    match truth.traffic.outcome {
        Outcome::Closed => expect("closed.fin", Some(closed("fin")), attempts),
        Outcome::StaysOpen => expect("closes", Some(closed_total), 0),
        Outcome::Refused => expect("closed.refused", Some(closed("refused")), attempts),
        Outcome::Unanswered => expect("closed.unanswered", Some(closed("unanswered")), attempts),
    }
    let services: Vec<&str> =
        edge["services"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    // A Service may be written with its namespace.
    let named = |service: &str| services.iter().any(|s| s.rsplit('/').next() == Some(service));
    if let Some(service) = truth.traffic.service.filter(|service| !named(service)) {
        differences.push(format!("{name}: services are {services:?}, without {service}"));
    }
}

/// The two ends of an edge, as `namespace/workload`, or an address where there is no workload.
fn ends_of(graph: &Value, edge: &Value) -> (String, String) {
    let end = |id: &Value| {
        let nodes = graph["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(node) = nodes.iter().find(|node| node["id"] == *id) else {
            return format!("(no node {id})");
        };
        let text = |field: &str| node[field].as_str().unwrap_or_default();
        match text("workload") {
            "" => text("name").to_owned(),
            workload => label((text("namespace"), workload)),
        }
    };
    (end(&edge["source"]), end(&edge["target"]))
}

fn label((namespace, workload): (&str, &str)) -> String {
    if namespace.is_empty() { workload.to_owned() } else { format!("{namespace}/{workload}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::TRAFFIC;
    use crate::workload::Transferred;
    use serde_json::json;

    fn truth() -> Truth {
        let transferred = Transferred { connections: 2, failed: 0, sent: 10, received: 20 };
        Truth { traffic: TRAFFIC[0], transferred, sent_bytes: 100, received_bytes: 200 }
    }

    fn graph() -> Value {
        json!({
            "nodes": [
                {"id": "a", "namespace": "clients", "workload": "visitors", "name": "visitors"},
                {"id": "b", "namespace": "shop", "workload": "web", "name": "web"},
            ],
            "edges": [{
                "source": "a", "target": "b", "connections": 2, "opened": 2, "failed": 0,
                "closed": {"fin": 2}, "services": ["shop/web"],
                "sent": {"bytes": 100, "payload_bytes": 10},
                "received": {"bytes": 200, "payload_bytes": 20},
            }],
        })
    }

    #[test]
    fn the_truth_has_no_differences() {
        assert_eq!(differences(&graph(), &[truth()]), Vec::<String>::new());
    }

    #[test]
    fn a_byte_too_many_a_second_edge_and_a_missing_one_are_differences() {
        let mut wrong = graph();
        wrong["edges"][0]["sent"]["bytes"] = 101.into();
        assert_eq!(differences(&wrong, &[truth()]).len(), 1);

        let mut twice = graph();
        let edge = twice["edges"][0].clone();
        twice["edges"].as_array_mut().unwrap().push(edge);
        assert_eq!(differences(&twice, &[truth()]).len(), 1);

        assert_eq!(differences(&json!({"nodes": [], "edges": []}), &[truth()]).len(), 1);
        assert_eq!(differences(&graph(), &[]).len(), 1);
    }
}
