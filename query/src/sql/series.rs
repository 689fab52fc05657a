//! A stat in steps of time.

use clickhouse::Row;
use serde::Deserialize;

use super::coverage_steps::{step_of, within};
use super::ends::{SIDES, Side, answered_ends, key_columns, key_expressions, key_names};
use super::{Detail, End, counted, counted_within, edges, table};
use crate::histogram::Histogram;
use crate::params::{GroupBy, SeriesRequest, Split, SplitSide, Stat};
use crate::planner::{Plan, Segment, Tier};
use crate::window::Steps;

/// A stat: the sum, and, of times, the number of samples, the largest, and the samples in each bucket.
pub(crate) type StatSums = (u64, u64, u64, Histogram<'static>);

/// A pair of ends, or one end, in the whole window.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct TotalRow {
    /// Empty if what is asked for is not told by it.
    pub(crate) source: End,
    /// Empty if what is asked for is not told by it.
    pub(crate) target: End,
    /// Tells it from all others in this grouping, in whatever tier: hexadecimal digits. A hash of 128 bits, as names
    /// are the users' and must not be made to meet.
    pub(crate) key: String,
    pub(crate) sums: StatSums,
}

/// A series in the steps in which it has rows, in any order.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct SeriesRow {
    /// Its place among the series.
    pub(crate) place: u32,
    /// The steps' starts, seconds since the epoch, and their sums.
    pub(crate) steps: Vec<(u32, StatSums)>,
}

/// The keys of rows ([`TotalRow::key`]) with the places of their series, and the place of all other rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    pub(crate) keys: Vec<(String, u32)>,
    pub(crate) others: u32,
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

/// [`TotalRow`]s, each of a whole window: its connections are those open at the start, or opened or joined since.
pub(crate) fn totals(request: &SeriesRequest, plan: &Plan) -> String {
    let (group_by, sides) = (request.group_by(), request.sides());
    let detail = Detail::of(group_by, &request.graph.filter);
    let rows = |(tier, segments): (Tier, Vec<Segment>)| {
        let (time, counted) = counted_within(tier, &segments);
        let opening = format!("{time} = toDateTime({}, 'UTC')", plan.bounds.from_s);
        let measured = Measured::of(request.graph.stat, tier, &opening).columns();
        let columns = [key_columns(sides, group_by), measured].concat().join(", ");
        let (table, filter) = (table(tier, detail), request.graph.filter.sql());
        format!("SELECT {columns} FROM {table} WHERE {counted} AND {filter}")
    };
    let parts: Vec<_> = plan.by_tier().into_iter().map(rows).collect();
    let names = key_names(sides, group_by);
    format!(
        "SELECT {ends}, {key} AS key, sums
        FROM (
            SELECT {names}, ({sums}) AS sums FROM ({parts}) GROUP BY {names}
        )",
        ends = answered_ends(sides, group_by).join(", "),
        key = key(&names),
        sums = Measured::summed(request.graph.stat),
        parts = parts.join(" UNION ALL "),
        names = names.join(", "),
    )
}

/// [`SeriesRow`]s, from rows of one tier, which begin and end with the steps. Only columns that the stat
/// needs are named: most of the time that a short window takes is ClickHouse's for the statement itself.
pub(crate) fn series(
    request: &SeriesRequest,
    tier: Tier,
    steps: Steps,
    Places { keys, others }: &Places,
) -> String {
    let Source { time, step, rows } = source(request, tier, steps);
    let place = if keys.is_empty() {
        format!("toUInt32({others})")
    } else {
        // Hexadecimal digits of ClickHouse's, and numbers of ours.
        let of: Vec<_> = keys.iter().map(|(key, _)| format!("'{key}'")).collect();
        let places: Vec<_> = keys.iter().map(|(_, place)| place.to_string()).collect();
        let key = key(&key_expressions(request.sides(), request.group_by()));
        let (of, places) = (of.join(","), places.join(","));
        format!("toUInt32(transform({key}, [{of}], [{places}], {others}))")
    };
    let opening = format!("toUInt32({time}) = {step}");
    format!(
        "SELECT of_place AS place, groupArray((at_s, sums)) AS steps
        FROM (
            SELECT {place} AS of_place, {step} AS at_s, ({sums}) AS sums
            FROM {rows} GROUP BY of_place, at_s
        )
        GROUP BY of_place",
        sums = Measured::of(request.graph.stat, tier, &opening).sums(),
    )
}

/// Where rows come from.
struct Source {
    /// The column of their time.
    time: &'static str,
    /// The start of their step.
    step: String,
    /// The table and the condition.
    rows: String,
}

fn source(request: &SeriesRequest, tier: Tier, steps: Steps) -> Source {
    let filter = &request.graph.filter;
    let (time, primary) = counted(tier);
    let table = table(tier, Detail::of(request.group_by(), filter));
    let (within, filter) = (within(time, steps), filter.sql());
    let rows = format!("{table} WHERE {primary}{within} AND {filter}");
    Source { time, step: step_of(time, steps), rows }
}

fn key(columns: &[String]) -> String {
    format!("hex(sipHash128({}))", columns.join(", "))
}

/// What a stat is computed from, of a row: its sum, and of times the samples, the largest, and buckets if quantiles
/// are told.
struct Measured {
    total: String,
    times: Option<(String, String)>,
    buckets: Option<String>,
}

impl Measured {
    /// In the columns of a tier; those open when a row begins count where `opening`, a condition, says so.
    fn of(stat: Stat, tier: Tier, opening: &str) -> Self {
        let counted =
            |columns: &str| Self { total: columns.to_owned(), times: None, buckets: None };
        let times = |measure: &str, buckets| Self {
            total: format!("{measure}_us"),
            times: Some((format!("{measure}_count"), format!("{measure}_max_us"))),
            buckets,
        };
        match stat {
            Stat::Connections => {
                counted(&format!("opened + joined + if({opening}, open_at_start, 0)"))
            }
            Stat::Bytes => counted("sent_bytes + received_bytes"),
            Stat::Packets => counted("sent_packets + received_packets"),
            Stat::Retransmits => {
                counted("sent_retransmitted_packets + received_retransmitted_packets")
            }
            Stat::Failures => counted("closed_refused + closed_unanswered"),
            Stat::Duration => times("duration", None),
            Stat::Latency => times("syn_to_synack", Some(edges::buckets(tier, "syn_to_synack"))),
        }
    }

    /// The same of rows that have [`Self::columns`].
    fn summed(stat: Stat) -> String {
        let Self { times, buckets, .. } = Self::of(stat, Tier::Raw, "false");
        let named = |name: &str| name.to_owned();
        Self {
            total: named("total"),
            times: times.map(|_| (named("samples"), named("largest"))),
            buckets: buckets.map(|_| named("buckets")),
        }
        .sums()
    }

    /// As columns that all tiers have alike.
    fn columns(&self) -> Vec<String> {
        let mut columns = vec![format!("toUInt64({}) AS total", self.total)];
        if let Some((samples, largest)) = &self.times {
            columns.push(format!("{samples} AS samples, {largest} AS largest"));
        }
        columns.extend(self.buckets.iter().map(|buckets| format!("{buckets} AS buckets")));
        columns
    }

    /// Summed: [`StatSums`].
    fn sums(&self) -> String {
        let sum = |column: &str| format!("toUInt64(sum({column}))");
        let (samples, largest) = match &self.times {
            Some((samples, largest)) => (sum(samples), format!("toUInt64(max({largest}))")),
            None => ("toUInt64(0)".to_owned(), "toUInt64(0)".to_owned()),
        };
        let buckets = match &self.buckets {
            Some(buckets) => format!("sumMap({buckets})"),
            None => "CAST(map(), 'Map(UInt16, UInt64)')".to_owned(),
        };
        format!("{}, {samples}, {largest}, {buckets}", sum(&self.total))
    }
}
