//! The questions to ClickHouse: fixed text and the rows they answer with. What a caller says in words is
//! bound as parameters (`{name:Type}`); planned times are numbers of ours.
//!
//! Edge counters come from primary rows only, which is all that rollups are of. Rows are grouped by what
//! the request's `group_by` needs of each end, perhaps more finely than by node: [`crate::graph`] decides
//! what a node is.

mod binary;
mod blind_spots;
mod coverage;
mod coverage_steps;
mod edges;
mod ends;
mod first_seen;
mod kept;
mod open;
mod series;

pub(crate) use binary::{Answer, Malformed, ReadRow, Rows, rows};
pub(crate) use blind_spots::{BLIND_SPOTS, BlindRow};
pub(crate) use coverage::{COVERAGE, CoverageRow, EARLIEST, INTERVAL_LENGTHS};
pub(crate) use coverage_steps::{
    AgentStepRow, EARLIEST_REPORTS, ReportSource, StepRow, agent_steps, reported_steps,
};
#[cfg(test)]
pub(crate) use edges::SUMMED;
pub(crate) use edges::{EdgeRow, edges};
pub(crate) use ends::{EncodedEnd, End, Labels, MAX_LISTED, borrowed};
pub(crate) use first_seen::{FirstSeenRow, first_seen};
pub(crate) use kept::{Kept, RankedRow, ranked};
use open::open_connections;
pub(crate) use open::{OpenRow, open_at, open_at_boundary};
pub(crate) use series::{Places, SeriesRow, StatSums, TotalRow, series, totals};

use crate::filter::Filter;
use crate::params::GroupBy;
use crate::planner::{Segment, Tier};

/// What a question reads of each pair of ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Workloads, and whatever has none: pods are folded already where that is done in the tables.
    Workloads,
    /// Pods, nodes and addresses.
    Pods,
}

impl Detail {
    /// The least that is enough for a question.
    pub(crate) fn of(group_by: GroupBy, filter: &Filter) -> Self {
        let folded = matches!(group_by, GroupBy::Namespace | GroupBy::Workload | GroupBy::Service);
        if folded && !filter.reads_pods() { Self::Workloads } else { Self::Pods }
    }
}

/// The table of a tier.
pub(crate) fn table(tier: Tier, detail: Detail) -> &'static str {
    match (tier, detail) {
        (Tier::Raw, _) => "flows",
        (Tier::Minute, _) => "edges_1m",
        (Tier::Hour, Detail::Pods) => "edges_1h",
        (Tier::Hour, Detail::Workloads) => "workload_edges_1h",
        (Tier::Day, Detail::Pods) => "edges_1d",
        (Tier::Day, Detail::Workloads) => "workload_edges_1d",
        (Tier::Week, Detail::Pods) => "edges_1w",
        (Tier::Week, Detail::Workloads) => "workload_edges_1w",
    }
}

/// The column of a row's time, and what keeps the rows that count.
fn counted(tier: Tier) -> (&'static str, &'static str) {
    if tier == Tier::Raw { ("interval_start", "primary AND ") } else { ("start", "") }
}

/// The column of a row's time, and the condition of the rows that some parts of a plan count: all are of one tier.
pub(crate) fn counted_within(tier: Tier, segments: &[Segment]) -> (&'static str, String) {
    let (time, primary) = counted(tier);
    let within = segments.iter().map(|Segment { from_s, to_s, .. }| {
        format!("{time} >= toDateTime({from_s}, 'UTC') AND {time} < toDateTime({to_s}, 'UTC')")
    });
    (time, format!("{primary}({})", within.collect::<Vec<_>>().join(" OR ")))
}
