//! What `limit` leaves out is folded, whoever folds it, and however much it is.

use std::cell::Cell;

use flowtrail_query::{Edge, Graph};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::common::{Served, T0, served};
use crate::tiers::{DAY_S, DAY0, DAYS, any_row, begin_at};

/// A condition that every edge meets: whoever reads sums folds what the store answers.
const ALWAYS: (&str, &str) = ("q", "connections >= 0");

type Rank = (&'static str, fn(&Edge) -> f64);

const RANKS: [Rank; 6] = [
    ("connections", |edge| edge.traffic.connections as f64),
    ("bytes", |edge| (edge.traffic.sent.bytes + edge.traffic.received.bytes) as f64),
    ("packets", |edge| (edge.traffic.sent.packets + edge.traffic.received.packets) as f64),
    ("duration", |edge| edge.traffic.duration.avg_ms.unwrap_or_default()),
    ("retransmits", |edge| edge.traffic.retransmits as f64),
    ("failures", |edge| edge.traffic.failed as f64),
];

fn is_rest(edge: &Edge) -> bool {
    &*edge.source == "other" || &*edge.target == "other"
}

/// What the edges that stayed are ranked by.
fn ranks(graph: &Graph, rank: fn(&Edge) -> f64) -> Vec<f64> {
    graph.edges.iter().filter(|edge| !is_rest(edge)).map(rank).collect()
}

fn totals(graph: &Graph) -> [u64; 4] {
    let sum = |of: fn(&Edge) -> u64| graph.edges.iter().map(of).sum();
    [
        sum(|edge| edge.traffic.connections),
        sum(|edge| edge.traffic.sent.bytes),
        sum(|edge| edge.traffic.failed),
        sum(|edge| edge.traffic.latency.count),
    ]
}

/// Of pods and addresses in half a day and more the store folds what is not to stay: the same as if all edges
/// had been asked for.
#[test]
fn the_store_folds_as_the_service_does() {
    let served = served("limit_law");
    let question = (select(&["pod", "ip"][..]), select(&RANKS[..]), 1..12_usize);
    let window = (0..(DAYS - 1) * 8_640, 4_320..DAYS * 8_640);
    let questions = prop::collection::vec((question, window), 6);
    let strategy = (prop::collection::vec(any_row(), 20..60), questions);
    let (case, folded) = (Cell::new(0), Cell::new(0));
    let config = Config { failure_persistence: None, ..Config::with_cases(5) };
    let result = TestRunner::new(config).run(&strategy, |(mut rows, questions)| {
        let start = DAY0 + case.get() * DAYS * DAY_S;
        case.set(case.get() + 1);
        begin_at(&mut rows, start);
        served.insert("flows", &rows);
        for ((group_by, (stat, rank), limit), (from, length)) in questions {
            let (from, to) = (start + from * 10, start + (from + length).min(DAYS * 8_640) * 10);
            let limit = limit.to_string();
            let pairs = [("group_by", group_by), ("stat", stat), ("limit", limit.as_str())];
            let by_store = served.graph(from, to, &pairs);
            let by_service = served.graph(from, to, &[&pairs[..], &[ALWAYS]].concat());
            prop_assert_eq!(ranks(&by_store, rank), ranks(&by_service, rank), "{:?}", pairs);
            prop_assert_eq!(totals(&by_store), totals(&by_service), "{:?}", pairs);
            // Edges of the same rank may stay for each other; hardly two have the same bytes.
            if stat == "bytes" {
                prop_assert_eq!(&by_store, &by_service, "[{}, {}) {:?}", from, to, pairs);
            }
            folded.set(folded.get() + usize::from(by_store.edges.iter().any(is_rest)));
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(folded.get() > 10, "{} of 30 questions left something out", folded.get());
}

/// More addresses than may travel call one pod: the `n`th sends `n` bytes.
fn with_many_clients(served: &Served, clients: u64) {
    served.run(&format!(
        "INSERT INTO flows_given (interval_start, interval_s, first_seen, last_seen, primary, opened, sent_bytes,
             client_kind, client_ip, client_real_ip, server_kind, server_ip, server_real_ip, server_port,
             server_namespace, server_workload, server_workload_kind, server_name, server_node,
             service_namespace, service_name)
         SELECT toDateTime({T0}, 'UTC'), 10, toDateTime64({T0}, 6, 'UTC') AS seen, seen, true, 1, number + 1,
             'external', IPv4ToIPv6(toUInt32(570425344 + number)) AS address, address,
             'pod', toIPv6('::ffff:10.0.0.1'), toIPv6('::ffff:10.0.0.1'), 80,
             'shop', 'web', 'Deployment', 'web-0', 'n1', 'shop', 'front'
         FROM numbers({clients})"
    ));
}

#[test]
fn more_edges_than_may_travel_are_folded() {
    const CLIENTS: u64 = 51_000;
    let served = served("limit_many");
    with_many_clients(&served, CLIENTS);
    let servers = [
        ("workload", "workload:shop/Deployment/web"),
        ("service", "service:shop/front"),
        ("node", "node:n1"),
    ];
    for (group_by, server) in servers {
        let pairs = [("group_by", group_by), ("stat", "bytes"), ("limit", "10")];
        let graph = served.graph(T0, T0 + 60, &pairs);
        let (rest, stayed): (Vec<_>, Vec<_>) = graph.edges.iter().partition(|edge| is_rest(edge));
        let bytes = |edge: &&Edge| edge.traffic.sent.bytes;
        let expected: Vec<_> = (0..10).map(|below| CLIENTS - below).collect();
        assert_eq!(stayed.iter().map(bytes).collect::<Vec<_>>(), expected, "{group_by}");
        assert!(stayed.iter().all(|edge| &*edge.target == server), "{group_by}: {:?}", stayed[0]);
        let rest: Vec<_> = rest.iter().map(|edge| (edge.id.as_str(), bytes(edge))).collect();
        let left_out = (CLIENTS - 10) * (CLIENTS - 9) / 2;
        assert_eq!(rest, [(format!("other>{server}").as_str(), left_out)], "{group_by}");
    }
    // So many edges that to name them takes megabytes; and windows of which all edges are compared.
    let (from, to) = (T0 - 12 * 3_600 - 10, T0 + 3_600);
    let graph = served.graph(from, to, &[("group_by", "ip"), ("stat", "bytes"), ("limit", "4000")]);
    assert_eq!((graph.edges.len(), totals(&graph)[1]), (4_001, CLIENTS * (CLIENTS + 1) / 2));
    let (from, to) = (format!("{from}000"), format!("{to}000"));
    let pairs = [("from", from.as_str()), ("to", to.as_str()), ("group_by", "namespace")];
    assert_eq!(served.get("/api/v1/diff", &pairs).status, 200);
    let pairs = [&pairs[..2], &[("group_by", "pod"), ("port", "81")]].concat();
    assert_eq!(served.get("/api/v1/diff", &pairs).status, 200);
}
