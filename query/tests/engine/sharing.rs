//! Who asks what was asked a moment ago gets the same answer, and costs ClickHouse nothing.

use flowtrail_query::{Config, Graph};
use flowtrail_schema::row::CoverageRow;

use crate::common::{Answer, Served, T0, config, report, row, served, served_as};

/// The header of a dashboard, which takes what is kept.
const KEPT: (&str, &str) = ("cache-control", "max-age=60");

/// A window of the past that agents saw all of: its answers are kept for minutes, however slow this machine is.
fn settled(served: Served) -> Served {
    served.insert("flows", &[opened(T0, 1)]);
    let clean =
        |start| CoverageRow { packets_dropped: 0, records_dropped: 0, ..report("n1", start) };
    served.insert("coverage", &(0..6).map(|at| clean(T0 + at * 10)).collect::<Vec<_>>());
    as_dashboard(served)
}

fn opened(start: u32, connection: u64) -> flowtrail_schema::row::FlowRow {
    flowtrail_schema::row::FlowRow { opened: 1, ..row(start, connection) }
}

fn as_dashboard(mut served: Served) -> Served {
    served.headers.push((KEPT.0, KEPT.1.to_owned()));
    served
}

/// An answer for the window, whose bounds are moved by some milliseconds.
fn ask(served: &Served, path: &str, moved_ms: i64, pairs: &[(&str, &str)]) -> Answer {
    let at = |second: u32| (i64::from(T0 + second) * 1_000 + moved_ms).to_string();
    let (from, to) = (at(0), at(55));
    let window = [("from", from.as_str()), ("to", to.as_str())];
    let answer = served.get(path, &[&window, pairs].concat());
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

/// Whether ClickHouse was not asked at all.
fn is_shared(answer: &Answer) -> bool {
    let timing = answer.header("server-timing");
    let cost_nothing = timing.contains("clickhouse;dur=0.0");
    assert_eq!(timing.ends_with(", shared"), cost_nothing, "{timing}");
    cost_nothing
}

#[test]
fn nodes_and_edges_of_a_panel_are_of_one_graph() {
    let served = settled(served("shared_panel"));
    assert!(!is_shared(&ask(&served, "/api/v1/graph/nodes", 0, &[])));
    assert!(is_shared(&ask(&served, "/api/v1/graph/edges", 0, &[])));
    let metrics = served.get("/metrics", &[]).body;
    for line in [
        r#"flowtrail_query_answers_total{source="computed"} 1"#,
        r#"flowtrail_query_answers_total{source="shared"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    // Bounds within the same intervals, and they are told as they were asked for.
    let answer = ask(&served, "/api/v1/graph", 1_234, &[]);
    assert!(is_shared(&answer));
    let graph: Graph = serde_json::from_str(&answer.body).unwrap();
    let window = graph.window;
    assert_eq!((window.requested_from, window.from), (window.from + 1_234, i64::from(T0) * 1_000));
    assert!(!is_shared(&ask(&served, "/api/v1/graph", 10_000, &[])));
    assert!(!is_shared(&ask(&served, "/api/v1/graph", 0, &[("namespace", "shop")])));
    assert!(!is_shared(&ask(&served, "/api/v1/graph", 0, &[("stat", "bytes")])));
}

#[test]
fn all_that_dashboards_ask_for_is_shared() {
    let served = settled(served("shared_answers"));
    for path in ["/api/v1/timeseries", "/api/v1/values/workloads", "/api/v1/coverage"] {
        let first = ask(&served, path, 0, &[]);
        let second = ask(&served, path, 0, &[]);
        assert!(is_shared(&second), "{path}");
        assert_eq!(first.body, second.body);
    }
}

#[test]
fn who_asks_for_it_sees_what_is_there_this_instant() {
    let served = settled(served("shared_anew"));
    let connections = |served: &Served| {
        let graph: Graph =
            serde_json::from_str(&ask(served, "/api/v1/graph", 0, &[]).body).unwrap();
        graph.edges[0].traffic.connections
    };
    assert_eq!(connections(&served), 1);
    served.insert("flows", &[opened(T0 + 10, 2)]);
    assert_eq!(connections(&served), 1);
    let headers = vec![("cache-control", "max-age=0, No-Cache".to_owned())];
    let served = Served { headers, ..served };
    assert_eq!(connections(&served), 2);
    // And so do those who come after.
    assert_eq!(connections(&Served { headers: vec![(KEPT.0, KEPT.1.to_owned())], ..served }), 2);
}

#[test]
fn what_one_may_see_is_not_given_to_another() {
    const ALL: &str = "0123456789abcdef0123456789abcdef";
    const BANK: &str = "0123456789abcdef0123456789abcdee";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    std::fs::write(&path, format!("all {ALL} *\nbank {BANK} bank\n")).unwrap();
    let mut served =
        settled(served_as("shared_tokens", Config { token_file: Some(path), ..config() }));
    let mut edges = |token: &str| {
        served.headers.retain(|(name, _)| *name != "authorization");
        served.headers.push(("authorization", format!("Bearer {token}")));
        let graph: Graph =
            serde_json::from_str(&ask(&served, "/api/v1/graph", 0, &[]).body).unwrap();
        graph.edges.len()
    };
    assert_eq!([edges(ALL), edges(BANK), edges(ALL), edges(BANK)], [1, 0, 1, 0]);
}
