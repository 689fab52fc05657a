//! The API over HTTP, against the real engine.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::{T0, config, empty_store, report, row, runtime, served};
use flowtrail_query::{Query, QueryError};
use flowtrail_schema::row::{EntityKind, FlowRow};
use flowtrail_service::admin::Readiness;
use flowtrail_service::metrics::Metrics;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// One connection of each kind: to a Service's pod, to an address outside, and evidence that must
/// not count.
fn rows() -> Vec<FlowRow> {
    let opened = FlowRow {
        opened: 1,
        closed_fin: 1,
        syn_to_synack_us: 2_000,
        syn_to_synack_count: 1,
        syn_to_synack_max_us: 2_000,
        duration_us: 8_000_000,
        duration_count: 1,
        duration_max_us: 8_000_000,
        ..row(T0, 1)
    };
    let refused = FlowRow {
        opened: 1,
        closed_refused: 1,
        client_name: "web-2".to_owned(),
        direction_inferred: true,
        ..row(T0 + 10, 2)
    };
    let outside = FlowRow {
        joined: 1,
        server_kind: EntityKind::External.number(),
        server_namespace: String::new(),
        server_name: String::new(),
        server_workload: String::new(),
        server_workload_kind: String::new(),
        server_node: String::new(),
        server_real_ip: "2001:db8::7".parse().unwrap(),
        server_ip: "2001:db8::7".parse().unwrap(),
        server_port: 443,
        server_real_port: 443,
        service_namespace: String::new(),
        service_name: String::new(),
        ..row(T0 + 10, 3)
    };
    let evidence = FlowRow { primary: false, opened: 1, ..row(T0, 1) };
    vec![opened, refused, outside, evidence]
}

const EDGE: &str = "workload:shop/Deployment/web>workload:shop/StatefulSet/db";
const OUTSIDE: &str = "workload:shop/Deployment/web>external:2001:db8::7";

#[test]
fn an_edge_says_who_how_much_and_whether_it_worked() {
    let served = served("edge");
    served.insert("flows", &rows());
    let graph = served.graph(T0 + 3, T0 + 19, &[]);
    assert_eq!(graph.window.from, i64::from(T0) * 1_000);
    assert_eq!(graph.window.to, i64::from(T0 + 20) * 1_000);
    assert_eq!(graph.window.requested_to, i64::from(T0 + 19) * 1_000);

    let ids: Vec<_> = graph.edges.iter().map(|edge| edge.id.as_str()).collect();
    assert_eq!(ids, [EDGE, OUTSIDE]);
    let edge = &graph.edges[0];
    assert_eq!((edge.server_ports.as_slice(), edge.more), ([80].as_slice(), false));
    assert_eq!(edge.services, ["shop/db"]);
    assert_eq!(edge.first_seen, i64::from(T0) * 1_000 + 1);
    assert_eq!(edge.last_seen, i64::from(T0) * 1_000 + 19_000);
    let traffic = &edge.traffic;
    assert_eq!((traffic.connections, traffic.opened, traffic.joined), (2, 2, 0));
    assert_eq!((traffic.open, traffic.failed, traffic.closed.fin), (0, 1, 1));
    assert_eq!((traffic.sent.bytes, traffic.received.payload_bytes), (200, 1_800));
    assert_eq!((traffic.retransmits, traffic.direction_inferred), (2, 0.5));
    assert_eq!((traffic.duration.count, traffic.duration.avg_ms), (1, Some(8_000.0)));
    assert_eq!((traffic.latency.avg_ms, traffic.latency.max_ms), (Some(2.0), Some(2.0)));
    let p50 = traffic.latency.p50_ms.unwrap();
    assert!((1.9..=2.0).contains(&p50), "{p50}");
    assert_eq!(graph.edges[1].traffic.open, 1);

    let nodes: Vec<_> = graph.nodes.iter().map(|node| (&*node.id, node.kind.as_str())).collect();
    let expected = [
        ("external:2001:db8::7", "external"),
        ("workload:shop/Deployment/web", "workload"),
        ("workload:shop/StatefulSet/db", "workload"),
    ];
    assert_eq!(nodes, expected);
    assert_eq!(graph.nodes[0].addresses, ["2001:db8::7"]);
    assert_eq!(graph.nodes[1].as_client.connections, 3);
    assert!(graph.nodes[1].addresses.is_empty() && graph.nodes[2].addresses.is_empty());
    let graph = served.graph(T0 + 3, T0 + 19, &[("group_by", "pod"), ("port", "80")]);
    let addresses: Vec<_> = graph.nodes.iter().map(|node| node.addresses.as_slice()).collect();
    assert_eq!(addresses, [["10.0.0.2"], ["10.0.0.1"], ["10.0.0.1"]]);
}

#[test]
fn ends_are_folded_as_asked() {
    let served = served("group_by");
    served.insert("flows", &rows());
    let ids = |group_by| {
        let graph = served.graph(T0, T0 + 20, &[("group_by", group_by)]);
        graph.nodes.into_iter().map(|node| node.id.to_string()).collect::<Vec<_>>()
    };
    let web = "workload:shop/Deployment/web";
    let outside = "external:2001:db8::7";
    assert_eq!(ids("namespace"), ["external", "namespace:shop"]);
    assert_eq!(ids("workload"), [outside, web, "workload:shop/StatefulSet/db"]);
    assert_eq!(ids("pod"), [outside, "pod:shop/db-0", "pod:shop/web-1", "pod:shop/web-2"]);
    assert_eq!(ids("service"), [outside, "service:shop/db", web]);
    assert_eq!(ids("node"), [outside, "node:n1", "node:n2"]);
    assert_eq!(ids("ip"), ["ip:10.0.0.1", "ip:10.0.0.2", "ip:2001:db8::7"]);
}

#[test]
fn filters_keep_an_edge_if_either_end_matches() {
    let served = served("filters");
    served.insert("flows", &rows());
    let ids = |pairs: &[(&str, &str)]| {
        let graph = served.graph(T0, T0 + 20, pairs);
        graph.edges.into_iter().map(|edge| edge.id).collect::<Vec<_>>()
    };
    let nothing: [&str; 0] = [];
    assert_eq!(ids(&[("namespace", "bank,shop")]), [EDGE, OUTSIDE]);
    assert_eq!(ids(&[("namespace", "bank")]), nothing);
    assert_eq!(ids(&[("kind", "external")]), [OUTSIDE]);
    assert_eq!(ids(&[("kind", "node"), ("kind", "pod")]), [EDGE, OUTSIDE]);
    assert_eq!(ids(&[("port", "80")]), [EDGE]);
    assert_eq!(ids(&[("port", "5432")]), [EDGE]);
    assert_eq!(ids(&[("port", "443,22")]), [OUTSIDE]);
    assert_eq!(ids(&[("include", r"^db-\d$")]), [EDGE]);
    assert_eq!(ids(&[("include", r"^10\.0\.0\.(2|9)$")]), [EDGE]);
    assert_eq!(ids(&[("include", r"^10\.0\.0\.200$")]), [EDGE]);
    assert_eq!(ids(&[("include", "^2001:db8:")]), [OUTSIDE]);
    assert_eq!(ids(&[("include", "web"), ("exclude", "^db$")]), [OUTSIDE]);
    assert_eq!(ids(&[("exclude", "web")]), nothing);
}

#[test]
fn the_smaller_edges_are_folded_beyond_the_limit() {
    let served = served("limit");
    served.insert("flows", &rows());
    let graph = served.graph(T0, T0 + 20, &[("limit", "1"), ("stat", "failures")]);
    let ids: Vec<_> = graph.edges.iter().map(|edge| edge.id.as_str()).collect();
    assert_eq!(ids, [EDGE, "workload:shop/Deployment/web>other"]);
    assert_eq!(graph.edges[1].traffic.joined, 1);
}

#[test]
fn nothing_a_caller_sends_is_sql() {
    let served = served("injection");
    served.insert("flows", &rows());
    for text in
        ["'", r"\", "\\'", "a\tb\nc", "'] OR 1 --", "{from:UInt32}", "?", "naïve ✓", "\u{0}"]
    {
        let graph = served.graph(T0, T0 + 20, &[("namespace", text)]);
        assert_eq!(graph.edges.len(), 0, "{text:?}");
    }
    for text in ["'", r"\\", "a\tb\nc", "'] OR 1 --", "naïve ✓", "'); DROP TABLE flows; --"] {
        let pattern = text.replace(')', r"\)");
        let graph = served.graph(T0, T0 + 20, &[("include", &pattern)]);
        assert_eq!(graph.edges.len(), 0, "{text:?}");
        let graph = served.graph(T0, T0 + 20, &[("exclude", &pattern)]);
        assert_eq!(graph.edges.len(), 2, "{text:?}");
    }
}

#[test]
fn bad_requests_are_problems() {
    let served = served("problems");
    let problem = served.problem("/api/v1/graph", &[("group_by", "cluster")]);
    assert_eq!((problem.status, problem.parameter.as_deref()), (400, Some("group_by")));
    assert!(problem.detail.contains("namespace, workload, pod"), "{}", problem.detail);
    // The regex crate takes it, re2 does not.
    let problem = served.problem("/api/v1/graph", &[("include", "(?x)a")]);
    assert_eq!(problem.status, 400);
    assert!(problem.detail.contains("RE2"), "{}", problem.detail);
    assert!(!problem.detail.contains("Exception"), "{}", problem.detail);

    assert_eq!(served.problem("/nowhere", &[]).status, 404);
    assert_eq!(served.problem("/nodegraph/api/graph/data", &[("port", "80")]).status, 400);
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let response = agent.post(format!("{}/api/v1/graph", served.url)).send("").unwrap();
    assert_eq!(response.status().as_u16(), 405);
}

#[test]
fn more_edges_than_can_be_held_are_a_problem() {
    let served = served("too_large");
    let statement = format!(
        "INSERT INTO flows_given (interval_start, interval_s, primary, opened, client_kind, client_real_ip)
         SELECT {T0}, 10, true, 1, 'external', toIPv6('2001:db8::' || hex(number)) FROM numbers(50001)"
    );
    runtime().block_on(served.store.client().query(&statement).execute()).unwrap();
    // Which edges a condition on sums keeps is not known before all are here.
    let pairs = [("from", "1700000040000"), ("to", "1700000050000"), ("q", "connections > 0")];
    let problem = served.problem("/api/v1/graph", &pairs);
    assert_eq!(problem.status, 422);
    assert!(problem.detail.contains("coarser group_by"), "{}", problem.detail);
    let graph = served.graph(T0, T0 + 10, &[("group_by", "namespace")]);
    assert_eq!(graph.edges[0].traffic.connections, 50_001);
    assert!(graph.nodes.iter().any(|node| node.more_addresses && node.addresses.len() == 64));
}

/// A graph is computed for the length of intervals that the last window had: here that is another each time.
#[test]
fn each_window_has_its_own_intervals() {
    let served = served("intervals");
    let (hour, width) = (3_600, 20_u8);
    let wide =
        [0, 20, 40].map(|at| FlowRow { interval_s: width, opened: 1, ..row(T0 + hour + at, 5) });
    let fine = [0, 10, 20].map(|at| FlowRow { opened: 1, ..row(T0 + at, 5) });
    served.insert("flows", &[wide, fine].concat());
    let of = |start_s: u32| {
        let graph = served.graph(start_s + 10, start_s + 30, &[]);
        let window = graph.window;
        assert_eq!(window.requested_from, i64::from(start_s + 10) * 1_000);
        let since = |time_ms: i64| time_ms / 1_000 - i64::from(start_s);
        (since(window.from), since(window.to), window.resolution_s, graph.edges[0].traffic.opened)
    };
    for _ in 0..2 {
        assert_eq!(of(T0), (10, 30, 10, 2));
        assert_eq!(of(T0 + hour), (0, 40, 20, 2));
        assert_eq!(of(T0 + hour), (0, 40, 20, 2));
    }
}

#[test]
fn an_empty_window_has_empty_arrays() {
    let served = served("empty");
    let answer = served.get("/api/v1/graph", &[]);
    let graph: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&graph["nodes"], &graph["edges"]), (&json!([]), &json!([])));
    assert_eq!(graph["window"]["resolution_s"], 10);
    assert_eq!(graph["window"]["complete_until"], graph["window"]["from"]);
    assert_eq!(graph["coverage"]["agents"], 0);
    let data = served.get("/nodegraph/api/graph/data", &[("namespace", ".*"), ("exclude", "")]);
    assert_eq!(
        serde_json::from_str::<Value>(&data.body).unwrap(),
        json!({"nodes": [], "edges": []})
    );
}

#[test]
fn coverage_tells_who_looked_and_until_when() {
    let served = served("coverage");
    let starts = |until: u32| (0..until).map(|i| T0 + 10 * i);
    let mut reports: Vec<_> = starts(6).map(|start| report("n1", start)).collect();
    reports.extend(starts(4).map(|start| report("n2", start)));
    served.insert("coverage", &reports);
    let graph = served.graph(T0, T0 + 60, &[]);
    assert_eq!(graph.window.complete_until, i64::from(T0 + 40) * 1_000);
    let coverage = graph.coverage;
    assert_eq!(
        (coverage.agents, coverage.intervals_expected, coverage.intervals_reported),
        (2, 12, 10)
    );
    assert_eq!((coverage.packets_dropped, coverage.records_dropped), (10, 20));
}

#[test]
fn what_is_open_is_told_of_when_all_have_reported() {
    let served = served("open_at_reported");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
    // Long ago, what is open at the window's end is asked for before it is known that reports end earlier.
    for from in [T0, now / 60 * 60 - 120] {
        let reports = |node, until: u32| (0..until).map(move |i| report(node, from + 10 * i));
        served.insert("coverage", &reports("n1", 6).chain(reports("n2", 4)).collect::<Vec<_>>());
        let mut first = row(from, 1);
        (first.opened, first.client_port) = (1, 1);
        let mut second = row(from + 20, 2);
        (second.opened, second.client_port) = (1, 2);
        let mut closed = row(from + 40, 2);
        (closed.closed_fin, closed.client_port) = (1, 2);
        served.insert("flows", &[first, second, closed]);
        // At a minute the sums have what is open; elsewhere it is asked for, at the start and at the end.
        for (start, connections) in [(from, 2), (from + 10, 2), (from + 30, 2)] {
            let graph = served.graph(start, from + 60, &[]);
            assert_eq!(graph.window.complete_until, i64::from(from + 40) * 1_000);
            let [edge] = graph.edges.as_slice() else { panic!("{:?}", graph.edges) };
            let traffic = &edge.traffic;
            assert_eq!((traffic.connections, traffic.open), (connections, 2), "{start}");
        }
        // Until there both are the same instant.
        served.insert("coverage", &[report("n3", from)]);
        let graph = served.graph(from + 10, from + 60, &[]);
        assert_eq!(graph.window.complete_until, i64::from(from + 10) * 1_000);
        let [edge] = graph.edges.as_slice() else { panic!("{:?}", graph.edges) };
        assert_eq!((edge.traffic.connections, edge.traffic.open), (2, 1));
    }
}

#[test]
fn a_clock_that_is_ahead_makes_nothing_complete() {
    let served = served("clock_ahead");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32 / 10 * 10;
    served.insert("coverage", &[report("n1", now - 20), report("ahead", now + 290)]);
    let graph = served.graph(now - 60, now, &[]);
    assert_eq!(graph.window.complete_until, i64::from(now - 10) * 1_000);
    assert_eq!(graph.coverage.agents, 1);
}

#[test]
fn the_node_graph_of_the_seed_project() {
    let served = served("nodegraph");
    served.insert("flows", &rows());
    assert_eq!(served.get("/nodegraph/api/health", &[]).status, 200);
    let (from, to) = (format!("{T0}000"), format!("{}000", T0 + 20));
    let query = [
        ("namespace", "sh.p"),
        ("include", ""),
        ("exclude", "2001"),
        ("stats-type", "connection"),
        ("from", from.as_str()),
        ("to", to.as_str()),
    ];
    let fields = served.get("/nodegraph/api/graph/fields", &query);
    let fields: Value = serde_json::from_str(&fields.body).unwrap();
    assert!(fields["nodes_fields"].is_array() && fields["edges_fields"].is_array());
    let data: Value =
        serde_json::from_str(&served.get("/nodegraph/api/graph/data", &query).body).unwrap();
    let node = &data["nodes"][0];
    assert_eq!((&node["title"], &node["subTitle"]), (&json!("web"), &json!("shop")));
    assert_eq!((&node["mainStat"], &node["arc__2"]), (&json!("all: 2"), &json!(1.0)));
    assert_eq!(data["edges"][0]["id"], EDGE);
    assert_eq!(data["edges"].as_array().unwrap().len(), 1);
}

#[test]
fn operations_are_on_the_same_port() {
    let served = served("operations");
    served.graph(T0, T0 + 20, &[]);
    served.problem("/api/v1/graph", &[("x", "y")]);
    assert_eq!(served.get("/healthz", &[]).status, 200);
    assert_eq!(served.get("/readyz", &[]).body, "ready\n");
    let metrics = served.get("/metrics", &[]).body;
    for line in [
        r#"flowtrail_query_requests_total{route="/api/v1/graph",status="200"} 1"#,
        r#"flowtrail_query_requests_total{route="/api/v1/graph",status="400"} 1"#,
        "flowtrail_query_running 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[test]
fn it_does_not_start_without_its_tables() {
    let store = empty_store("no_tables");
    let query = Query::new(config(), store, Metrics::new(), Readiness::default()).unwrap();
    let error = runtime().block_on(async {
        let listener = query.listen().await.unwrap();
        query.run(listener, CancellationToken::new()).await.unwrap_err()
    });
    assert!(matches!(error, QueryError::Store(_)));
    assert!(error.to_string().contains("flowtrail schema apply"), "{error}");
}
