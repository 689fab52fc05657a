//! `docs/filters.md`: each expression there is asked of rows that have an answer to it.

use flowtrail_schema::row::{EntityKind, FlowRow};

use crate::common::{T0, row, served};

const DOCUMENT: &str = include_str!("../../../docs/filters.md");

/// An edge for each example to find.
fn rows() -> Vec<FlowRow> {
    let text = |text: &str| text.to_owned();
    let from = |namespace: &str, workload: &str, row: FlowRow| FlowRow {
        client_namespace: text(namespace),
        client_workload: text(workload),
        ..row
    };
    let outside = FlowRow {
        server_kind: EntityKind::External.number(),
        server_namespace: text(""),
        server_name: text(""),
        server_workload: text(""),
        server_workload_kind: text(""),
        server_node: text(""),
        server_ip: "198.51.100.7".parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped(),
        server_real_ip: "198.51.100.7".parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped(),
        server_port: 443,
        server_real_port: 443,
        service_namespace: text(""),
        service_name: text(""),
        sent_bytes: 2 << 20,
        ..row(T0, 1)
    };
    let slow = FlowRow {
        opened: 3,
        syn_to_synack_count: 3,
        syn_to_synack_us: 900_000,
        syn_to_synack_max_us: 300_000,
        ..row(T0, 2)
    };
    let refused = FlowRow { opened: 1, closed_refused: 1, ..row(T0, 3) };
    let job = FlowRow { client_name: text("report-17-x"), ..row(T0, 4) };
    vec![
        from("shop", "out", outside),
        from("shop", "slow", slow),
        from("front", "refused", refused),
        from("shop", "job", job),
        from("shop", "upload", FlowRow { sent_bytes: 10 << 20, ..row(T0, 5) }),
        from("shop", "db", row(T0, 6)),
    ]
}

#[test]
fn every_example_finds_its_edges() {
    let served = served("filter_examples");
    served.insert("flows", &rows());
    // The workloads that are clients, in the order of their names.
    let expected: [&[&str]; 9] = [
        &["refused"],
        &["out"],
        &["out"],
        &["refused"],
        &["job", "refused", "slow", "upload"],
        &["job"],
        &["refused"],
        &["slow"],
        &["upload"],
    ];
    let examples: Vec<_> =
        DOCUMENT.split("```q\n").skip(1).map(|rest| rest.split_once("\n```").unwrap().0).collect();
    assert_eq!(examples.len(), expected.len());
    for (example, expected) in examples.into_iter().zip(expected) {
        let graph = served.graph(T0, T0 + 60, &[("q", example)]);
        let name = |id: &str| id.rsplit('/').next().unwrap().to_owned();
        let mut clients: Vec<_> = graph.edges.iter().map(|edge| name(&edge.source)).collect();
        clients.sort();
        assert_eq!(clients, expected, "{example}");
    }
}

#[test]
fn every_refusal_is_as_it_is_said() {
    let served = served("filter_refusals");
    let refusals = DOCUMENT.lines().filter_map(|line| {
        let (asked, answered) = line.strip_prefix("| `")?.split_once("` | at character")?;
        Some((asked, format!("at character{}", answered.strip_suffix(" |")?)))
    });
    let refusals: Vec<_> = refusals.collect();
    assert_eq!(refusals.len(), 3);
    for (asked, answered) in refusals {
        let problem = served.problem("/api/v1/graph", &[("q", asked)]);
        assert_eq!((problem.status, problem.parameter.as_deref()), (400, Some("q")));
        assert_eq!(problem.detail, answered);
    }
}

#[test]
fn sums_are_of_the_rows_that_are_kept_and_edges_are_dropped_before_the_limit() {
    let served = served("filter_levels");
    let to = |port: u16, connection_id| FlowRow {
        opened: 1,
        server_port: port,
        ..row(T0, connection_id)
    };
    let far = FlowRow { server_namespace: "bank".to_owned(), opened: 5, ..row(T0, 9) };
    served.insert("flows", &[to(80, 1), to(81, 2), to(81, 3), far]);
    let opened = |q: &str, limit: &str| {
        let graph = served.graph(T0, T0 + 60, &[("q", q), ("limit", limit)]);
        graph.edges.iter().map(|edge| edge.traffic.opened).collect::<Vec<_>>()
    };
    assert_eq!(opened("opened >= 3", "9"), [5, 3]);
    assert_eq!(opened("opened >= 3 and server.port != 81", "9"), [5]);
    assert_eq!(opened("opened < 5", "1"), [3]);
    assert_eq!(opened("opened > 2", "1"), [5, 3]);
    let nobody = served.graph(T0, T0 + 60, &[("q", "opened > 5")]);
    assert!(nobody.nodes.is_empty());
}
