//! What each agent saw, in steps of time: `/api/v1/coverage`.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::answer::{Coverage, Window};
use crate::params::CoverageRequest;
use crate::reports::{Reports, share};
use crate::sql::{AgentStepRow, ReportSource};
use crate::store::{Store, StoreError};
use crate::window::{Steps, ms};

/// Agents times steps of an answer, at most: some 10 MB. The steps are made longer for more agents.
const MAX_CELLS: u32 = 40_000;

/// The agents' reports on a window, in steps.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct CoverageSteps {
    /// The window, widened to whole steps.
    pub window: Window,
    /// All of it.
    pub coverage: Coverage,
    /// Seconds of a step.
    pub step_s: u32,
    /// Each agent that reported in the window, in each step, also where it did not report; in order of time
    /// and agent. Steps without any report that is due are left out.
    pub points: Vec<AgentCoverage>,
}

/// One agent's reports on a step. What was not reported on, or is past the reports' own retention, is null.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct AgentCoverage {
    /// Start of the step, milliseconds since the epoch.
    pub time: i64,
    /// The agent's node.
    pub node: String,
    /// The agent.
    pub agent: String,
    /// Reports due.
    pub intervals_expected: u64,
    /// Reports that there are.
    pub intervals_reported: u64,
    /// Of those due, 0 to 1.
    pub share: f64,
    /// Packets that the kernel dropped.
    pub packets_dropped: Option<u64>,
    /// Records given up because every queue was full.
    pub records_dropped: Option<u64>,
    /// Packets that the kernel delivered.
    pub packets_seen: Option<u64>,
    /// Flows evicted because the table was full.
    pub flows_evicted: Option<u64>,
    /// Records that left the agent.
    pub records_emitted: Option<u64>,
    /// Interfaces watched, at most.
    pub interfaces: Option<u64>,
    /// Addresses whose client side it announced, at most.
    pub announced_addresses: Option<u64>,
}

/// Computes what a request asks for.
///
/// # Errors
/// If the store is away, too slow, or finds the question too large.
pub(crate) async fn steps(
    store: &Store,
    request: &CoverageRequest,
) -> Result<CoverageSteps, StoreError> {
    let CoverageRequest { scope, window: requested, points } = request;
    let (requested, points) = (*requested, *points);
    let ((interval_s, _), (earliest_s, earliest_hour_s)) =
        tokio::try_join!(store.grain(requested), store.earliest_reports())?;
    let since_s = single_since_s(earliest_s, earliest_hour_s);
    let single = |steps: &Steps| steps.from_s >= since_s;
    let possible = |steps: &Steps| single(steps) || steps.step_s.is_multiple_of(3_600);
    let choose = |points| Steps::choose(requested, interval_s, points, possible);
    let mut steps = choose(points);
    let mut reports = store.reports(scope, steps.bounds(interval_s)).await?;
    let most = MAX_CELLS / u32::try_from(reports.agents.len()).unwrap_or(u32::MAX).max(1);
    if steps.count() > most.max(2) {
        steps = choose(most.max(2));
        reports = store.reports(scope, steps.bounds(interval_s)).await?;
    }
    let bounds = steps.bounds(interval_s);
    let source = if single(&steps) { ReportSource::Reports } else { ReportSource::Hours };
    let (rows, blind) = tokio::try_join!(
        store.agent_steps(scope, source, steps),
        store.blind_spots(scope, bounds, &reports),
    )?;
    let window = bounds.answer(requested, reports.complete_until_s);
    let points = cells(&reports, rows, steps, interval_s);
    let coverage = reports.with_blind_spots(blind);
    Ok(CoverageSteps { window, coverage, step_s: steps.step_s, points })
}

/// Since when single reports are whole: they are kept less long than what is told by the hour.
fn single_since_s(earliest_s: u32, earliest_hour_s: u32) -> u32 {
    let hours_are_older = earliest_hour_s > 0 && earliest_hour_s < earliest_s / 3_600 * 3_600;
    match earliest_s {
        0 if earliest_hour_s > 0 => u32::MAX,
        _ if hours_are_older => earliest_s,
        _ => 0,
    }
}

/// Every agent in every step, as far as reports are due.
fn cells(
    reports: &Reports,
    rows: Vec<AgentStepRow>,
    steps: Steps,
    interval_s: u32,
) -> Vec<AgentCoverage> {
    let mut nodes: HashMap<String, String> = HashMap::new();
    let mut of: HashMap<(u32, String), AgentStepRow> = HashMap::new();
    for row in rows {
        if !row.node.is_empty() {
            nodes.insert(row.agent.clone(), row.node.clone());
        }
        of.insert((row.at_s, row.agent.clone()), row);
    }
    let due = steps.starts().take_while(|start_s| *start_s < reports.due_s);
    let places = due.flat_map(|start_s| reports.agents.iter().map(move |agent| (start_s, agent)));
    let point = |(start_s, agent): (u32, &String)| {
        let row = of.remove(&(start_s, agent.clone()));
        let end_s = start_s.saturating_add(steps.step_s).min(reports.due_s);
        let intervals_expected = u64::from((end_s - start_s) / interval_s);
        let intervals_reported = row.as_ref().map_or(0, |row| row.reported);
        let more = |at: usize| row.as_ref().and_then(|row| row.more.get(at).copied());
        AgentCoverage {
            time: ms(start_s),
            node: nodes.get(agent).unwrap_or(agent).clone(),
            agent: agent.clone(),
            intervals_expected,
            intervals_reported,
            share: share(intervals_reported, intervals_expected),
            packets_dropped: row.as_ref().map(|row| row.packets_dropped),
            records_dropped: row.as_ref().map(|row| row.records_dropped),
            packets_seen: more(0),
            flows_evicted: more(1),
            records_emitted: more(2),
            interfaces: more(3),
            announced_addresses: more(4),
        }
    };
    places.map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_reports_are_whole_unless_hours_are_older() {
        assert_eq!(single_since_s(0, 0), 0);
        assert_eq!(single_since_s(7_230, 7_200), 0);
        assert_eq!(single_since_s(7_230, 3_600), 7_230);
        assert_eq!(single_since_s(0, 3_600), u32::MAX);
    }
}
