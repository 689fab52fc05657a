//! The agents' reports, by steps of time.

use clickhouse::Row;
use serde::Deserialize;

use crate::window::Steps;

/// Where reports are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportSource {
    /// `coverage`: each report, for 90 days unless kept otherwise.
    Reports,
    /// `coverage_1h`: of each hour, how many there were and what was dropped; kept longer.
    Hours,
}

/// One agent's reports on a step.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct AgentStepRow {
    pub(crate) agent: String,
    /// Empty from [`ReportSource::Hours`].
    pub(crate) node: String,
    /// The step's start, seconds since the epoch.
    pub(crate) at_s: u32,
    pub(crate) reported: u64,
    pub(crate) packets_dropped: u64,
    pub(crate) records_dropped: u64,
    /// Packets seen, flows evicted, records emitted; the most interfaces watched and addresses announced at
    /// once. Empty from [`ReportSource::Hours`].
    pub(crate) more: Vec<u64>,
}

/// All agents' reports on a step.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct StepRow {
    /// The step's start, seconds since the epoch.
    pub(crate) at_s: u32,
    pub(crate) reported: u64,
}

/// The time of the earliest row of `coverage`, and of `coverage_1h`; 0 without rows.
pub(crate) const EARLIEST_REPORTS: &str = "
    SELECT
        toUInt32(assumeNotNull((SELECT min(interval_start) FROM coverage))),
        toUInt32(assumeNotNull((SELECT min(start) FROM coverage_1h)))";

/// The start of the step that a time of the window is in.
pub(super) fn step_of(time: &str, Steps { from_s, step_s, .. }: Steps) -> String {
    format!("toUInt32({from_s} + intDiv(toUInt32({time}) - {from_s}, {step_s}) * {step_s})")
}

/// A condition on a time: it is in the window.
pub(super) fn within(time: &str, Steps { from_s, to_s, .. }: Steps) -> String {
    format!("{time} >= toDateTime({from_s}, 'UTC') AND {time} < toDateTime({to_s}, 'UTC')")
}

/// Reports from the future are a wrong clock's.
const NOT_AHEAD: &str = "<= now()";

/// [`AgentStepRow`]s, in order of time.
pub(crate) fn agent_steps(source: ReportSource, steps: Steps) -> String {
    match source {
        ReportSource::Reports => format!(
            "SELECT
                toString(coverage.agent) AS agent,
                toString(max(coverage.node)) AS node,
                {at} AS at_s,
                uniqExact(interval_start) AS reported,
                sum(coverage.packets_dropped) AS packets_dropped,
                sum(coverage.records_dropped) AS records_dropped,
                [sum(packets_seen), sum(flows_evicted), sum(records_emitted), toUInt64(max(interfaces)),
                 toUInt64(max(length(announced_addresses)))] AS more
            FROM coverage
            WHERE {within} AND interval_start {NOT_AHEAD}
            GROUP BY agent, at_s
            ORDER BY at_s, agent",
            at = step_of("interval_start", steps),
            within = within("interval_start", steps),
        ),
        ReportSource::Hours => format!(
            "SELECT
                agent,
                '' AS node,
                {at} AS at_s,
                sum(bitmapCardinality(of_hour)) AS reported,
                sum(packets) AS packets_dropped,
                sum(records) AS records_dropped,
                emptyArrayUInt64() AS more
            FROM ({hours})
            GROUP BY agent, at_s
            ORDER BY at_s, agent",
            at = step_of("hour", steps),
            hours = hours(
                steps,
                ", sum(coverage_1h.packets_dropped) AS packets, sum(coverage_1h.records_dropped) AS records"
            ),
        ),
    }
}

/// [`StepRow`]s.
pub(crate) fn reported_steps(source: ReportSource, steps: Steps) -> String {
    match source {
        ReportSource::Reports => format!(
            "SELECT {at} AS at_s, uniqExact(agent, interval_start) AS reported
            FROM coverage WHERE {within} AND interval_start {NOT_AHEAD} GROUP BY at_s",
            at = step_of("interval_start", steps),
            within = within("interval_start", steps),
        ),
        ReportSource::Hours => format!(
            "SELECT {at} AS at_s, sum(bitmapCardinality(of_hour)) AS reported
            FROM ({hours}) GROUP BY at_s",
            at = step_of("hour", steps),
            hours = hours(steps, ""),
        ),
    }
}

/// Each agent's intervals of each hour.
fn hours(steps: Steps, more: &str) -> String {
    format!(
        "SELECT toString(coverage_1h.agent) AS agent, start AS hour,
            groupBitmapMergeState(coverage_1h.intervals) AS of_hour{more}
        FROM coverage_1h WHERE {within} AND start {NOT_AHEAD} GROUP BY agent, hour",
        within = within("start", steps),
    )
}
