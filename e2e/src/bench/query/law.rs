//! The law that is checked before anything is measured: a graph's sums are what the raw rows add up to.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use clickhouse::{Client, Row};
use serde::Deserialize;
use serde_json::Value;

use super::question::{Asker, FILTERS, Question, Span};
use crate::bench::ingest::store::Engine;

/// What is compared: where an edge of the API has it, and what rows have it. `inside` the window.
const SUMS: &[(&str, &str)] = &[
    (
        "/connections",
        "sumIf(opened + joined, inside) + uniqExactIf(connection_id, NOT inside AND NOT ended)",
    ),
    ("/opened", "sumIf(opened, inside)"),
    ("/closed/fin", "sumIf(closed_fin, inside)"),
    ("/closed/reset_by_server", "sumIf(closed_reset_by_server, inside)"),
    ("/failed", "sumIf(closed_refused + closed_unanswered, inside)"),
    ("/sent/bytes", "sumIf(sent_bytes, inside)"),
    ("/sent/packets", "sumIf(sent_packets, inside)"),
    ("/received/payload_bytes", "sumIf(received_payload_bytes, inside)"),
    ("/retransmits", "sumIf(sent_retransmitted_packets + received_retransmitted_packets, inside)"),
    ("/duration/count", "sumIf(duration_count, inside)"),
    ("/latency/count", "sumIf(syn_to_synack_count, inside)"),
];

/// Graphs that are held against the rows: each window, each grouping, each filter.
const CHECKED: [(&str, Span, usize); 12] = [
    ("pod", Span::FiveMinutes, 0),
    ("workload", Span::Hour, 0),
    ("workload", Span::Hour, 1),
    ("workload", Span::Hour, 2),
    ("workload", Span::Hour, 3),
    ("namespace", Span::SixHours, 0),
    ("namespace", Span::Day, 0),
    ("pod", Span::Day, 1),
    ("workload", Span::Week, 0),
    ("workload", Span::Week, 3),
    ("workload", Span::Month, 2),
    ("namespace", Span::Month, 0),
];

/// As many edges as the API gives, so that none is folded away from its namespaces.
const LIMIT: &str = "&limit=10000";

/// Sums by the namespaces of client and server, both empty for what has none; without zeros.
type Sums = BTreeMap<(String, String), Vec<u64>>;

/// Holds some graphs, whose windows end where `end_s` says, against the rows. How many.
///
/// # Errors
/// If one differs, with the first difference; or has no edge; or is not answered.
pub fn check(
    engine: &Engine,
    client: &Client,
    asker: &Asker,
    mut end_s: impl FnMut() -> u64,
) -> Result<usize> {
    for (group_by, span, filter) in CHECKED {
        let question = Question { group_by, span, filter: FILTERS[filter] };
        let path = question.path(end_s()) + LIMIT;
        let answer = asker.ask(&path)?;
        if !answer.is_graph() {
            bail!("{path} answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        let graph = answer.json()?;
        let told = told(&graph).with_context(|| format!("{path} is not a graph"))?;
        let bound = |end: &str| graph["window"][end].as_u64().context("a window without bounds");
        let (from_s, to_s) = (bound("from")? / 1_000, bound("to")? / 1_000);
        let summed = summed(engine, client, [from_s, to_s], question.filter.condition)?;
        if told.is_empty() {
            bail!("{path} has no edge");
        }
        if told != summed {
            bail!("{path} is not what the rows add up to: {}", difference(&told, &summed));
        }
    }
    Ok(CHECKED.len())
}

/// What a graph says.
fn told(graph: &Value) -> Option<Sums> {
    let text = |value: &Value, name: &str| value[name].as_str().map(str::to_owned);
    let mut namespaces = BTreeMap::new();
    for node in graph["nodes"].as_array()? {
        let is_namespace = node["kind"] == "namespace";
        let namespace = text(node, if is_namespace { "name" } else { "namespace" })?;
        namespaces.insert(text(node, "id")?, namespace);
    }
    let mut told = Sums::new();
    for edge in graph["edges"].as_array()? {
        let namespace = |end| namespaces.get(edge[end].as_str()?).cloned();
        let sums = told.entry((namespace("source")?, namespace("target")?)).or_default();
        sums.resize(SUMS.len(), 0);
        for (sum, (pointer, _)) in sums.iter_mut().zip(SUMS) {
            *sum += edge.pointer(pointer)?.as_u64()?;
        }
    }
    told.retain(|_, sums| sums.iter().any(|sum| *sum > 0));
    Some(told)
}

/// What the primary rows of a window add up to. Connections open at its start are those with a row in
/// the minute before, in which every open one has one, and no close there.
fn summed(
    engine: &Engine,
    client: &Client,
    [from_s, to_s]: [u64; 2],
    condition: &str,
) -> Result<Sums> {
    #[derive(Row, Deserialize)]
    struct Pair {
        client_namespace: String,
        server_namespace: String,
        sums: Vec<u64>,
    }
    let sums: Vec<_> = SUMS.iter().map(|(_, sql)| format!("toUInt64({sql})")).collect();
    let statement = format!(
        "WITH interval_start >= toDateTime({{from:UInt32}}, 'UTC') AS inside,
            connection_id IN (
                SELECT connection_id FROM flows
                WHERE primary AND interval_start >= toDateTime({{minute:UInt32}}, 'UTC')
                    AND interval_start < toDateTime({{from:UInt32}}, 'UTC')
                    AND closed_fin + closed_reset_by_client + closed_reset_by_server + closed_refused
                        + closed_unanswered + closed_idle + closed_superseded + closed_evicted > 0
            ) AS ended
        SELECT toString(client_namespace) AS client_namespace, toString(server_namespace) AS server_namespace, [{}] AS sums
        FROM flows
        WHERE primary AND interval_start >= toDateTime({{minute:UInt32}}, 'UTC')
            AND interval_start < toDateTime({{to:UInt32}}, 'UTC') AND ({condition})
        GROUP BY client_namespace, server_namespace
        HAVING arraySum(sums) > 0",
        sums.join(", ")
    );
    let minute = (from_s - 1) / 60 * 60;
    let query = client.query_raw(&statement);
    let query = query.param("from", from_s).param("to", to_s).param("minute", minute);
    let pairs: Vec<Pair> = engine.block_on(query.fetch_all())?;
    let pairs =
        pairs.into_iter().map(|pair| ((pair.client_namespace, pair.server_namespace), pair.sums));
    Ok(pairs.collect())
}

fn difference(told: &Sums, summed: &Sums) -> String {
    let pair = told.keys().chain(summed.keys()).find(|pair| told.get(pair) != summed.get(pair));
    let Some(pair @ (client, server)) = pair else { return "no difference".to_owned() };
    let names: Vec<_> = SUMS.iter().map(|(pointer, _)| *pointer).collect();
    format!(
        "{client:?} to {server:?}, {names:?}: the graph says {:?}, the rows {:?}",
        told.get(pair),
        summed.get(pair)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_summed_by_the_namespaces_of_their_ends() {
        let edge = |source: &str, bytes: u64| {
            serde_json::json!({
                "source": source, "target": "external:192.0.2.7", "connections": 1, "opened": 1,
                "closed": {"fin": 1, "reset_by_server": 0}, "failed": 0, "retransmits": 0,
                "sent": {"bytes": bytes, "packets": 2}, "received": {"payload_bytes": 3},
                "duration": {"count": 1}, "latency": {"count": 1},
            })
        };
        let graph = serde_json::json!({
            "nodes": [
                {"id": "a", "kind": "workload", "namespace": "shop", "name": "web"},
                {"id": "b", "kind": "namespace", "namespace": "", "name": "shop"},
                {"id": "external:192.0.2.7", "kind": "external", "namespace": "", "name": "192.0.2.7"},
            ],
            "edges": [edge("a", 100), edge("b", 23)],
        });
        let told = told(&graph).unwrap();
        let pair = ("shop".to_owned(), String::new());
        assert_eq!(told, Sums::from([(pair, vec![2, 2, 2, 0, 0, 123, 4, 6, 0, 2, 2])]));
        assert!(difference(&told, &Sums::new()).contains("the rows None"));
    }
}
