//! The API's description (OpenAPI 3.1): answers as their types' comments say, parameters as they are parsed.

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::answer::Graph;
use crate::connections::Connections;
use crate::coverage::CoverageSteps;
use crate::diff::Diff;
use crate::expression::Expression;
use crate::infinity::{PanelEdge, PanelNode};
use crate::nodegraph;
use crate::params::{
    DEFAULT_COVERAGE_POINTS, DEFAULT_EDGES, DEFAULT_LIMIT, DEFAULT_PAGE, DEFAULT_POINTS,
    DEFAULT_SERIES, DEFAULT_THRESHOLD, DEFAULT_VALUES, GroupBy, MAX_LIMIT, MAX_LIST, MAX_PAGE,
    MAX_PATTERN_LENGTH, MAX_POINTS, MAX_SEARCH, MAX_SERIES, MAX_THRESHOLD, MIN_THRESHOLD, Of,
    Order, Split, SplitSide, Stat, StatsType,
};
use crate::problem::Problem;
use crate::timeseries::TimeSeries;
use crate::values::Values;
use flowtrail_schema::row::EntityKind;

/// The description, as `/openapi.json` answers it.
pub(crate) fn document() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| describe().to_string())
}

fn describe() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let problem = schema::<Problem>(&mut generator);
    let mut paths = Map::new();
    let mut add = |path: &str, operation: Value| {
        paths.insert(path.to_owned(), json!({ "get": operation }));
    };
    add(
        "/api/v1/graph",
        question(
            "Who talked to whom in a window",
            graph_parameters(),
            &schema::<Graph>(&mut generator),
        ),
    );
    let summary = "The graph's nodes, as Grafana's Infinity data source takes them";
    let answer = schema::<Vec<PanelNode>>(&mut generator);
    add("/api/v1/graph/nodes", question(summary, graph_parameters(), &answer));
    let summary = "The graph's edges, as Grafana's Infinity data source takes them";
    let answer = schema::<Vec<PanelEdge>>(&mut generator);
    add("/api/v1/graph/edges", question(summary, graph_parameters(), &answer));
    let answer = schema::<TimeSeries>(&mut generator);
    add("/api/v1/timeseries", question("A stat over time", series_parameters(), &answer));
    let answer = schema::<Diff>(&mut generator);
    add("/api/v1/diff", question("What differs between two windows", diff_parameters(), &answer));
    let answer = schema::<CoverageSteps>(&mut generator);
    let summary = "What each agent saw, in steps of time";
    add("/api/v1/coverage", question(summary, coverage_parameters(), &answer));
    add(
        "/api/v1/connections",
        question(
            "The connections of an edge, each with all observations, and what its sides disagree in",
            connections_parameters(),
            &schema::<Connections>(&mut generator),
        ),
    );
    let mut values = question(
        "What there is to choose from in a window",
        values_parameters(),
        &schema::<Values>(&mut generator),
    );
    values["responses"]["404"] = json!({ "$ref": "#/components/responses/Problem" });
    add("/api/v1/values/{of}", values);
    add(
        "/nodegraph/api/health",
        probe("The Node Graph API data source's check", "text/plain", true),
    );
    let summary = "The fields of the node graph's data";
    let answer = schema::<nodegraph::Fields>(&mut generator);
    add("/nodegraph/api/graph/fields", question(summary, nodegraph_parameters(), &answer));
    let summary = "The graph for the Node Graph API data source";
    let answer = schema::<nodegraph::Data>(&mut generator);
    add("/nodegraph/api/graph/data", question(summary, nodegraph_parameters(), &answer));
    add("/openapi.json", probe("This description", "application/json", false));
    add("/healthz", probe("Whether the process is alive", "text/plain", false));
    let mut ready = probe("Whether it can answer", "text/plain", false);
    ready["responses"]["503"] =
        content("What it waits for", "text/plain", &json!({"type": "string"}));
    add("/readyz", ready);
    let mut metrics = probe("Metrics", "application/openmetrics-text", true);
    metrics["responses"]["403"] = json!({ "$ref": "#/components/responses/Problem" });
    add("/metrics", metrics);

    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Flowtrail query",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Who talked to whom, when, how much, and did it work: for any window of the past.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": {
                "Problem": content("What is wrong and what to do about it (RFC 9457)", Problem::CONTENT_TYPE, &problem),
            },
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "A token of --token-file" },
                "basic": { "type": "http", "scheme": "basic", "description": "That token as the password of any user" },
            },
        },
    })
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

/// Without `--token-file` no token is asked for, so both have an alternative.
fn security() -> Value {
    json!([{}, { "bearer": [] }, { "basic": [] }])
}

/// A route that computes its answer from parameters.
fn question(summary: &str, parameters: Vec<Value>, answer: &Value) -> Value {
    let mut found = content("The answer", "application/json", answer);
    found["headers"] = json!({
        "Cache-Control": { "description": "Whether it may be kept: on complete windows of the past", "schema": { "type": "string" } },
        "ETag": { "description": "Of an answer that may be kept", "schema": { "type": "string" } },
        "Server-Timing": { "description": "What it took, milliseconds: total; clickhouse, waiting for its rows, of that; queue, waiting before. shared: it was there", "schema": { "type": "string" } },
    });
    let mut responses = Map::new();
    responses.insert("200".to_owned(), found);
    responses.insert(
        "304".to_owned(),
        json!({ "description": "The caller has the answer (If-None-Match)" }),
    );
    for status in ["400", "401", "403", "421", "422", "429", "500", "503", "504"] {
        responses.insert(status.to_owned(), json!({ "$ref": "#/components/responses/Problem" }));
    }
    // Beyond 64 KiB HTTP refuses by itself: nothing of the service has seen the request.
    for (status, description) in [
        ("414", "The URL is longer than 32 KiB: a problem; of 64 KiB or more, without a body"),
        ("431", "The head of the request is larger than 64 KiB; without a body"),
    ] {
        responses.insert(status.to_owned(), json!({ "description": description }));
    }
    json!({ "summary": summary, "parameters": parameters, "responses": responses, "security": security() })
}

/// A route that has one answer.
fn probe(summary: &str, media_type: &str, guarded: bool) -> Value {
    let schema = if media_type.ends_with("json") { json!({}) } else { json!({ "type": "string" }) };
    let mut responses = Map::new();
    responses.insert("200".to_owned(), content(summary, media_type, &schema));
    let mut operation = json!({ "summary": summary });
    if guarded {
        responses.insert("401".to_owned(), json!({ "$ref": "#/components/responses/Problem" }));
        operation["security"] = security();
    }
    operation["responses"] = Value::Object(responses);
    operation
}

fn content(description: &str, media_type: &str, schema: &Value) -> Value {
    json!({ "description": description, "content": { media_type: { "schema": schema } } })
}

fn graph_parameters() -> Vec<Value> {
    let folds = "Edges at most; the rest is folded into one node, other";
    ranked(folds, MAX_LIMIT, DEFAULT_LIMIT)
}

/// What all that rank edges take; what `limit` does is each one's own.
fn ranked(what_limit_does: &str, most: usize, default: usize) -> Vec<Value> {
    let mut parameters = filtering();
    parameters.extend([
        parameter("stat", "What edges are ranked by, largest first", &words(Stat::WORDS)),
        parameter("limit", what_limit_does, &limit(most, default)),
    ]);
    parameters
}

/// The window, what a node is, and which rows count.
fn filtering() -> Vec<Value> {
    let kinds: Vec<_> = EntityKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let port = json!({ "type": "integer", "minimum": 1, "maximum": 65_535 });
    let expression = json!({
        "type": "string",
        "maxLength": Expression::MAX_LENGTH,
        "examples": ["server.port = 5432 and client.namespace != server.namespace"],
    });
    let id = json!({ "type": "string" });
    let [from, to] = window();
    vec![
        from,
        to,
        parameter("group_by", "What a node of the graph is", &words(GroupBy::WORDS)),
        names("namespace", "Keep edges with either end in one of these"),
        names(
            "workload",
            "Keep edges with either end of one of these workloads, as namespace/name, or the name of what has no namespace",
        ),
        parameter("include", "Keep edges with either end's name or address matching", &pattern()),
        parameter(
            "exclude",
            "Leave out edges with either end's name or address matching; wins over include",
            &pattern(),
        ),
        list("port", "Keep edges with one of these server ports", &port),
        list("kind", "Keep edges with either end of one of these kinds", &json!({ "enum": kinds })),
        parameter("q", "Keep what an expression says: docs/filters.md", &expression),
        parameter("edge", "Of the edge with this id, in a graph of the same group_by", &id),
        parameter("source", "Of edges with this node as client", &id),
        parameter("target", "Of edges with this node as server", &id),
    ]
}

fn series_parameters() -> Vec<Value> {
    let sums = "Series at most; the rest is summed into one, other";
    let mut parameters = ranked(sums, MAX_SERIES, DEFAULT_SERIES);
    parameters.extend([
        parameter("split", "What a series is of", &words(Split::WORDS)),
        parameter("side", "By which end connections belong to a node", &words(SplitSide::WORDS)),
        parameter("points", "Points of a series at most", &points(DEFAULT_POINTS)),
    ]);
    parameters
}

fn diff_parameters() -> Vec<Value> {
    let distance = json!({ "type": "string", "examples": ["-1d", "-7d"] });
    let instant = json!({ "type": "string", "examples": ["now-25h", "1700000000000"] });
    let threshold = json!({
        "type": "number", "minimum": MIN_THRESHOLD, "maximum": MAX_THRESHOLD, "default": DEFAULT_THRESHOLD,
    });
    let mut parameters = ranked("Edges listed at most", MAX_LIMIT, DEFAULT_EDGES);
    parameters.extend([
        parameter("base", "How long before the window the one to compare with is", &distance),
        parameter("base_from", "Start of the window to compare with, as `from`", &instant),
        parameter("base_to", "Its end, as `to`; by default where the window begins", &instant),
        parameter("threshold", "How many times what it was makes a change", &threshold),
    ]);
    parameters
}

fn coverage_parameters() -> Vec<Value> {
    let [from, to] = window();
    vec![from, to, parameter("points", "Steps at most", &points(DEFAULT_COVERAGE_POINTS))]
}

fn points(default: u32) -> Value {
    json!({ "type": "integer", "minimum": 2, "maximum": MAX_POINTS, "default": default })
}

fn connections_parameters() -> Vec<Value> {
    let cursor = json!({ "type": "string" });
    let mut parameters = filtering();
    parameters.extend([
        parameter("order", "Which connections come first", &words(Order::WORDS)),
        parameter("limit", "Connections at most", &limit(MAX_PAGE, DEFAULT_PAGE)),
        parameter("cursor", "The page after: `next` of the one before", &cursor),
    ]);
    parameters
}

fn values_parameters() -> Vec<Value> {
    let text = json!({ "type": "string", "maxLength": MAX_SEARCH });
    let [from, to] = window();
    vec![
        json!({
            "name": "of", "in": "path", "required": true, "description": "What there are values of",
            "schema": words(Of::WORDS),
        }),
        from,
        to,
        list("namespace", "Of ends in one of these", &json!({ "type": "string" })),
        parameter("prefix", "What values begin with", &text),
        parameter("contains", "What values have somewhere in them", &text),
        parameter("limit", "Values at most", &limit(MAX_LIMIT, DEFAULT_VALUES)),
    ]
}

fn limit(most: usize, default: usize) -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": most, "default": default })
}

fn nodegraph_parameters() -> Vec<Value> {
    let [from, to] = window();
    vec![
        from,
        to,
        parameter("group_by", "What a node of the graph is", &words(GroupBy::WORDS)),
        parameter("namespace", "Keep edges with either end's namespace matching", &pattern()),
        parameter("include", "Keep edges with either end's name or address matching", &pattern()),
        parameter(
            "exclude",
            "Leave out edges with either end's name or address matching; wins over include",
            &pattern(),
        ),
        parameter("stats-type", "What the node graph shows", &words(StatsType::WORDS)),
    ]
}

fn window() -> [Value; 2] {
    let instant = json!({ "type": "string", "examples": ["now-6h", "1700000000000", "2023-11-14T22:13:20Z"] });
    let takes = "epoch milliseconds, an RFC 3339 time, now, or now-6h and the like";
    [
        parameter(
            "from",
            &format!("Start of the window, before its end: {takes}; by default an hour before it"),
            &instant,
        ),
        parameter("to", &format!("End of the window: {takes}; by default now"), &instant),
    ]
}

fn words(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

fn pattern() -> Value {
    json!({ "type": "string", "format": "regex", "maxLength": MAX_PATTERN_LENGTH })
}

/// One without a value is as good as absent.
fn parameter(name: &str, description: &str, schema: &Value) -> Value {
    json!({ "name": name, "in": "query", "description": description, "allowEmptyValue": true, "schema": schema })
}

/// A list of names: of whatever texts.
fn names(name: &str, description: &str) -> Value {
    list(name, description, &json!({ "type": "string" }))
}

/// Repeated, or separated by commas.
fn list(name: &str, description: &str, items: &Value) -> Value {
    let schema = json!({ "type": "array", "items": items, "maxItems": MAX_LIST });
    let mut parameter =
        parameter(name, &format!("{description}; repeated, or separated by commas"), &schema);
    parameter["style"] = json!("form");
    parameter["explode"] = json!(true);
    parameter
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use regex::Regex;

    use super::*;
    use crate::params::{
        ConnectionsRequest, CoverageRequest, DiffRequest, GraphRequest, NodeGraphRequest,
        SeriesRequest, ValuesRequest,
    };

    #[test]
    fn every_route_is_described() {
        let document = describe();
        let described: BTreeSet<_> =
            document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let route = Regex::new(r#"\.route\("([^"]+)""#).unwrap();
        let sources = [include_str!("http.rs"), include_str!("../../service/src/admin.rs")];
        let routes = sources.iter().flat_map(|source| route.captures_iter(source));
        let routes: BTreeSet<_> = routes.map(|found| found.extract::<1>().1[0]).collect();
        assert_eq!(described, routes);
    }

    #[test]
    fn every_parameter_that_is_taken_is_described() {
        let names = |parameters: Vec<Value>| {
            let name = |parameter: &Value| parameter["name"].as_str().unwrap().to_owned();
            parameters.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(graph_parameters()), GraphRequest::TAKEN);
        assert_eq!(names(nodegraph_parameters()), NodeGraphRequest::TAKEN);
        assert_eq!(names(connections_parameters()), ConnectionsRequest::TAKEN);
        assert_eq!(names(values_parameters())[1..], *ValuesRequest::TAKEN);
        let series = [GraphRequest::TAKEN, SeriesRequest::TAKEN].concat();
        assert_eq!(names(series_parameters()), series);
        assert_eq!(names(coverage_parameters()), CoverageRequest::TAKEN);
        let diff = [GraphRequest::TAKEN, DiffRequest::TAKEN].concat();
        assert_eq!(names(diff_parameters()), diff);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_field_is_explained() {
        let document = describe();
        let text = document.to_string();
        let reference = Regex::new(r##""\$ref":"#([^"]+)""##).unwrap();
        for found in reference.captures_iter(&text) {
            assert!(document.pointer(&found[1]).is_some(), "{}", &found[1]);
        }
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
                let explained = schema["description"].is_string() || schema["$ref"].is_string();
                assert!(explained, "{name}.{field}");
            }
        }
    }
}
