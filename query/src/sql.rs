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
mod listed;
mod open;
mod pairs;
mod series;

pub(crate) use binary::{Malformed, parse_rows};
pub(crate) use blind_spots::{BLIND_SPOTS, BlindRow};
pub(crate) use coverage::{COVERAGE, CoverageRow, EARLIEST, INTERVAL_LENGTHS};
pub(crate) use coverage_steps::{
    AgentStepRow, EARLIEST_REPORTS, ReportSource, StepRow, agent_steps, reported_steps,
};
#[cfg(test)]
pub(crate) use edges::SUMMED;
pub(crate) use edges::{EdgeRow, edges};
pub(crate) use ends::{End, MAX_LISTED, borrowed};
pub(crate) use first_seen::{FirstSeenRow, first_seen};
pub(crate) use kept::{Kept, RankedRow, ranked};
pub(crate) use listed::Listed;
use open::open_connections;
pub(crate) use open::{OpenRow, open_at, open_at_boundary};
pub(crate) use pairs::{EncodedEnd, Labels, Pair};
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

#[cfg(test)]
mod tests {
    use super::binary::ReadRow;
    use super::*;
    use crate::planner::{Held, plan};
    use crate::window::Requested;

    /// What a statement answers: the last name of each part between the commas of its own SELECT.
    fn answered(statement: &str) -> Vec<&str> {
        let (mut depth, mut names, mut part) = (0, Vec::new(), 0);
        for (at, letter) in statement.char_indices() {
            match letter {
                '(' | '[' => depth += 1,
                ')' | ']' => depth -= 1,
                _ => {}
            }
            let ends = depth == 0 && (letter == ',' || statement[at..].starts_with("FROM"));
            if ends {
                names.extend(statement[part..at].split_whitespace().last());
                part = at + 1;
            }
            if ends && letter != ',' {
                break;
            }
        }
        names
    }

    #[test]
    fn long_answers_have_the_columns_of_their_rows_in_order() {
        let requested = Requested { from_ms: 1_700_000_000_000, to_ms: 1_700_100_000_000 };
        let plan = plan(requested, 10, &Held::default());
        let kept = Kept::of(&[RankedRow { edge: 1, source_number: 2, target_number: 3 }; 2], 1);
        let names = |columns: &[(&'static str, _)]| -> Vec<_> {
            columns.iter().map(|(name, _)| *name).collect()
        };
        let columns = names(EdgeRow::COLUMNS);
        let open_columns = names(OpenRow::COLUMNS);
        for group_by in GroupBy::WORDS.iter().map(|word| word.parse().unwrap()) {
            for kept in [None, kept.as_ref()] {
                let edges = edges(group_by, Detail::Pods, "true", &plan, kept);
                assert_eq!(answered(&edges), columns, "{edges}");
                let open = open_at(group_by, "true", &[1_700_000_000], kept);
                assert_eq!(answered(&open), open_columns, "{open}");
                let boundary = open_at_boundary(
                    group_by,
                    Detail::Pods,
                    "true",
                    Tier::Day,
                    1_700_000_000,
                    kept,
                );
                assert_eq!(answered(&boundary), open_columns, "{boundary}");
            }
        }
    }
}
