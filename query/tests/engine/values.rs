//! What there is to choose from in a window.

use flowtrail_query::Values;
use flowtrail_schema::row::{EntityKind, FlowRow};

use crate::common::{Served, T0, row, served};

impl Served {
    /// Values and their connections in `[from, to)`, seconds; and whether there are more.
    fn values(
        &self,
        of: &str,
        from: u32,
        to: u32,
        pairs: &[(&str, &str)],
    ) -> (Vec<(String, u64)>, bool) {
        let (from, to) = (format!("{from}000"), format!("{to}000"));
        let window = [("from", from.as_str()), ("to", to.as_str())];
        let answer = self.get(&format!("/api/v1/values/{of}"), &[&window, pairs].concat());
        assert_eq!(answer.status, 200, "{}", answer.body);
        let Values { values, more, .. } = serde_json::from_str(&answer.body).unwrap();
        assert!(values.iter().all(|value| value.text == value.value));
        (values.into_iter().map(|value| (value.value, value.connections)).collect(), more)
    }
}

fn rows() -> Vec<FlowRow> {
    let text = |text: &str| text.to_owned();
    let to_bank = FlowRow {
        opened: 2,
        client_name: text("web-2"),
        server_namespace: text("bank"),
        server_name: text("api-1"),
        server_workload: text("api"),
        server_port: 443,
        service_namespace: text("bank"),
        service_name: text("api"),
        ..row(T0 + 10, 1)
    };
    let unknown_backend = FlowRow {
        joined: 1,
        server_kind: EntityKind::Service.number(),
        server_namespace: text("bank"),
        server_name: text("ledger"),
        server_workload: text(""),
        server_workload_kind: text(""),
        server_node: text(""),
        service_namespace: text(""),
        service_name: text(""),
        ..row(T0 + 20, 2)
    };
    let node = FlowRow {
        opened: 1,
        client_kind: EntityKind::Node.number(),
        client_namespace: text(""),
        client_name: text("n9"),
        client_workload: text(""),
        client_workload_kind: text(""),
        client_node: text(""),
        ..row(T0 + 30, 3)
    };
    let open = FlowRow { open_at_start: 1, ..row(T0, 4) };
    let still_open = FlowRow { open_at_start: 1, ..row(T0 + 10, 4) };
    let evidence =
        FlowRow { primary: false, opened: 9, client_namespace: text("none"), ..row(T0, 1) };
    vec![to_bank, unknown_backend, node, open, still_open, evidence]
}

fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(value, connections)| ((*value).to_owned(), *connections)).collect()
}

#[test]
fn values_are_of_either_end_and_the_busiest_come_first() {
    let served = served("values");
    served.insert("flows", &rows());
    let values = |of| served.values(of, T0, T0 + 60, &[]).0;
    assert_eq!(values("namespaces"), pairs(&[("shop", 5), ("bank", 3)]));
    assert_eq!(values("workloads"), pairs(&[("shop/web", 4), ("bank/api", 2), ("shop/db", 2)]));
    assert_eq!(
        values("pods"),
        pairs(&[("bank/api-1", 2), ("shop/db-0", 2), ("shop/web-1", 2), ("shop/web-2", 2)])
    );
    assert_eq!(values("services"), pairs(&[("bank/api", 2), ("shop/db", 2), ("bank/ledger", 1)]));
    assert_eq!(values("nodes"), pairs(&[("n1", 4), ("n2", 4), ("n9", 1)]));
    assert_eq!(values("ports"), pairs(&[("80", 3), ("443", 2)]));
}

#[test]
fn values_are_searched_and_limited() {
    let served = served("values_searched");
    served.insert("flows", &rows());
    let values = |of, given: &[_]| served.values(of, T0, T0 + 60, given);
    assert_eq!(values("workloads", &[("namespace", "bank")]), (pairs(&[("bank/api", 2)]), false));
    assert_eq!(values("nodes", &[("namespace", "bank")]).0, pairs(&[("n2", 2)]));
    assert_eq!(values("ports", &[("namespace", "bank")]).0, pairs(&[("443", 2), ("80", 1)]));
    assert_eq!(values("pods", &[("prefix", "shop/web")]).0.len(), 2);
    assert_eq!(values("pods", &[("prefix", "web")]).0, []);
    assert_eq!(values("pods", &[("contains", "i-")]).0, pairs(&[("bank/api-1", 2)]));
    assert_eq!(values("ports", &[("prefix", "4"), ("contains", "'\\%\n")]).0, []);
    assert_eq!(
        values("pods", &[("limit", "3")]),
        (pairs(&[("bank/api-1", 2), ("shop/db-0", 2), ("shop/web-1", 2)]), true)
    );
    assert!(!values("pods", &[("limit", "4")]).1);
}

#[test]
fn a_part_of_a_minute_is_the_whole_and_long_windows_are_of_rollups() {
    let served = served("values_windows");
    served.insert("flows", &rows());
    // 1_699_920_000 is the start of a day.
    let day = 1_699_920_000;
    let whole = served.values("pods", T0, T0 + 60, &[]);
    assert_eq!(served.values("pods", T0 + 41, T0 + 47, &[]), whole);
    for of in ["namespaces", "workloads", "pods", "services", "nodes", "ports"] {
        // What was open is counted where a window begins, and here none was.
        let mut by_day = served.values(of, day, day + 86_400, &[]).0;
        let mut by_minute = served.values(of, T0 - 60, T0 + 60, &[]).0;
        by_day.sort();
        by_minute.sort();
        assert_eq!(by_day, by_minute, "{of}");
    }
    let answer = served.get(
        "/api/v1/values/pods",
        &[("from", &format!("{}000", T0 + 41)), ("to", &format!("{}000", T0 + 47))],
    );
    let Values { window, .. } = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        (window.from, window.to, window.resolution_s),
        (i64::from(T0) * 1_000, i64::from(T0 + 60) * 1_000, 60)
    );
}

#[test]
fn what_there_are_no_values_of_is_not_found() {
    let served = served("values_unknown");
    let problem = served.problem("/api/v1/values/pod", &[]);
    assert_eq!(problem.status, 404);
    assert!(
        problem.detail.contains("namespaces, workloads, pods, services, nodes, ports"),
        "{}",
        problem.detail
    );
}

#[test]
fn a_workload_without_a_namespace_is_asked_for_by_its_name_alone() {
    let served = served("values_bare");
    let bare = FlowRow {
        opened: 2,
        server_namespace: String::new(),
        server_workload: "lonely".to_owned(),
        ..row(T0, 1)
    };
    served.insert("flows", &[bare, FlowRow { opened: 1, ..row(T0, 2) }]);
    let workloads = served.values("workloads", T0, T0 + 60, &[]).0;
    assert!(workloads.contains(&("lonely".to_owned(), 2)), "{workloads:?}");
    let graph = served.graph(T0, T0 + 60, &[("workload", "lonely")]);
    let [edge] = graph.edges.as_slice() else { panic!("{graph:?}") };
    assert_eq!((edge.traffic.opened, &*edge.target), (2, "workload:StatefulSet/lonely"));
}
