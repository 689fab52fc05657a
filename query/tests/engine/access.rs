//! What a caller sees whose token is of some namespaces, and that nothing else can be found out.

use std::net::Ipv6Addr;

use flowtrail_query::{Config, Query, QueryError};
use flowtrail_schema::row::{EntityKind, FlowRow};
use flowtrail_schema::{IdKind, Reporter};
use flowtrail_service::admin::Readiness;
use flowtrail_service::metrics::Metrics;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config as Cases, TestRunner};

use regex::Regex;
use serde_json::Value;

use crate::common::{Served, T0, config, empty_store, report, row, served, served_as};

const ALL: &str = "0123456789abcdef0123456789abcdef";
const SHOP: &str = "0123456789abcdef0123456789abcdee";

/// A service that asks for tokens: one of all namespaces, one of `shop`.
fn guarded(database: &str) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    std::fs::write(&path, format!("all {ALL} *\nshop {SHOP} shop\n")).unwrap();
    let served = served_as(database, Config { token_file: Some(path), ..config() });
    // It is read again and again: kept until the program ends.
    let _ = directory.keep();
    served
}

fn with_token(served: Served, token: &str) -> Served {
    Served { headers: vec![("authorization", format!("Bearer {token}"))], ..served }
}

/// What of an end nobody else may know: a world of them is told from another by a letter and a number.
struct World {
    letter: char,
    number: u16,
}

impl World {
    fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.letter)
    }

    fn ip(&self, last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a63, self.number << 8 | last)
    }

    /// A row with one end of `shop` or none, as this world has it.
    fn row(&self, connection: u64, other: &Other, other_is_client: bool, start: u32) -> FlowRow {
        let base = FlowRow {
            opened: 1,
            closed_fin: u32::from(connection.is_multiple_of(2)),
            reporter: Reporter::Transit.number(),
            node: self.name("n"),
            agent: self.name("a"),
            interface: self.name("veth"),
            ..row(start, connection)
        };
        let named = |name: &str| if name.is_empty() { String::new() } else { self.name(name) };
        let (kind, namespace) = (other.kind.number(), other.namespace.to_owned());
        let (name, node) = (named(other.name), self.name("node"));
        let (workload, workload_kind) = (other.workload.to_owned(), "Deployment".to_owned());
        let workload_kind = if workload.is_empty() { String::new() } else { workload_kind };
        let (ip, real_ip) = (self.ip(other.last), self.ip(other.last + 1));
        if other_is_client {
            FlowRow {
                client_kind: kind,
                client_namespace: namespace,
                client_name: name,
                client_node: node,
                client_workload: workload,
                client_workload_kind: workload_kind,
                client_ip: ip,
                client_real_ip: real_ip,
                client_real_port: 40_000 + self.number,
                ..base
            }
        } else {
            FlowRow {
                server_kind: kind,
                server_namespace: namespace,
                server_name: name,
                server_node: node,
                server_workload: workload,
                server_workload_kind: workload_kind,
                server_ip: ip,
                server_real_ip: real_ip,
                server_real_port: 5_000 + self.number,
                ..base
            }
        }
    }

    /// Rows of every kind of end: at the other side of one of `shop`, and at both.
    fn rows(&self) -> Vec<FlowRow> {
        let mut rows = Vec::new();
        for (index, other) in OTHERS.iter().enumerate() {
            let connection = index as u64 + 1;
            let start = T0 + 10 * (index as u32 % 3);
            rows.push(self.row(connection, other, true, start));
            rows.push(self.row(connection + 100, other, false, start));
            let hashed = self.row(connection + u64::from(self.number) * 1_000, other, false, T0);
            rows.push(FlowRow {
                id_kind: IdKind::TupleHash.number(),
                joined: 1,
                opened: 0,
                ..hashed
            });
            let foreign = self.row(connection + 200, other, true, start);
            let namespace = "bank".to_owned();
            rows.push(FlowRow {
                server_namespace: namespace,
                server_name: self.name("vault"),
                ..foreign
            });
        }
        rows
    }
}

struct Other {
    kind: EntityKind,
    namespace: &'static str,
    workload: &'static str,
    name: &'static str,
    last: u16,
}

const OTHERS: &[Other] = &[
    Other {
        kind: EntityKind::Pod,
        namespace: "bank",
        workload: "ledger",
        name: "ledger-7f",
        last: 1,
    },
    Other {
        kind: EntityKind::Pod,
        namespace: "bank",
        workload: "ledger",
        name: "ledger-9c",
        last: 3,
    },
    Other { kind: EntityKind::Pod, namespace: "bank", workload: "", name: "debug", last: 5 },
    Other { kind: EntityKind::Node, namespace: "", workload: "", name: "worker", last: 7 },
    Other { kind: EntityKind::Unknown, namespace: "", workload: "", name: "", last: 9 },
];

#[test]
fn an_edge_is_seen_from_either_end_and_the_other_end_without_its_pods() {
    let served = guarded("scope_edges");
    served.insert("flows", &World { letter: 'x', number: 1 }.rows());
    let public: Ipv6Addr = "2001:db8::7".parse().unwrap();
    let outside = FlowRow {
        opened: 1,
        server_kind: EntityKind::External.number(),
        server_namespace: String::new(),
        server_name: String::new(),
        server_workload: String::new(),
        server_workload_kind: String::new(),
        server_node: String::new(),
        server_ip: public,
        server_real_ip: public,
        ..row(T0, 900)
    };
    let service = FlowRow {
        opened: 1,
        server_kind: EntityKind::Service.number(),
        server_namespace: "bank".to_owned(),
        server_name: "ledger-api".to_owned(),
        server_workload: String::new(),
        server_workload_kind: String::new(),
        service_namespace: "bank".to_owned(),
        service_name: "ledger-api".to_owned(),
        ..row(T0, 901)
    };
    served.insert("flows", &[outside, service, FlowRow { opened: 1, ..row(T0, 902) }]);
    let shop = with_token(served, SHOP);
    let ids = |group_by| {
        let graph = shop.graph(T0, T0 + 30, &[("group_by", group_by)]);
        graph.nodes.into_iter().map(|node| node.id.to_string()).collect::<Vec<_>>()
    };
    let (web, db) = ("workload:shop/Deployment/web", "workload:shop/StatefulSet/db");
    let (ledger, api) = ("workload:bank/Deployment/ledger", "service:bank/ledger-api");
    let outside = "external:2001:db8::7";
    assert_eq!(
        ids("workload"),
        [outside, "namespace:bank", "node", api, "unknown", ledger, web, db]
    );
    assert_eq!(
        ids("namespace"),
        ["external", "namespace:bank", "namespace:shop", "node", "unknown"]
    );
    assert_eq!(
        ids("pod"),
        [
            outside,
            "namespace:bank",
            "node",
            "pod:shop/db-0",
            "pod:shop/web-1",
            api,
            "unknown",
            ledger
        ]
    );
    assert_eq!(
        ids("node"),
        [outside, "namespace:bank", "node", "node:n1", "node:n2", api, "unknown"]
    );
    assert_eq!(
        ids("ip"),
        ["ip:10.0.0.1", "ip:10.0.0.2", "ip:2001:db8::7", "namespace:bank", "node", "unknown"]
    );

    let graph = shop.graph(T0, T0 + 30, &[]);
    let hidden = graph.nodes.iter().find(|node| &*node.id == "namespace:bank").unwrap();
    assert!(hidden.addresses.is_empty() && !hidden.more_addresses, "{hidden:?}");
    // Of each kind of end three of four connections have one of shop; and three more.
    let seen: u64 = graph.edges.iter().map(|edge| edge.traffic.connections).sum();
    let all = with_token(shop, ALL).graph(T0, T0 + 30, &[]);
    let there: u64 = all.edges.iter().map(|edge| edge.traffic.connections).sum();
    assert_eq!((seen, there), (18, 23));
}

/// The connections of an answer, without the ids that hashes of hidden addresses are shown as, those of
/// observations too: these are keyed anew by each process, and order what is otherwise equal.
fn connections(answer: &str) -> Vec<String> {
    fn without_id(of: &mut Value) {
        if of["id_kind"] == "tuple_hash" {
            of["id"] = Value::Null;
        }
    }
    let mut answer: Value = serde_json::from_str(answer).unwrap();
    let connections = answer["connections"].as_array_mut().unwrap();
    for connection in connections.iter_mut() {
        without_id(connection);
        connection["observations"].as_array_mut().unwrap().iter_mut().for_each(without_id);
    }
    let mut connections: Vec<_> = connections.iter().map(Value::to_string).collect();
    connections.sort();
    connections
}

fn one_of(texts: &[&'static str]) -> impl Strategy<Value = &'static str> + use<> {
    select(texts.to_vec())
}

#[test]
fn what_is_hidden_makes_no_difference_to_any_answer() {
    let worlds = [World { letter: 'x', number: 1 }, World { letter: 'y', number: 2 }];
    let worlds = worlds.map(|world| {
        let served = guarded(&format!("scope_world_{}", world.letter));
        served.insert("flows", &world.rows());
        served.insert("coverage", &[report(&world.name("agent"), T0)]);
        served
    });
    // It does to who may see it: else nothing is compared below.
    let [x, y] = worlds.map(|served| with_token(served, ALL));
    let pods = [("group_by", "pod")];
    assert_ne!(x.graph(T0, T0 + 30, &pods), y.graph(T0, T0 + 30, &pods));

    let [x, y] = [x, y].map(|served| with_token(served, SHOP));
    let expression = || {
        one_of(&[
            "",
            "client.name =~ 'x$' or server.name =~ 'x$'",
            "client.ip in (10.99.1.0/24) or server.ip in (10.99.1.0/24)",
            "server.real_port = 5001",
            "client.node = 'node-y'",
            "server.name = 'ledger-7f-x' and bytes > 0",
        ])
    };
    // What somebody who guesses would try: names, nodes, addresses and ports of either world.
    let pattern = || {
        one_of(&[
            "",
            "^$",
            ".",
            "-x$",
            "-y$",
            "ledger-7f-x",
            "^ledger$",
            "debug",
            "worker",
            "node-y",
            "vault",
            "bank",
            r"^10\.99\.1\.",
            r"^10\.99\.2\.(2|4)$",
            "^::",
            "^10",
            "veth",
            "web",
        ])
    };
    let request = (
        one_of(&["namespace", "workload", "pod", "service", "node", "ip"]),
        pattern(),
        pattern(),
        one_of(&["", "80", "5432", "5001", "5002", "40001,80"]),
        one_of(&["", "pod", "node", "unknown,external"]),
        one_of(&["", "shop", "bank", "bank,shop", "x"]),
        one_of(&["connections", "bytes", "duration", "latency"]),
        one_of(&["1", "2", "3", "100"]),
        (select(vec![0_u32, 3, 10, 25]), expression()),
    );
    let names = ["group_by", "include", "exclude", "port", "kind", "namespace", "stat", "limit"];
    let pseudonym = Regex::new("agent-[0-9a-f]{16}").unwrap();
    let cases = Cases { cases: 12, failure_persistence: None, ..Cases::default() };
    let same = |(a, b, c, d, e, f, g, h, (shift, q)): (_, _, _, _, _, _, _, _, (u32, _))| {
        let window = [("from", T0 + shift), ("to", T0 + 60 - shift)];
        let window = window.map(|(name, time)| (name, format!("{time}000")));
        let window = window.each_ref().map(|(name, value)| (*name, value.as_str()));
        let given = names.into_iter().zip([a, b, c, d, e, f, g, h]);
        let pairs: Vec<(&str, &str)> = given.chain([("q", q)]).chain(window).collect();
        let asked = |served: &Served, path: &str, pairs: &[(&str, &str)]| {
            let answer = served.get(path, pairs);
            // Agents are called by what each process makes of their names.
            (answer.status, pseudonym.replace_all(&answer.body, "agent-").into_owned())
        };
        let graph = asked(&x, "/api/v1/graph", &pairs);
        prop_assert_eq!(graph.0, 200, "{}", graph.1);
        prop_assert_eq!(graph, asked(&y, "/api/v1/graph", &pairs));
        let only = |taken: &[&str]| -> Vec<(&str, &str)> {
            pairs.iter().copied().filter(|(name, _)| taken.contains(name)).collect()
        };
        let rows =
            ["from", "to", "group_by", "include", "exclude", "port", "kind", "namespace", "q"];
        let [of_x, of_y] =
            [&x, &y].map(|served| asked(served, "/api/v1/connections", &only(&rows)));
        // It takes no condition on an edge's sums.
        if q.contains("bytes") {
            prop_assert_eq!((of_x.0, &of_x), (400, &of_y));
        } else {
            prop_assert_eq!((of_x.0, of_y.0), (200, 200), "{}", of_x.1);
            prop_assert_eq!(connections(&of_x.1), connections(&of_y.1));
        }
        let series = [only(&rows), vec![("split", "edge"), ("stat", "bytes")]].concat();
        let [of_x, of_y] = [&x, &y].map(|served| asked(served, "/api/v1/timeseries", &series));
        prop_assert_eq!(of_x, of_y);
        let [of_x, of_y] =
            [&x, &y].map(|served| asked(served, "/api/v1/coverage", &only(&["from", "to"])));
        prop_assert_eq!(of_x.0, 200, "{}", of_x.1);
        prop_assert_eq!(of_x, of_y);
        for of in ["pods", "nodes", "ports"] {
            let (path, taken) = (format!("/api/v1/values/{of}"), ["from", "to", "namespace"]);
            let [of_x, of_y] = [&x, &y].map(|served| asked(served, &path, &only(&taken)));
            prop_assert_eq!(of_x.0, 200, "{}", of_x.1);
            prop_assert_eq!(of_x, of_y);
        }
        let of_plugin = ["group_by", "include", "exclude", "namespace", "from", "to"];
        let pairs = only(&of_plugin);
        let path = "/nodegraph/api/graph/data";
        prop_assert_eq!(asked(&x, path, &pairs), asked(&y, path, &pairs));
        Ok(())
    };
    let mut runner = TestRunner::new(cases);
    runner.run(&request, same).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn an_answer_on_the_past_may_be_kept_and_one_that_can_change_may_not() {
    for (served, visibility) in [
        (served("cached"), "public, max-age=300"),
        (with_token(guarded("cached_privately"), SHOP), "private, max-age=300"),
    ] {
        served.insert("flows", &[FlowRow { opened: 1, ..row(T0, 1) }]);
        served.insert("coverage", &[report("n1", T0), report("n1", T0 + 10)]);
        let window = |to: u32| [("from", format!("{T0}000")), ("to", format!("{to}000"))];
        let ask = |served: &Served, to| {
            let window = window(to);
            served.get(
                "/api/v1/graph",
                &window.each_ref().map(|(name, value)| (*name, value.as_str())),
            )
        };
        let whole = ask(&served, T0 + 20);
        assert_eq!((whole.status, whole.header("cache-control")), (200, visibility.to_owned()));
        assert_eq!(
            whole.header("vary").contains("authorization"),
            visibility.starts_with("private")
        );
        let tag = whole.header("etag");
        let mut served = served;
        served.headers.push(("if-none-match", format!("\"x\", {tag}")));
        let again = ask(&served, T0 + 20);
        assert_eq!((again.status, again.body.as_str(), again.header("etag")), (304, "", tag));
        // Nobody has reported on all of it, or it moves.
        let open = ask(&served, T0 + 30);
        assert_eq!((open.status, open.header("cache-control").as_str()), (200, "no-store"));
        let moving = served.get("/api/v1/graph", &[("from", "now-2h"), ("to", "now-1h")]);
        assert_eq!((moving.status, moving.header("cache-control").as_str()), (200, "no-store"));
        served.insert("flows", &[FlowRow { opened: 1, ..row(T0, 2) }]);
        assert_eq!(ask(&served, T0 + 20).status, 200);
    }
}

#[test]
fn it_does_not_start_where_others_reach_it_and_nobody_is_asked() {
    let new = |config| {
        Query::new(config, empty_store("x"), Metrics::new(), Readiness::default()).map(|_| ())
    };
    let listen = ([0, 0, 0, 0], 0).into();
    let error = new(Config { listen, ..config() }).unwrap_err();
    assert!(matches!(error, QueryError::Open(_)));
    assert!(error.to_string().contains("--token-file"), "{error}");
    new(Config { listen, no_tokens: true, ..config() }).unwrap();
    let token_file = Some("/nowhere/tokens".into());
    let error = new(Config { token_file, ..config() }).unwrap_err();
    assert!(error.to_string().contains("/nowhere/tokens"), "{error}");
}

#[test]
fn more_rows_than_may_be_read_are_a_problem() {
    let served = served_as("rows_read", Config { query_max_rows: 10, ..config() });
    let rows: Vec<_> = (0..100).map(|id| FlowRow { opened: 1, ..row(T0, id) }).collect();
    served.insert("flows", &rows);
    let (from, to) = (format!("{T0}000"), format!("{}000", T0 + 10));
    let problem = served.problem("/api/v1/graph", &[("from", &from), ("to", &to)]);
    assert_eq!(problem.status, 422);
    assert!(problem.detail.contains("--query-max-rows"), "{}", problem.detail);
}
