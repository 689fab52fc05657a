//! Two windows compared: what is new, gone and changed, and whether anybody could have seen it.

use std::cell::Cell;
use std::collections::BTreeSet;

use flowtrail_query::{Change, Diff, Graph, StatValue};
use flowtrail_schema::row::{CoverageRow, FlowRow};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::common::{Served, T0, report, row, served};
use crate::tiers::{DAY_S, DAY0, DAYS, ROLLUPS, any_row};

impl Served {
    fn diff(&self, from: u32, to: u32, pairs: &[(&str, &str)]) -> Diff {
        let (from, to) = (format!("{from}000"), format!("{to}000"));
        let window = [("from", from.as_str()), ("to", to.as_str())];
        let answer = self.get("/api/v1/diff", &[&window, pairs].concat());
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }
}

/// A row of a connection to a workload.
fn to(start: u32, server: &str, bytes: u64) -> FlowRow {
    FlowRow {
        opened: 1,
        sent_bytes: bytes,
        received_bytes: 0,
        server_workload: server.to_owned(),
        ..row(start, bytes << 32 | u64::from(start % 1_000))
    }
}

fn clean(agent: &str, start: u32) -> CoverageRow {
    CoverageRow { packets_dropped: 0, records_dropped: 0, ..report(agent, start) }
}

fn told(diff: &Diff) -> Vec<(Change, &str, bool)> {
    diff.edges.iter().map(|edge| (edge.change, edge.name.as_str(), edge.certain)).collect()
}

use Change::{Changed, Gone, New};

#[test]
fn history_is_of_rows_where_rollups_were_begun_later() {
    let served = served("diff_of_rows");
    let evidence = FlowRow { primary: false, ..to(T0, "new", 1) };
    served.insert("flows", &[evidence, to(T0 + 600, "new", 1), to(T0 + 7_200, "new", 1)]);
    for rollup in ROLLUPS {
        served.run(&format!("TRUNCATE TABLE {rollup}"));
    }
    let diff = served.diff(T0 + 7_200, T0 + 7_260, &[("base", "-1h")]);
    assert_eq!(told(&diff), [(New, "shop/web → shop/new", false)]);
    assert_eq!(diff.edges[0].first_seen, Some(i64::from(T0 + 600) * 1_000 + 1));
}

#[test]
fn edges_are_new_gone_or_changed() {
    let served = served("diff");
    let day = 86_400;
    let now = T0 + 5 * day;
    let history = [to(T0, "back", 1), to(T0 + day, "other", 1)];
    let before = [to(now - day, "gone", 70), to(now - day, "more", 10), to(now - day, "same", 10)];
    let after =
        [to(now, "back", 500), to(now, "more", 100), to(now + 10, "same", 19), to(now, "first", 5)];
    served.insert("flows", &history);
    served.insert("flows", &[before.as_slice(), &after].concat());
    let pairs = [("base", "-1d"), ("stat", "bytes")];
    let diff = served.diff(now, now + 60, &pairs);
    let expected = [
        (New, "shop/web → shop/back", false),
        (Changed, "shop/web → shop/more", false),
        (Gone, "shop/web → shop/gone", false),
        (New, "shop/web → shop/first", false),
    ];
    assert_eq!(told(&diff), expected);
    let counts = diff.counts;
    assert_eq!((counts.new, counts.gone, counts.changed, counts.same), (2, 1, 1, 1));
    let [back, more, gone, first] = diff.edges.as_slice() else { panic!("four edges") };
    assert_eq!(back.first_seen, Some(i64::from(T0) * 1_000 + 1));
    assert_eq!(first.first_seen, Some(i64::from(now) * 1_000 + 1));
    assert_eq!((back.base_value, back.base_traffic, back.ratio), (None, None, None));
    let values = (more.value, more.base_value, more.ratio);
    let count = |count| Some(StatValue::Count(count));
    assert_eq!(values, (count(100), count(10), Some(10.0)));
    assert_eq!((gone.value, gone.base_per_second), (None, Some(70.0 / 60.0)));
    assert_eq!(gone.base_traffic.unwrap().sent.bytes, 70);

    let diff = served.diff(now, now + 60, &[&pairs[..], &[("limit", "1")]].concat());
    assert_eq!((diff.edges.len(), diff.more, diff.counts.gone), (1, 3, 1));
    let diff = served.diff(now, now + 60, &[&pairs[..], &[("threshold", "1.5")]].concat());
    assert_eq!((diff.counts.changed, diff.counts.same), (2, 0));

    // Ten times as long a window: rates are compared.
    let base = format!("{}000", now - day);
    let base_to = format!("{}000", now - day + 600);
    let pairs = [("base_from", base.as_str()), ("base_to", base_to.as_str()), ("stat", "bytes")];
    let diff = served.diff(now, now + 60, &pairs);
    let same = diff.edges.iter().find(|edge| edge.name.ends_with("same")).unwrap();
    assert_eq!((same.change, same.base_value), (Changed, count(10)));
    assert!((same.ratio.unwrap() - 19.0).abs() < 1e-9);
}

#[test]
fn what_nobody_could_see_is_not_certain() {
    let served = served("diff_blind");
    let window = |at: u32| (0..6).map(move |interval| T0 + at * 600 + 10 * interval);
    let all = |agent, at| window(at).map(move |start| clean(agent, start)).collect::<Vec<_>>();
    // Of the windows 0 to 3: all see all; n2 is silent; n1 misses an interval; all see all.
    let missing: Vec<_> =
        all("n1", 2).into_iter().filter(|row| row.interval_start != T0 + 1_220).collect();
    let later = [clean("n1", T0 + 2_400), clean("n2", T0 + 2_400)];
    let reports = [
        all("n1", 0),
        all("n2", 0),
        all("n1", 1),
        missing,
        all("n2", 2),
        all("n1", 3),
        all("n2", 3),
    ];
    served.insert("coverage", &reports.concat());
    served.insert("coverage", &later);
    served.insert("flows", &[to(T0, "a", 1), to(T0 + 1_800, "b", 1)]);
    let diff = |at: u32, base: u32| {
        let base = format!("{}000", T0 + base * 600);
        let from = T0 + at * 600;
        served.diff(from, from + 60, &[("base_from", base.as_str())])
    };
    let clear = diff(3, 0);
    assert_eq!(told(&clear), [(Gone, "shop/web → shop/a", true), (New, "shop/web → shop/b", true)]);
    assert!(clear.current.whole && clear.base.whole);

    let silent = diff(1, 0);
    assert_eq!(told(&silent), [(Gone, "shop/web → shop/a", false)]);
    assert_eq!(
        (silent.current.silent_agents.as_slice(), silent.base.whole),
        (["n2".to_owned()].as_slice(), true)
    );

    let missed = diff(3, 2);
    assert_eq!(told(&missed), [(New, "shop/web → shop/b", false)]);
    assert_eq!(missed.base.coverage.blind_spots.len(), 1);
    assert!(missed.current.whole && missed.base.silent_agents.is_empty());
}

/// Ids of a graph's edges.
fn ids(graph: &Graph) -> BTreeSet<String> {
    graph.edges.iter().map(|edge| edge.id.clone()).collect()
}

#[test]
fn differences_are_those_of_the_graphs() {
    let served = served("diff_laws");
    let window = || (0..DAYS * 8_640 - 400, 1..400_u32);
    let group_by = select(vec!["namespace", "workload", "pod", "ip"]);
    let strategy = (prop::collection::vec(any_row(), 30..60), window(), window(), group_by);
    let case = Cell::new(0);
    let config = Config { failure_persistence: None, ..Config::with_cases(8) };
    let result = TestRunner::new(config).run(&strategy, |(rows, current, base, group_by)| {
        let start = DAY0 + case.get() * DAYS * DAY_S;
        case.set(case.get() + 1);
        let mut rows = rows;
        for row in &mut rows {
            // Within the first two hours, so that windows have some in common.
            row.interval_start = start + row.interval_start % 7_200;
            row.first_seen = i64::from(row.interval_start) * 1_000_000;
            row.last_seen = row.first_seen + 9_000_000;
        }
        served.insert("flows", &rows);
        let seconds = |(from, length): (u32, u32)| {
            let from = start + from % 700 * 10;
            (from, from + length * 10)
        };
        let (current, base) = (seconds(current), seconds(base));
        let ms = [base.0, base.1].map(|time| format!("{time}000"));
        let pairs = [("group_by", group_by), ("limit", "10000")];
        let of_base = [("base_from", ms[0].as_str()), ("base_to", ms[1].as_str())];
        let diff = served.diff(current.0, current.1, &[pairs, of_base].concat());
        let [now, before] = [current, base].map(|(from, to)| served.graph(from, to, &pairs));

        let of = |change| {
            let edges = diff.edges.iter().filter(move |edge| edge.change == change);
            edges.map(|edge| edge.id.clone()).collect::<BTreeSet<_>>()
        };
        let (now_ids, before_ids) = (ids(&now), ids(&before));
        prop_assert_eq!(of(New), &now_ids - &before_ids);
        prop_assert_eq!(of(Gone), &before_ids - &now_ids);
        let both = (&now_ids & &before_ids).len() as u64;
        prop_assert_eq!(diff.counts.same + diff.counts.changed, both);
        for edge in &diff.edges {
            let of = |graph: &Graph| {
                graph.edges.iter().find(|other| other.id == edge.id).map(|other| other.traffic)
            };
            prop_assert_eq!((edge.traffic, edge.base_traffic), (of(&now), of(&before)));
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
