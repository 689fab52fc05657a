//! The agents' reports on a window → coverage: who looked, until when, and where nobody did. Pure.

use crate::answer::{BlindReason, BlindSpot, Coverage};
use crate::sql::{BlindRow, CoverageRow};
use crate::window::{Bounds, ms};

/// An agent whose last report is this much older than the newest of all is gone, and not late:
/// longer than a rolling update of ingest takes. Seconds.
pub(crate) const GONE_AFTER_S: u32 = 300;
/// An agent that has last reported so long before a window, or more, is not missed in it: its node has gone, most
/// likely. Seconds; whole hours are looked at.
pub(crate) const KNOWN_FOR_S: u32 = 3 * 3_600;
/// Blind spots listed in an answer, the longest: what a person reads.
pub(crate) const MAX_BLIND_SPOTS: usize = 100;

/// What the agents reported on a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reports {
    /// Without the blind spots.
    pub(crate) coverage: Coverage,
    /// Until when all live agents have reported, seconds since the epoch; the window's start without agents.
    pub(crate) complete_until_s: u32,
    /// Until when some agent has reported, within the window: later no report is due.
    pub(crate) due_s: u32,
    /// Every agent that reported saw all there was until then.
    pub(crate) is_whole: bool,
    /// Agents that reported on the window, by name.
    pub(crate) agents: Vec<String>,
    /// Agents that reported before the window ([`KNOWN_FOR_S`]) and not in it, by name.
    pub(crate) silent: Vec<String>,
    /// The window's start, seconds since the epoch.
    from_s: u32,
}

impl Reports {
    /// Sums the agents' reports. Those that are gone hold nothing back: see [`GONE_AFTER_S`].
    pub(crate) fn of(rows: Vec<CoverageRow>, bounds: Bounds) -> Self {
        let reported_until =
            |agent: &CoverageRow| u32::try_from(agent.reported_until_s).unwrap_or(u32::MAX);
        let newest_s = rows.iter().map(reported_until).max().unwrap_or(0);
        let alive =
            rows.iter().map(reported_until).filter(|until| newest_s - until <= GONE_AFTER_S);
        let complete_until_s = alive.min().unwrap_or(0).clamp(bounds.from_s, bounds.to_s);
        let due_s = newest_s.clamp(bounds.from_s, bounds.to_s);

        let mut is_whole = true;
        let mut coverage = Coverage::default();
        let (mut agents, mut silent) = (Vec::new(), Vec::new());
        for row in rows {
            if row.intervals == 0 {
                silent.extend(row.before.then_some(row.agent));
                continue;
            }
            let until_s = reported_until(&row).clamp(bounds.from_s, bounds.to_s);
            is_whole &= until_s >= complete_until_s
                && row.intervals >= u64::from((until_s - bounds.from_s) / bounds.interval_s)
                && row.packets_dropped + row.records_dropped == 0;
            coverage.agents += 1;
            coverage.intervals_expected += u64::from((due_s - bounds.from_s) / bounds.interval_s);
            coverage.intervals_reported += row.intervals;
            coverage.packets_dropped += row.packets_dropped;
            coverage.records_dropped += row.records_dropped;
            agents.push(row.agent);
        }
        coverage.share = share(coverage.intervals_reported, coverage.intervals_expected);
        agents.sort_unstable();
        silent.sort_unstable();
        let from_s = bounds.from_s;
        Self { coverage, complete_until_s, due_s, is_whole, agents, silent, from_s }
    }

    /// The coverage with its blind spots: the longest of them, in order of time. `None` is too many to tell.
    pub(crate) fn with_blind_spots(self, rows: Option<Vec<BlindRow>>) -> Coverage {
        let Some(mut rows) = rows else {
            return Coverage { more_blind_spots: true, ..self.coverage };
        };
        let cut = |row: &BlindRow| row.holes.len().max(row.drops.len()) > MAX_BLIND_SPOTS;
        let more = rows.iter().any(cut);
        let known = |agent: &str| self.agents.iter().any(|known| known == agent);
        rows.retain(|row| known(&row.agent));
        // What is not complete yet may still be told of.
        let hole = (self.from_s, self.complete_until_s);
        let silent = self.silent.iter().filter(|_| hole.0 < hole.1);
        rows.extend(silent.map(|agent| BlindRow {
            agent: agent.clone(),
            node: String::new(),
            holes: vec![hole],
            drops: Vec::new(),
        }));
        let mut blind_spots: Vec<_> = rows.into_iter().flat_map(spots).collect();
        // Stable, so that equals stay in order of time.
        blind_spots.sort_by_key(|spot| (spot.from, spot.agent.clone()));
        blind_spots.sort_by_key(|spot| std::cmp::Reverse(spot.to - spot.from));
        let more_blind_spots = more || blind_spots.len() > MAX_BLIND_SPOTS;
        blind_spots.truncate(MAX_BLIND_SPOTS);
        blind_spots.sort_by_key(|spot| (spot.from, spot.agent.clone()));
        Coverage { blind_spots, more_blind_spots, ..self.coverage }
    }
}

fn spots(row: BlindRow) -> Vec<BlindSpot> {
    let BlindRow { agent, node, holes, drops } = row;
    // An agent is called as its node is, unless it was told otherwise.
    let node = if node.is_empty() { agent.clone() } else { node };
    let spot = |from_s: u32, to_s: u32, reason| BlindSpot {
        node: node.clone(),
        agent: agent.clone(),
        from: ms(from_s),
        to: ms(to_s),
        reason,
        packets_dropped: 0,
        records_dropped: 0,
    };
    let holes = holes.iter().map(|(from_s, to_s)| spot(*from_s, *to_s, BlindReason::NotReported));
    let drops = drops.iter().map(|(from_s, to_s, packets_dropped, records_dropped)| BlindSpot {
        packets_dropped: *packets_dropped,
        records_dropped: *records_dropped,
        ..spot(*from_s, *to_s, BlindReason::Dropped)
    });
    holes.chain(drops).collect()
}

/// Share of the reports due that are there, 0 to 1; 0 when none is due: nobody looked.
pub(crate) fn share(reported: u64, expected: u64) -> f64 {
    if expected == 0 { 0.0 } else { (reported as f64 / expected as f64).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { from_s: 6_000, to_s: 6_060, resolution_s: 10, interval_s: 10 };

    fn agent_of(reported_until_s: u64, intervals: u64) -> CoverageRow {
        let agent = format!("a{reported_until_s}");
        CoverageRow {
            agent,
            reported_until_s,
            intervals,
            packets_dropped: 1,
            records_dropped: 2,
            before: reported_until_s <= 6_000,
        }
    }

    #[test]
    fn the_slowest_live_agent_says_until_when_the_data_is_complete() {
        let reports = Reports::of(vec![agent_of(6_050, 5), agent_of(6_040, 4)], BOUNDS);
        assert_eq!((reports.complete_until_s, reports.is_whole), (6_040, false));
        let coverage = &reports.coverage;
        let counted = (coverage.agents, coverage.intervals_expected, coverage.intervals_reported);
        assert_eq!((counted, coverage.share), ((2, 10, 9), 0.9));
        assert_eq!((coverage.packets_dropped, coverage.records_dropped), (2, 4));
        assert_eq!(reports.agents, ["a6040", "a6050"]);
    }

    #[test]
    fn an_agent_that_is_gone_holds_nothing_back() {
        let reports = Reports::of(vec![agent_of(6_350, 6), agent_of(6_030, 3)], BOUNDS);
        assert_eq!(reports.complete_until_s, 6_060);
        let coverage = reports.coverage;
        assert_eq!((coverage.intervals_expected, coverage.intervals_reported), (12, 9));
    }

    #[test]
    fn an_agent_that_is_late_was_not_blind() {
        let clean = |reported_until_s: u64, intervals| CoverageRow {
            packets_dropped: 0,
            records_dropped: 0,
            ..agent_of(reported_until_s, intervals)
        };
        let is_whole = |rows| Reports::of(rows, BOUNDS).is_whole;
        assert!(is_whole(vec![clean(6_050, 5), clean(6_040, 4)]));
        assert!(!is_whole(vec![clean(6_050, 4), clean(6_040, 4)]));
        assert!(!is_whole(vec![clean(6_360, 6), clean(6_040, 4)]), "it is gone");
        assert!(!is_whole(vec![agent_of(6_060, 6)]), "it dropped packets");
    }

    #[test]
    fn without_reports_nothing_is_complete() {
        let reports = Reports::of(Vec::new(), BOUNDS);
        let start_s = BOUNDS.from_s;
        let none = Reports {
            complete_until_s: start_s,
            due_s: start_s,
            is_whole: true,
            from_s: start_s,
            ..Reports::default()
        };
        assert_eq!(reports, none);
    }

    #[test]
    fn who_is_silent_all_the_window_was_blind_as_far_as_it_is_complete() {
        let spots = |rows| {
            let coverage = Reports::of(rows, BOUNDS).with_blind_spots(Some(Vec::new()));
            let told = |spot: &BlindSpot| (spot.agent.clone(), spot.from, spot.to);
            coverage.blind_spots.iter().map(told).collect::<Vec<_>>()
        };
        let before =
            |agent: &str| CoverageRow { agent: agent.to_owned(), before: true, ..agent_of(0, 0) };
        let there = || agent_of(6_040, 4);
        assert_eq!(
            spots(vec![before("lost"), there()]),
            [("lost".to_owned(), ms(6_000), ms(6_040))]
        );
        // It may just be late: then nothing is complete.
        assert_eq!(spots(vec![agent_of(5_990, 0), there()]), []);
        // One that came later was not there, and nobody is told apart where nobody reported.
        assert_eq!(spots(vec![agent_of(6_090, 0), there()]), []);
        assert_eq!(spots(vec![before("lost")]), []);
    }

    #[test]
    fn the_longest_blind_spots_are_listed_in_order_of_time() {
        let long = MAX_BLIND_SPOTS as u32 + 20;
        let hole = |at: u32| (100 * at, 100 * at + at);
        let row = |agent: &str, holes| BlindRow {
            agent: agent.to_owned(),
            node: "n1".to_owned(),
            holes,
            drops: Vec::new(),
        };
        let reports = || Reports { agents: vec!["a".to_owned()], ..Reports::default() };
        let rows =
            vec![row("a", (1..=long).map(hole).collect()), row("not here", vec![(1, 9_000)])];
        let coverage = reports().with_blind_spots(Some(rows));
        assert!(coverage.more_blind_spots);
        let from: Vec<_> = coverage.blind_spots.iter().map(|spot| spot.from).collect();
        let longest: Vec<_> = (21..=long).map(|at| ms(100 * at)).collect();
        assert_eq!(from, longest);
        let one = Some(vec![row("a", vec![hole(3)])]);
        assert!(!reports().with_blind_spots(one).more_blind_spots);
        assert!(reports().with_blind_spots(None).more_blind_spots);
    }
}
