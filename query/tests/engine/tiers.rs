//! Law 3 (design 3.5): the planned answer is the answer from raw rows alone; and what is past its
//! retention is answered from what is left, and says so.

use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr};

use flowtrail_query::{Graph, StatValue};
use flowtrail_schema::row::{EntityKind, FlowRow};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::common::{Served, report, row, runtime, served};

/// 2023-11-15T00:00:00Z.
pub(crate) const DAY0: u32 = 1_700_006_400;
pub(crate) const DAY_S: u32 = 86_400;

/// Days that a case's rows are of.
pub(crate) const DAYS: u32 = 3;

pub(crate) const ROLLUPS: [&str; 7] = [
    "edges_1m",
    "edges_1h",
    "edges_1d",
    "edges_1w",
    "workload_edges_1h",
    "workload_edges_1d",
    "workload_edges_1w",
];

/// 2023-11-19T00:00:00Z.
const SUNDAY0: u32 = DAY0 + 4 * DAY_S;

/// Days since a Sunday that rows are of and windows begin and end in, so that weeks are whole between them: that
/// day, the next one, a Friday, and two more Mondays.
const DAYS_OF_WEEKS: &[u32] = &[0, 1, 5, 8, 15];

impl Served {
    pub(crate) fn run(&self, sql: &str) {
        runtime().block_on(self.store.client().query_raw(sql).execute()).unwrap();
    }
}

fn end(kind: EntityKind, number: u8) -> (i8, [String; 5], Ipv6Addr) {
    let text = |text: &str| text.to_owned();
    let numbered = |text: &str| format!("{text}{number}");
    let address = Ipv4Addr::new(10, kind.number() as u8, 0, number).to_ipv6_mapped();
    // Namespace, workload, its kind, name, node.
    let names = match kind {
        EntityKind::Pod => {
            let workload = format!("app{}", number % 2);
            [text("shop"), workload, text("Deployment"), numbered("pod"), text("n1")]
        }
        EntityKind::Service => [text("shop"), text(""), text(""), numbered("service"), text("")],
        EntityKind::Node => [text(""), text(""), text(""), numbered("n"), numbered("n")],
        EntityKind::External | EntityKind::Unknown => Default::default(),
    };
    (kind.number(), names, address)
}

prop_compose! {
    /// A row at some time of the case: all that it holds is its own, as far as sums are concerned.
    pub(crate) fn any_row()(
        (client, server) in (select(EntityKind::ALL), select(EntityKind::ALL)),
        (client_number, server_number) in (0..4_u8, 0..4_u8),
        (interval, is_round, primary) in (0..DAYS * 8_640, 0..4_u8, 0..5_u8),
        (bytes, opened, open, refused, inferred) in (0..1_000_000_u64, 0..2_u32, 0..3_u32, 0..2_u32, any::<bool>()),
        (latency_us, samples, response_us) in (0..1_000_000_u64, 0..3_u32, 1..100_000_u64),
        (port, through_service) in (80..83_u16, any::<bool>()),
    ) -> FlowRow {
        // Often at the start of a minute, an hour or a day.
        let interval = match is_round {
            0 => interval / 6 * 6,
            1 => interval / 360 * 360,
            2 => interval / 8_640 * 8_640,
            _ => interval,
        };
        let start = interval * 10;
        let mut row = row(start, u64::from(client_number) << 32 | u64::from(server_number));
        let (client_kind, client, client_ip) = end(client, client_number);
        let (server_kind, server, server_ip) = end(server, server_number);
        (row.client_kind, row.client_real_ip, row.client_ip) = (client_kind, client_ip, client_ip);
        (row.server_kind, row.server_real_ip) = (server_kind, server_ip);
        [row.client_namespace, row.client_workload, row.client_workload_kind, row.client_name, row.client_node] = client;
        [row.server_namespace, row.server_workload, row.server_workload_kind, row.server_name, row.server_node] = server;
        if !through_service {
            (row.service_namespace, row.service_name) = Default::default();
            row.server_ip = server_ip;
        }
        row.primary = primary > 0;
        row.server_port = port;
        row.direction_inferred = inferred;
        (row.sent_bytes, row.received_packets, row.sent_retransmitted_packets) = (bytes, bytes / 7, bytes % 2);
        (row.opened, row.open_at_start, row.closed_refused) = (opened, open, refused);
        (row.syn_to_synack_count, row.syn_to_synack_us) = (samples, latency_us * u64::from(samples));
        row.syn_to_synack_max_us = if samples > 0 { latency_us } else { 0 };
        (row.first_response_count, row.first_response_us, row.first_response_max_us) = (1, response_us, response_us);
        (row.duration_count, row.duration_us, row.duration_max_us) = (opened, bytes, bytes);
        row
    }
}

/// Moves rows of [`any_row`] to a case that begins at `start`, with packets up to each interval's last second.
pub(crate) fn begin_at(rows: &mut [FlowRow], start: u32) {
    for row in rows {
        row.interval_start += start;
        let first_seen = i64::from(row.interval_start) * 1_000_000;
        (row.first_seen, row.last_seen) = (first_seen, first_seen + 9_000_000);
    }
}

const QUESTIONS: &[&[(&str, &str)]] = &[
    &[],
    &[("namespace", "shop")],
    &[("port", "81")],
    &[("workload", "shop/app1")],
    &[("kind", "external")],
    &[("include", "^pod1$")],
    &[("exclude", "10[.]4[.]")],
    &[("stat", "bytes"), ("limit", "3")],
];

const GROUPINGS: &[&str] = &["namespace", "workload", "pod", "service", "node", "ip"];

#[test]
fn the_planned_answer_is_that_of_raw_rows_alone() {
    let (planned, raw) = (served("tiers_planned"), served("tiers_raw"));
    let day = || select(DAYS_OF_WEEKS);
    let any_row = (any_row(), day()).prop_map(|(row, day)| FlowRow {
        interval_start: day * DAY_S + row.interval_start % DAY_S,
        ..row
    });
    let instant = || {
        let of_day = prop_oneof![Just(0), 0..8_640_u32];
        (day(), of_day).prop_map(|(day, interval)| day * DAY_S + interval * 10)
    };
    let question = (select(QUESTIONS), select(GROUPINGS));
    let question = ((instant(), instant()), question);
    let strategy = (prop::collection::vec(any_row, 1..60), prop::collection::vec(question, 8));
    let case = Cell::new(0);
    let config = Config { failure_persistence: None, ..Config::with_cases(8) };
    let result = TestRunner::new(config).run(&strategy, |(rows, questions)| {
        // Weeks of its own, so that all cases share the tables.
        let start = SUNDAY0 + case.get() * 28 * DAY_S;
        case.set(case.get() + 1);
        let mut rows = rows;
        begin_at(&mut rows, start);
        // Some come late.
        for some in rows.chunks(20) {
            planned.insert("flows", some);
            raw.insert("flows", some);
        }
        for rollup in ROLLUPS {
            raw.run(&format!("TRUNCATE TABLE {rollup}"));
        }
        for ((one, other), (filter, group_by)) in questions {
            let (from, to) = (start + one.min(other), start + one.max(other).max(one + 10));
            let pairs = [filter, &[("group_by", group_by)]].concat();
            let of = |served: &Served| served.graph(from, to, &pairs);
            prop_assert_eq!(of(&planned), of(&raw), "[{}, {}) {:?}", from, to, pairs);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Rows in two minutes of an hour, days before another.
fn with_an_old_hour(database: &str) -> Served {
    let served = served(database);
    let at = |time: u32, connection_id| FlowRow { opened: 1, ..row(time, connection_id) };
    let old = [at(DAY0 + 3_600 + 10, 1), at(DAY0 + 3_600 + 50, 2), at(DAY0 + 7_190, 3)];
    served.insert("flows", &old);
    served.insert("flows", &[at(DAY0 + 5 * DAY_S, 4)]);
    served
}

fn opened(graph: &Graph) -> u64 {
    graph.edges.iter().map(|edge| edge.traffic.opened).sum()
}

#[test]
fn what_was_open_when_reports_ended_is_told_by_what_is_left() {
    let hour = DAY0 + 3_600;
    let seen = |time: u32, client_isn: u64| row(time, client_isn << 32);
    let open = |time, client_isn| FlowRow { open_at_start: 1, ..seen(time, client_isn) };
    // The agent falls silent in the hour's third minute, when two more connections are open than as the hour began.
    let reports: Vec<_> = (0..15).map(|interval| report("n1", hour + 10 * interval)).collect();
    for (gone, expected) in [(&[][..], 3), (&["flows"], 2), (&["flows", "edges_1m"], 1)] {
        let served = served(&format!("open_left_{}", gone.len()));
        served.insert("flows", &[open(hour, 1), open(hour + 60, 1), open(hour + 60, 2)]);
        // The last is seen within that minute.
        let third = [open(hour + 120, 1), open(hour + 120, 2), seen(hour + 130, 3)];
        served.insert("flows", &third);
        served.insert("flows", &[seen(DAY0 + 5 * DAY_S, 4)]);
        served.insert("coverage", &reports);
        for table in gone {
            served.run(&format!("ALTER TABLE {table} DROP PARTITION '2023-11-15'"));
        }
        let graph = served.graph(hour, hour + 3_600, &[]);
        assert_eq!(graph.window.complete_until, i64::from(hour + 150) * 1_000);
        assert_eq!(graph.edges[0].traffic.open, expected, "without {gone:?}");
    }
}

#[test]
fn past_the_retention_a_window_is_widened_and_says_so() {
    let (from, to) = (DAY0 + 3_600 + 40, DAY0 + 3_600 + 100);
    let whole = with_an_old_hour("kept");
    let graph = whole.graph(from, to, &[]);
    assert_eq!((opened(&graph), graph.window.resolution_s), (1, 10));

    let ms = |time: u32| i64::from(time) * 1_000;
    let minutes = with_an_old_hour("minutes_left");
    minutes.run("ALTER TABLE flows DROP PARTITION '2023-11-15'");
    let graph = minutes.graph(from, to, &[]);
    assert_eq!((opened(&graph), graph.window.resolution_s), (2, 60));
    let window = (graph.window.from, graph.window.to);
    assert_eq!(window, (ms(DAY0 + 3_600), ms(DAY0 + 3_600 + 120)));
    assert_eq!((graph.window.requested_from, graph.window.requested_to), (ms(from), ms(to)));

    let hours = with_an_old_hour("hours_left");
    hours.run("ALTER TABLE flows DROP PARTITION '2023-11-15'");
    hours.run("ALTER TABLE edges_1m DROP PARTITION '2023-11-15'");
    let graph = hours.graph(from, to, &[]);
    assert_eq!((opened(&graph), graph.window.resolution_s), (3, 3_600));
    assert_eq!((graph.window.from, graph.window.to), (ms(DAY0 + 3_600), ms(DAY0 + 7_200)));
    // What is recent is as fine as ever.
    let recent = DAY0 + 5 * DAY_S;
    let graph = hours.graph(recent, recent + 20, &[]);
    assert_eq!((opened(&graph), graph.window.resolution_s), (1, 10));

    let weeks = with_an_old_hour("weeks_left");
    weeks.run("ALTER TABLE flows DROP PARTITION '2023-11-15'");
    weeks.run("ALTER TABLE edges_1m DROP PARTITION '2023-11-15'");
    for table in ["edges_1h", "edges_1d", "workload_edges_1h", "workload_edges_1d"] {
        weeks.run(&format!("TRUNCATE TABLE {table}"));
    }
    let monday = DAY0 - 2 * DAY_S;
    for group_by in ["workload", "pod"] {
        let graph = weeks.graph(from, to, &[("group_by", group_by)]);
        assert_eq!((opened(&graph), graph.window.resolution_s), (3, 7 * DAY_S));
        assert_eq!((graph.window.from, graph.window.to), (ms(monday), ms(monday + 7 * DAY_S)));
    }
    let graph = weeks.graph(recent, recent + 20, &[]);
    assert_eq!((opened(&graph), graph.window.resolution_s), (1, 10));
    // A series of weeks, as nothing finer is left of all of it.
    let series = weeks.series(from, recent + 10, &[("stat", "connections")]);
    assert_eq!((series.step_s, series.window.from), (7 * DAY_S, ms(monday)));
    let counts: Vec<_> = series.points.iter().map(|point| point.value).collect();
    assert_eq!(counts, [3, 1].map(|count| Some(StatValue::Count(count))));
}
