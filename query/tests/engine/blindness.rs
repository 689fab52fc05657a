//! "No traffic" is told from "we were blind": in every graph, and by agent and step.

use std::cell::Cell;

use flowtrail_query::{BlindReason, Coverage, CoverageSteps};
use flowtrail_schema::row::CoverageRow;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::common::{Served, T0, report, runtime, served};

/// An hour's start after [`T0`].
const HOUR: u32 = T0.next_multiple_of(3_600);

fn clean(agent: &str, start: u32) -> CoverageRow {
    CoverageRow { packets_dropped: 0, records_dropped: 0, ..report(agent, start) }
}

fn steps(served: &Served, from: u32, to: u32, points: &str) -> CoverageSteps {
    let (from, to) = (format!("{from}000"), format!("{to}000"));
    let pairs = [("from", from.as_str()), ("to", to.as_str()), ("points", points)];
    let answer = served.get("/api/v1/coverage", &pairs);
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// Blind spots as agent, seconds after [`HOUR`], and reason.
fn spots(coverage: &Coverage) -> Vec<(&str, i64, i64, BlindReason)> {
    let at = |ms: i64| ms / 1_000 - i64::from(HOUR);
    let spots = coverage.blind_spots.iter();
    spots.map(|spot| (spot.agent.as_str(), at(spot.from), at(spot.to), spot.reason)).collect()
}

#[test]
fn every_graph_says_where_agents_were_blind() {
    let served = served("blind_spots");
    let starts = |from: u32, to: u32| (from..to).step_by(10).map(|second| HOUR + second);
    let mut reports: Vec<_> = starts(0, 4 * 3_600).map(|start| clean("n1", start)).collect();
    // A restart in a whole hour, an hour and a half away, and two intervals with drops.
    let there = starts(0, 600).chain(starts(640, 3_600)).chain(starts(9_000, 4 * 3_600));
    reports.extend(there.map(|start| match start - HOUR {
        9_060 | 9_070 => CoverageRow { packets_dropped: 3, ..clean("n2", start) },
        _ => clean("n2", start),
    }));
    served.insert("coverage", &reports);

    use BlindReason::{Dropped, NotReported};
    let graph = served.graph(HOUR, HOUR + 4 * 3_600, &[]);
    let restart = ("n2", 600, 640, NotReported);
    let away = ("n2", 3_600, 9_000, NotReported);
    assert_eq!(spots(&graph.coverage), [restart, away, ("n2", 7_200, 10_800, Dropped)]);
    assert_eq!(graph.coverage.blind_spots[2].packets_dropped, 6);
    let expected = 2 * 1_440 - 4 - 540;
    assert_eq!(graph.coverage.share, f64::from(expected) / 2_880.0);

    // At the fringes it is known to the interval.
    let graph = served.graph(HOUR + 8_900, HOUR + 9_100, &[]);
    let dropped = ("n2", 9_060, 9_080, Dropped);
    assert_eq!(spots(&graph.coverage), [("n2", 8_900, 9_000, NotReported), dropped]);
    let graph = served.graph(HOUR + 9_080, HOUR + 10_000, &[]);
    assert_eq!((spots(&graph.coverage), graph.coverage.share), (vec![], 1.0));
}

#[test]
fn an_agent_that_was_there_before_and_is_silent_is_a_blind_spot() {
    let served = served("silent_agents");
    let starts = |from: u32, to: u32| (from..to).step_by(10).map(|second| HOUR + second);
    let mut reports: Vec<_> = starts(0, 6 * 3_600).map(|start| clean("n1", start)).collect();
    // Gone at one o'clock; come at four.
    reports.extend(starts(0, 3_600).map(|start| clean("gone", start)));
    reports.extend(starts(4 * 3_600, 6 * 3_600).map(|start| clean("come", start)));
    served.insert("coverage", &reports);
    let told = |from: u32, to: u32| {
        let graph = served.graph(HOUR + from, HOUR + to, &[]);
        assert_eq!(graph.coverage.agents, if to > 4 * 3_600 { 2 } else { 1 });
        let spots = spots(&graph.coverage).into_iter();
        spots.map(|(agent, from, to, _)| (agent.to_owned(), from, to)).collect::<Vec<_>>()
    };
    let gone = |from, to| vec![("gone".to_owned(), from, to)];
    assert_eq!(told(3_700, 3_800), gone(3_700, 3_800));
    assert_eq!(told(3_600, 10_800), gone(3_600, 10_800));
    // Three hours later it is not missed any more, and who comes was not away.
    assert_eq!(told(3 * 3_600 + 1_800, 3 * 3_600 + 2_000), gone(12_600, 12_800));
    assert_eq!(told(4 * 3_600 + 10, 5 * 3_600), []);
}

#[test]
fn coverage_tells_each_agent_in_each_step() {
    let served = served("coverage_steps");
    let reports = [0, 10, 20, 70].map(|second| report("n1", HOUR + second));
    served.insert("coverage", &reports);
    served.insert("coverage", &[0, 60].map(|second| report("n2", HOUR + second)));
    let answer = steps(&served, HOUR, HOUR + 120, "2");
    assert_eq!((answer.step_s, answer.coverage.agents), (60, 2));
    let told: Vec<_> = answer
        .points
        .iter()
        .map(|point| {
            let at = point.time / 1_000 - i64::from(HOUR);
            let counts = (point.intervals_reported, point.intervals_expected);
            (at, point.agent.as_str(), counts, point.packets_seen)
        })
        .collect();
    let expected = [
        (0, "n1", (3, 6), Some(300)),
        (0, "n2", (1, 6), Some(100)),
        (60, "n1", (1, 2), Some(100)),
        (60, "n2", (1, 2), Some(100)),
    ];
    assert_eq!(told, expected);

    // Reports are gone, hours are not.
    let drop = "ALTER TABLE coverage DELETE WHERE true SETTINGS mutations_sync = 1";
    runtime().block_on(served.store.client().query_raw(drop).execute()).unwrap();
    let answer = steps(&served, HOUR, HOUR + 120, "2");
    assert_eq!((answer.step_s, answer.points.len()), (3_600, 2));
    assert_eq!((answer.points[0].intervals_reported, answer.points[0].packets_seen), (4, None));
    assert_eq!(answer.points[0].packets_dropped, Some(4));

    let problem = served.problem("/api/v1/coverage", &[("points", "1")]);
    assert_eq!(problem.parameter.as_deref(), Some("points"));
    let nothing = steps(&served, T0, T0 + 60, "10");
    assert!(nothing.points.is_empty() && nothing.coverage.blind_spots.is_empty());
}

/// Intervals of a case: three hours and a bit.
const INTERVALS: u32 = 1_100;

fn check(served: &Served, start: u32, runs: &[(u32, u32)], (from, length): (u32, u32)) {
    let mut there = vec![false; INTERVALS as usize];
    for (first, count) in runs {
        (*first..(first + count).min(INTERVALS)).for_each(|at| there[at as usize] = true);
    }
    let reports = (0..INTERVALS).filter(|at| there[*at as usize]);
    let reports: Vec<_> = reports.map(|at| clean("n1", start + 10 * at)).collect();
    // Another agent sees all, so that reports are due until the end.
    let all: Vec<_> = (0..INTERVALS + 60).map(|at| clean("n2", start + 10 * at)).collect();
    served.insert("coverage", &[reports, all].concat());

    let to = (from + length).min(INTERVALS);
    let graph = served.graph(start + 10 * from, start + 10 * to, &[]);
    let mut blind = vec![false; INTERVALS as usize];
    for spot in &graph.coverage.blind_spots {
        assert_eq!((spot.agent.as_str(), spot.reason), ("n1", BlindReason::NotReported));
        let at = |ms: i64| (ms / 1_000 - i64::from(start)) as usize / 10;
        blind[at(spot.from)..at(spot.to)].iter_mut().for_each(|blind| *blind = true);
    }
    let until = ((graph.window.complete_until / 1_000) as u32 - start) / 10;
    let window = from as usize..until as usize;
    // An agent is known that reported in the window, or by the hour in the three hours before.
    let known_since = (start + 10 * from).saturating_sub(3 * 3_600) / 3_600 * 3_600;
    let first_known = known_since.saturating_sub(start) / 10;
    let known = there[first_known as usize..to as usize].contains(&true);
    let expected: Vec<_> = there[window.clone()].iter().map(|there| known && !there).collect();
    assert_eq!(blind[window.clone()], expected, "{window:?}");
    assert!(!blind[until as usize..].contains(&true));
}

#[test]
fn blind_spots_are_what_was_not_reported() {
    let served = served("blind_laws");
    let runs = prop::collection::vec((0..INTERVALS, 1..400_u32), 1..6);
    let window = (0..INTERVALS, 1..INTERVALS);
    let case = Cell::new(0);
    let config = Config { failure_persistence: None, ..Config::with_cases(6) };
    let result = TestRunner::new(config).run(&(runs, window), |(runs, window)| {
        // A day of its own, so that all cases share the tables.
        case.set(case.get() + 86_400);
        check(&served, HOUR + case.get(), &runs, window);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
