//! A stat over time says what graphs say: its points are the graph's, and those that add up add up to it.

use std::cell::Cell;
use std::collections::BTreeMap;

use flowtrail_query::{Edge, Graph, Point, StatValue, TimeSeries, Traffic};
use flowtrail_schema::row::FlowRow;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::common::{Served, T0, report, row, served};
use crate::tiers::{DAY_S, DAY0, DAYS, any_row, begin_at};

impl Served {
    pub(crate) fn series(&self, from: u32, to: u32, pairs: &[(&str, &str)]) -> TimeSeries {
        let (from, to) = (format!("{from}000"), format!("{to}000"));
        let window = [("from", from.as_str()), ("to", to.as_str())];
        let answer = self.get("/api/v1/timeseries", &[&window, pairs].concat());
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }
}

fn seconds(ms: i64) -> u32 {
    (ms / 1_000) as u32
}

/// What a stat is of some connections.
fn stat_of(stat: &str, traffic: &Traffic) -> Option<StatValue> {
    let both = |counter: fn(&flowtrail_query::Counters) -> u64| {
        Some(StatValue::Count(counter(&traffic.sent) + counter(&traffic.received)))
    };
    match stat {
        "bytes" => both(|counters| counters.bytes),
        "packets" => both(|counters| counters.packets),
        "retransmits" => both(|counters| counters.retransmitted_packets),
        "failures" => Some(StatValue::Count(traffic.failed)),
        "connections" => Some(StatValue::Count(traffic.connections)),
        "duration" => traffic.duration.avg_ms.map(StatValue::Milliseconds),
        _ => traffic.latency.p95_ms.map(StatValue::Milliseconds),
    }
}

/// The stat of a graph, by the ids that series have.
fn of_graph(graph: &Graph, split: &str, side: &str, stat: &str) -> BTreeMap<String, StatValue> {
    let of_edge = |edge: &Edge| Some((edge.id.clone(), stat_of(stat, &edge.traffic)?));
    let of_node = |node: &flowtrail_query::Node| {
        let traffic = if side == "client" { &node.as_client } else { &node.as_server };
        Some((node.id.to_string(), stat_of(stat, traffic)?))
    };
    match split {
        "edge" => graph.edges.iter().filter_map(of_edge).collect(),
        _ => graph.nodes.iter().filter_map(of_node).collect(),
    }
}

/// What is there: zeros and what is unknown say nothing of traffic.
fn counted(values: impl IntoIterator<Item = (String, StatValue)>) -> BTreeMap<String, StatValue> {
    values.into_iter().filter(|(_, value)| *value != StatValue::Count(0)).collect()
}

const ADDITIVE: &[&str] = &["bytes", "packets", "retransmits", "failures"];
const OTHERS: &[&str] = &["connections", "duration", "latency"];
/// Split, the graph's grouping, and the side.
const SPLITS: &[(&str, &str, &str)] = &[
    ("edge", "workload", "client"),
    ("edge", "pod", "client"),
    ("edge", "ip", "client"),
    ("namespace", "namespace", "client"),
    ("workload", "workload", "server"),
];
const FILTERS: &[&[(&str, &str)]] =
    &[&[], &[("namespace", "shop")], &[("port", "81")], &[("include", "^pod1$")]];

type Split = (&'static str, &'static str, &'static str);
type Question = (u32, u32, &'static str, Split, &'static [(&'static str, &'static str)], u32);

fn check(served: &Served, start: u32, question: &Question) {
    let (from, length, stat, (split, group_by, side), filter, points) = *question;
    let (from, to) = (start + from * 10, start + (from + length) * 10);
    let points = points.to_string();
    let asked = [("stat", stat), ("group_by", group_by), ("limit", "50")];
    let split_by = [("split", split), ("side", side), ("points", points.as_str())];
    let series = served.series(from, to, &[&asked, filter, &split_by].concat());
    let window = [seconds(series.window.from), seconds(series.window.to)];
    assert!(window[0] <= from && window[1] >= to);
    assert_eq!(series.step_s, series.window.resolution_s);
    let steps = (window[1] - window[0]) / series.step_s;
    assert_eq!(
        series.points.len(),
        steps as usize * series.series.len(),
        "every series, every step"
    );

    let asked = [("group_by", group_by), ("limit", "10000")];
    let graph = |from, to| {
        let graph = served.graph(from, to, &[&asked, filter].concat());
        assert_eq!((seconds(graph.window.from), seconds(graph.window.to)), (from, to));
        of_graph(&graph, split, side, stat)
    };
    if ADDITIVE.contains(&stat) {
        let count = |value: &StatValue| match value {
            StatValue::Count(count) => *count,
            StatValue::Milliseconds(_) => panic!("{stat} is counted"),
        };
        let expected = counted(graph(window[0], window[1]));
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for point in &series.points {
            let value = point.value.as_ref().map_or(0, count);
            let rate = value as f64 / f64::from(series.step_s);
            // JSON's digits may end one short.
            let close = |told: f64| (told - rate).abs() <= rate * 1e-12;
            assert!(point.value.is_none() || point.per_second.is_some_and(close), "{point:?}");
            *sums.entry(point.series.clone()).or_default() += value;
        }
        let total: u64 = expected.values().map(count).sum();
        assert_eq!(sums.values().sum::<u64>(), total, "nothing is dropped");
        sums.remove("other");
        for (series, sum) in sums.into_iter().filter(|(_, sum)| *sum > 0) {
            assert_eq!(Some(&StatValue::Count(sum)), expected.get(&series), "{series}");
        }
    } else if let Some(busy) = series.points.iter().find(|point| point.value.is_some()) {
        // One step is as good as another.
        let at_s = seconds(busy.time);
        let expected = counted(graph(at_s, at_s + series.step_s));
        let of_step = series.points.iter().filter(|point| point.time == busy.time);
        let values = |point: &Point| Some((point.series.clone(), point.value?));
        let mut values = counted(of_step.filter_map(values));
        values.remove("other");
        let kept = |id: &String| series.series.iter().any(|series| series.id == *id);
        let expected: BTreeMap<_, _> = expected.into_iter().filter(|(id, _)| kept(id)).collect();
        assert_eq!(values, expected);
    }
}

#[test]
fn points_are_what_graphs_say() {
    let served = served("series_laws");
    let stats = [ADDITIVE, OTHERS].concat();
    let window = (0..DAYS * 8_640, 1..DAYS * 8_640_u32);
    let kind = (select(stats), select(SPLITS), select(FILTERS), 2..1_000_u32);
    let question = (window, kind).prop_map(|((from, length), (stat, split, filter, points))| {
        // Often short, so that steps are too.
        let length = if length % 2 == 0 { length % 900 + 1 } else { length };
        (from, length.min(DAYS * 8_640 - from), stat, split, filter, points)
    });
    let strategy = (prop::collection::vec(any_row(), 40..90), prop::collection::vec(question, 10));
    let case = Cell::new(0);
    let config = Config { failure_persistence: None, ..Config::with_cases(6) };
    let result = TestRunner::new(config).run(&strategy, |(rows, questions)| {
        // Days of its own, so that all cases share the tables; far from others', for steps of several days.
        let start = DAY0 + case.get() * 40 * DAY_S;
        case.set(case.get() + 1);
        let mut rows = rows;
        begin_at(&mut rows, start);
        served.insert("flows", &rows);
        questions.iter().for_each(|question| check(&served, start, question));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn counts(points: &[Point]) -> Vec<Option<u64>> {
    let count = |point: &Point| match point.value {
        Some(StatValue::Count(count)) => Some(count),
        _ => None,
    };
    points.iter().map(count).collect()
}

#[test]
fn zero_is_told_from_unknown() {
    let served = served("series_gaps");
    served.insert("flows", &[row(T0, 1), row(T0 + 60, 1)]);
    let of = |agent, starts: &[u32]| {
        starts.iter().map(|start| report(agent, T0 + start)).collect::<Vec<_>>()
    };
    served.insert("coverage", &[of("n1", &[0, 10, 20, 40]), of("n2", &[0, 10])].concat());
    let series = served.series(T0, T0 + 70, &[("stat", "packets"), ("points", "7")]);
    assert_eq!((series.step_s, series.series.len()), (10, 1));
    // The last was counted, although no report on it has come.
    let expected = [Some(5), Some(0), Some(0), None, Some(0), None, Some(5)];
    assert_eq!(counts(&series.points), expected);
    let coverage: Vec<_> = series.points.iter().map(|point| point.coverage).collect();
    assert_eq!(coverage, [1.0, 1.0, 0.5, 0.0, 0.5, 0.0, 0.0]);
    assert_eq!(series.points[0].per_second, Some(0.5));
    assert!(!series.coverage.blind_spots.is_empty());
    // Of hours, from what is told of hours.
    let hours = served.series(T0 - 7_200, T0 + 70, &[("stat", "packets"), ("points", "4")]);
    assert_eq!((hours.step_s, counts(&hours.points)), (3_600, vec![None, None, Some(10)]));
    assert!(hours.points[2].coverage > 0.0);
}

#[test]
fn the_rest_is_one_series() {
    let served = served("series_other");
    let to = |workload: &str, bytes| FlowRow {
        server_workload: workload.to_owned(),
        sent_bytes: bytes,
        received_bytes: 0,
        ..row(T0, bytes)
    };
    served.insert("flows", &[to("a", 1), to("b", 20), to("c", 300)]);
    let pairs = [("stat", "bytes"), ("split", "workload"), ("side", "server"), ("limit", "1")];
    let series = served.series(T0, T0 + 10, &pairs);
    let names: Vec<_> = series.series.iter().map(|series| series.name.as_str()).collect();
    assert_eq!(
        (names, counts(&series.points)),
        (vec!["shop/c", "other"], vec![Some(300), Some(21)])
    );
    let pairs = [("stat", "bytes"), ("split", "edge")];
    let series = served.series(T0, T0 + 10, &pairs);
    assert_eq!(series.series[0].name, "shop/web → shop/c");
    let pairs = [("stat", "connections")];
    assert_eq!(served.series(T0, T0 + 10, &pairs).step_s, 60);
    for (name, value) in [("split", "pod"), ("points", "1001"), ("limit", "51"), ("side", "x")] {
        let problem = served.problem("/api/v1/timeseries", &[(name, value)]);
        assert_eq!((problem.status, problem.parameter.as_deref()), (400, Some(name)));
    }
}
