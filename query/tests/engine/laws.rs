//! The laws of windows (design 3.5), over random traffic, against the real engine.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::common::{Served, T0, row, served};
use flowtrail_query::{Graph, Traffic};
use flowtrail_schema::IdKind;
use flowtrail_schema::row::FlowRow;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Intervals of 10 s of traffic in each case.
const INTERVALS: u32 = 30;

/// A connection as the agent sees it, in intervals since the case's start.
#[derive(Clone, Debug)]
struct Connection {
    client: u8,
    server: u8,
    first: u32,
    /// The interval of its close, if there is one.
    last: Option<u32>,
    joined: bool,
    /// The SYN-ACK comes an interval after the SYN.
    half_open_first: bool,
    /// Bit i: it has packets in interval i, although it neither begins nor ends there.
    busy: u32,
}

fn connection() -> impl Strategy<Value = Connection> {
    let ends = (0..2_u8, 0..2_u8, any::<bool>(), any::<bool>());
    (ends, 0..INTERVALS, prop::option::of(0..12_u32), any::<u32>(), any::<u32>()).prop_map(
        |((client, server, joined, half_open), first, length, busy, less_busy)| {
            let last = length.map(|length| first + length).filter(|last| *last < INTERVALS);
            // A half-open connection is not open, so at a minute it would be in no window: not here.
            let answered = (first + 1) % 6 != 0 && last != Some(first);
            let half_open_first = half_open && !joined && answered;
            let busy = busy & less_busy;
            Connection { client, server, first, last, joined, half_open_first, busy }
        },
    )
}

impl Connection {
    fn edge(&self) -> String {
        format!(
            "workload:shop/Deployment/web{}>workload:shop/StatefulSet/db{}",
            self.client, self.server
        )
    }

    /// In some interval of `[from, to)`.
    fn alive(&self, from: u32, to: u32) -> bool {
        self.first < to && self.last.is_none_or(|last| last >= from)
    }

    /// Open when an interval begins.
    fn open_at(&self, interval: u32) -> bool {
        self.first < interval && self.last.is_none_or(|last| last >= interval)
    }

    /// Its rows, the first interval being at `start` seconds: one for each interval with packets,
    /// and one in the first interval of each minute while it is open.
    fn rows(&self, start: u32, number: u64) -> Vec<FlowRow> {
        let answered_at = self.first + u32::from(self.half_open_first);
        let row = |i: u32| {
            let begins = i == self.first;
            let ends = self.last == Some(i);
            let answers = i == answered_at;
            let heartbeat = i.is_multiple_of(6) && self.open_at(i);
            if !(self.alive(i, i + 1)
                && (begins || ends || answers || heartbeat || self.busy >> i & 1 == 1))
            {
                return None;
            }
            let half_open = i < answered_at;
            let mut row = row(start + 10 * i, number << 32 | u64::from(!half_open));
            if half_open {
                row.id_kind = IdKind::Partial.number();
            }
            row.client_port = number as u16;
            row.client_workload = format!("web{}", self.client);
            row.server_workload = format!("db{}", self.server);
            row.server_port = 80 + u16::from(self.server);
            row.opened = u32::from(begins && !self.joined);
            row.joined = u32::from(begins && self.joined);
            row.direction_inferred = self.joined;
            row.open_at_start = u32::from(self.open_at(i));
            row.closed_fin = u32::from(ends);
            row.sent_bytes = number * 1_000 + u64::from(i);
            row.received_packets = u64::from(i);
            row.syn_to_synack_count = u32::from(answers && !self.joined);
            row.syn_to_synack_us = number * u64::from(row.syn_to_synack_count);
            row.syn_to_synack_max_us = row.syn_to_synack_us;
            Some(row)
        };
        (0..INTERVALS).filter_map(row).collect()
    }
}

/// What adds up, by edge.
type Additive = BTreeMap<String, [u64; 9]>;

fn additive(graph: &Graph) -> Additive {
    let counters = |traffic: &Traffic| {
        [
            traffic.opened,
            traffic.joined,
            traffic.closed.fin,
            traffic.sent.bytes,
            traffic.sent.packets,
            traffic.received.bytes,
            traffic.received.packets,
            traffic.retransmits,
            traffic.latency.count,
        ]
    };
    let edges = graph.edges.iter().map(|edge| (edge.id.clone(), counters(&edge.traffic)));
    // An edge that is only open has nothing yet that adds up.
    edges.filter(|(_, counters)| counters.iter().any(|counter| *counter > 0)).collect()
}

fn plus(mut a: Additive, b: Additive) -> Additive {
    for (edge, counters) in b {
        let sum = a.entry(edge).or_default();
        sum.iter_mut().zip(counters).for_each(|(sum, counter)| *sum += counter);
    }
    a
}

/// Connections by edge: all, and those of them open at the end.
fn connections(graph: &Graph) -> BTreeMap<String, [u64; 2]> {
    let counts = |traffic: &Traffic| [traffic.connections, traffic.open];
    graph.edges.iter().map(|edge| (edge.id.clone(), counts(&edge.traffic))).collect()
}

/// Parameters of the API, and the same as a question about a connection.
type Filter = (&'static [(&'static str, &'static str)], fn(&Connection) -> bool);

const FILTERS: &[Filter] = &[
    (&[], |_| true),
    (&[("include", "^web1$")], |connection| connection.client == 1),
    (&[("exclude", "^db0$")], |connection| connection.server != 0),
    (&[("port", "81"), ("namespace", "shop")], |connection| connection.server == 1),
];

fn check(served: &Served, start: u32, traffic: &[Connection], cuts: [u32; 3], filter: Filter) {
    let (pairs, keeps) = filter;
    let numbered = (1..).zip(traffic);
    let rows: Vec<_> =
        numbered.flat_map(|(number, connection)| connection.rows(start, number)).collect();
    served.insert("flows", &rows);
    let [a, b, c] = cuts;
    let windows = [(a, b), (b, c), (a, c)];
    let graphs = windows.map(|(from, to)| served.graph(start + 10 * from, start + 10 * to, pairs));

    let [first, second, both] = graphs.each_ref().map(additive);
    assert_eq!(plus(first, second), both, "law 1");

    for ((from, to), graph) in windows.into_iter().zip(&graphs) {
        let mut expected: BTreeMap<String, [u64; 2]> = BTreeMap::new();
        let kept = traffic.iter().filter(|connection| keeps(connection));
        for connection in kept.filter(|connection| connection.alive(from, to)) {
            let counts = expected.entry(connection.edge()).or_default();
            counts[0] += 1;
            counts[1] += u64::from(connection.open_at(to));
        }
        assert_eq!(connections(graph), expected, "law 2, [{from}, {to})");
    }
}

#[test]
fn windows_add_up_and_connections_count_in_each_they_span() {
    let served = served("laws");
    let filters = prop::sample::select(FILTERS);
    let cuts = prop::sample::subsequence((0..=INTERVALS).collect::<Vec<_>>(), 3);
    let traffic = prop::collection::vec(connection(), 0..25);
    let case = Cell::new(0);
    let config = Config { failure_persistence: None, ..Config::with_cases(16) };
    let result =
        TestRunner::new(config).run(&(traffic, cuts, filters), |(traffic, cuts, filter)| {
            // A case has an hour of its own, so that all share the tables.
            case.set(case.get() + 3_600);
            check(&served, T0 + case.get(), &traffic, [cuts[0], cuts[1], cuts[2]], filter);
            Ok(())
        });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Sums of an edge that its connections' sums are: bytes and packets of both directions, payload,
/// retransmits, and the life counts.
type Counts = [u64; 14];

fn counts_of_edge(traffic: &Traffic) -> Counts {
    let (sent, received, closed) = (&traffic.sent, &traffic.received, &traffic.closed);
    [
        sent.bytes,
        sent.packets,
        sent.payload_bytes,
        received.bytes,
        received.packets,
        received.payload_bytes,
        traffic.retransmits,
        traffic.opened,
        traffic.joined,
        closed.fin,
        closed.reset_by_client,
        closed.refused,
        closed.unanswered,
        closed.idle,
    ]
}

fn counts_of_connection(connection: &flowtrail_query::Connection) -> Counts {
    let (sent, received, closed) = (&connection.sent, &connection.received, &connection.closed);
    [
        sent.bytes,
        sent.packets,
        sent.payload_bytes,
        received.bytes,
        received.packets,
        received.payload_bytes,
        sent.retransmitted_packets + received.retransmitted_packets,
        connection.opened,
        connection.joined,
        closed.fin,
        closed.reset_by_client,
        closed.refused,
        closed.unanswered,
        closed.idle,
    ]
}

/// The same rows as the server's side sees them, as evidence; and other reasons to end.
fn with_evidence(rows: Vec<FlowRow>, number: u64) -> Vec<FlowRow> {
    let ends = |row: &FlowRow| row.closed_fin;
    let other_end = |row: FlowRow| FlowRow {
        closed_fin: if number.is_multiple_of(4) { ends(&row) } else { 0 },
        closed_reset_by_client: if number % 4 == 1 { ends(&row) } else { 0 },
        closed_unanswered: if number % 4 == 2 { ends(&row) } else { 0 },
        closed_idle: if number % 4 == 3 { ends(&row) } else { 0 },
        ..row
    };
    let server_side = |row: FlowRow| FlowRow {
        primary: false,
        node: "n2".to_owned(),
        agent: "n2".to_owned(),
        interface: "veth2".to_owned(),
        reporter: flowtrail_schema::Reporter::Server.number(),
        server_ip: row.server_real_ip,
        server_port: row.server_real_port,
        sent_bytes: row.sent_bytes + 1,
        ..row
    };
    rows.into_iter().map(other_end).flat_map(|row| [server_side(row.clone()), row]).collect()
}

const GROUPINGS: &[&str] = &["namespace", "workload", "pod", "service", "node", "ip"];

/// Every edge of the graph has the connections that it counts.
fn check_connections(
    served: &Served,
    start: u32,
    traffic: &[Connection],
    (from, to): (u32, u32),
    filter: &[(&str, &str)],
    group_by: &str,
) {
    let numbered = (1..).zip(traffic);
    let rows: Vec<_> = numbered
        .flat_map(|(number, connection)| with_evidence(connection.rows(start, number), number))
        .collect();
    served.insert("flows", &rows);
    let (from, to) = (start + 10 * from, start + 10 * to);
    let pairs = [filter, &[("group_by", group_by)]].concat();
    let graph = served.graph(from, to, &pairs);
    let mut sum = [0; 14];
    for edge in &graph.edges {
        let pairs = [pairs.as_slice(), &[("edge", edge.id.as_str()), ("limit", "500")]].concat();
        let connections = served.connections(from, to, &pairs).connections;
        let mut counts = [0; 14];
        for connection in &connections {
            let more = counts_of_connection(connection);
            counts.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            let [primary, server_side @ ..] = connection.observations.as_slice() else {
                panic!("{connection:#?}")
            };
            assert!(primary.primary && server_side.iter().all(|seen| !seen.primary));
        }
        assert_eq!(counts, counts_of_edge(&edge.traffic), "{}", edge.id);
        // Those whose SYN is before the window and its answer in it count in neither, and are listed.
        assert!(connections.len() as u64 >= edge.traffic.connections, "{}", edge.id);
        let open = connections.iter().filter(|connection| {
            matches!(
                connection.state,
                flowtrail_query::State::Open | flowtrail_query::State::HalfOpen
            )
        });
        assert_eq!(open.count() as u64, edge.traffic.open, "{}", edge.id);
        sum.iter_mut().zip(counts).for_each(|(sum, more)| *sum += more);
    }
    // And there are no others.
    let mut all = [0; 14];
    for connection in
        served.connections(from, to, &[filter, &[("limit", "500")]].concat()).connections
    {
        let more = counts_of_connection(&connection);
        all.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
    assert_eq!(all, sum);
}

#[test]
fn the_connections_of_an_edge_add_up_to_it() {
    let served = served("laws_of_connections");
    let filters = prop::sample::select(FILTERS);
    let cuts = prop::sample::subsequence((0..=INTERVALS).collect::<Vec<_>>(), 2);
    let traffic = prop::collection::vec(connection(), 0..25);
    let groupings = prop::sample::select(GROUPINGS);
    let case = Cell::new(0);
    let config = Config { failure_persistence: None, ..Config::with_cases(12) };
    let result = TestRunner::new(config).run(
        &(traffic, cuts, filters, groupings),
        |(traffic, cuts, (filter, _), group_by)| {
            // A case has an hour of its own, so that all share the tables.
            case.set(case.get() + 3_600);
            let window = (cuts[0], cuts[1]);
            check_connections(&served, T0 + case.get(), &traffic, window, filter, group_by);
            Ok(())
        },
    );
    result.unwrap_or_else(|error| panic!("{error}"));
}
