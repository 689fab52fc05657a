//! A stat in steps of time.

use clickhouse::Row;
use serde::Deserialize;

use super::coverage_steps::{step_of, within};
use super::ends::{SIDES, Side, answered_ends, key_columns, key_names};
use super::{Detail, End, edges, table};
use crate::params::{GroupBy, SeriesRequest, Split, SplitSide, Stat};
use crate::planner::Tier;
use crate::window::Steps;

/// A step of a stat: its start (seconds since the epoch), the sum, and, of times, the number of samples,
/// the largest, buckets and the samples in each.
pub(crate) type StepSums = (u32, u64, u64, u64, Vec<u16>, Vec<u64>);

/// The rows of a pair of ends, of one end, or of all, summed by step.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct SeriesRow {
    /// Empty if what is asked for is not told by it.
    pub(crate) source: End,
    /// Empty if what is asked for is not told by it.
    pub(crate) target: End,
    /// Steps with rows, in any order.
    pub(crate) steps: Vec<StepSums>,
}

impl SeriesRequest {
    /// By what rows are folded into nodes.
    pub(crate) fn group_by(&self) -> GroupBy {
        match self.split {
            // Whatever has the fewest columns.
            Split::None | Split::Namespace => GroupBy::Namespace,
            Split::Workload => GroupBy::Workload,
            Split::Edge => self.graph.group_by,
        }
    }

    /// The ends that tell series.
    fn sides(&self) -> &'static [Side] {
        match (self.split, self.side) {
            (Split::None, _) => &[],
            (Split::Edge, _) => &SIDES,
            (Split::Namespace | Split::Workload, SplitSide::Client) => &SIDES[..1],
            (Split::Namespace | Split::Workload, SplitSide::Server) => &SIDES[1..],
        }
    }
}

/// [`SeriesRow`]s, from rows of one tier, which begin and end with the steps. Only columns that the stat
/// needs are named: most of the time that a short window takes is ClickHouse's for the statement itself.
pub(crate) fn series(request: &SeriesRequest, tier: Tier, steps: Steps) -> String {
    let (group_by, sides) = (request.group_by(), request.sides());
    let filter = &request.graph.filter;
    let (time, primary) =
        if tier == Tier::Raw { ("interval_start", "primary AND ") } else { ("start", "") };
    let step = step_of(time, steps);
    let sums = sums(request.graph.stat, tier, time, &step);
    let keys = key_names(sides, group_by);
    let grouping =
        if keys.is_empty() { String::new() } else { format!("GROUP BY {}", keys.join(", ")) };
    let listed = |columns: Vec<String>| columns.into_iter().map(|column| column + ", ");
    format!(
        "SELECT {ends}, groupArray(of_step) AS steps
        FROM (
            SELECT {columns}{step} AS at_s, (at_s, {sums}) AS of_step
            FROM {table} WHERE {primary}{within} AND {filter}
            GROUP BY {names}at_s
        )
        {grouping}",
        ends = answered_ends(sides, group_by).join(", "),
        columns = listed(key_columns(sides, group_by)).collect::<String>(),
        table = table(tier, Detail::of(group_by, filter)),
        within = within(time, steps),
        filter = filter.sql(),
        names = listed(keys).collect::<String>(),
    )
}

/// What a stat is computed from: the parts of [`StepSums`] after the first.
fn sums(stat: Stat, tier: Tier, time: &str, step: &str) -> String {
    let sum = |column: &str| format!("toUInt64(sum({column}))");
    let counted = |column: &str| {
        let total = sum(column);
        format!("{total}, toUInt64(0), toUInt64(0), emptyArrayUInt16(), emptyArrayUInt64()")
    };
    let times = |measure: &str, distribution: &str| {
        let [total, count] = ["us", "count"].map(|part| sum(&format!("{measure}_{part}")));
        format!("{total}, {count}, toUInt64(max({measure}_max_us)), {distribution}")
    };
    match stat {
        Stat::Connections => {
            counted(&format!("opened + joined + if(toUInt32({time}) = {step}, open_at_start, 0)"))
        }
        Stat::Bytes => counted("sent_bytes + received_bytes"),
        Stat::Packets => counted("sent_packets + received_packets"),
        Stat::Retransmits => counted("sent_retransmitted_packets + received_retransmitted_packets"),
        Stat::Failures => counted("closed_refused + closed_unanswered"),
        Stat::Duration => times("duration", "emptyArrayUInt16(), emptyArrayUInt64()"),
        Stat::Latency => {
            let summed = format!("sumMap({})", edges::buckets(tier, "syn_to_synack"));
            times("syn_to_synack", &format!("mapKeys({summed}), mapValues({summed})"))
        }
    }
}
