//! The edges of a window, summed.

use super::binary::{Malformed, ReadRow, Values};
use super::kept::{self, telling};
use super::pairs::{Pair, pair_columns};
use super::{Detail, Kept, counted_within, ends, table};
use crate::histogram::{Buckets, bucket_sql};
use crate::params::GroupBy;
use crate::planner::{Plan, Segment, Tier};
use crate::window::starts_minute;

/// What is summed of each row, in this order, with the two counts of connections that rows do not have as
/// columns: [`OPENING`] and [`INFERRED`].
pub(crate) const SUMMED: [&str; 28] = [
    OPENING,
    "opened",
    "joined",
    INFERRED,
    "closed_fin",
    "closed_reset_by_client",
    "closed_reset_by_server",
    "closed_refused",
    "closed_unanswered",
    "closed_idle",
    "closed_superseded",
    "closed_evicted",
    "sent_header_bytes",
    "sent_payload_bytes",
    "sent_packets",
    "sent_retransmitted_packets",
    "sent_zero_window_packets",
    "received_header_bytes",
    "received_payload_bytes",
    "received_packets",
    "received_retransmitted_packets",
    "received_zero_window_packets",
    "duration_us",
    "duration_count",
    "syn_to_synack_us",
    "syn_to_synack_count",
    "first_response_us",
    "first_response_count",
];

/// Connections open at the window's start.
const OPENING: &str = "opening";
/// Connections whose direction was guessed.
const INFERRED: &str = "inferred";

/// What the largest is taken of, in this order.
const LARGEST: [&str; 3] = ["duration_max_us", "syn_to_synack_max_us", "first_response_max_us"];

/// The primary rows of a window, summed: as they are where they were read.
#[derive(Clone, Debug)]
pub(crate) struct EdgeRow<'a> {
    pub(crate) pair: Pair<'a>,
    pub(crate) first_seen_ms: i64,
    pub(crate) last_seen_ms: i64,
    /// Of [`SUMMED`].
    pub(crate) sums: [u64; SUMMED.len()],
    /// Of [`LARGEST`].
    pub(crate) largest: [u64; LARGEST.len()],
    pub(crate) latency_buckets: Buckets<'a>,
    pub(crate) first_response_buckets: Buckets<'a>,
}

impl<'a> ReadRow<'a> for EdgeRow<'a> {
    const COLUMNS: &'static [(&'static str, &'static str)] = pair_columns![
        ("first_seen_ms", "Int64"),
        ("last_seen_ms", "Int64"),
        ("sums", "Array(UInt64)"),
        ("largest", "Array(UInt64)"),
        ("latency_buckets", "Map(UInt16, UInt64)"),
        ("first_response_buckets", "Map(UInt16, UInt64)")
    ];

    fn read(values: &mut Values<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            pair: Pair::read(values)?,
            first_seen_ms: i64::from_le_bytes(values.array()?),
            last_seen_ms: i64::from_le_bytes(values.array()?),
            sums: values.numbers()?,
            largest: values.numbers()?,
            latency_buckets: read_buckets(values)?,
            first_response_buckets: read_buckets(values)?,
        })
    }
}

fn read_buckets<'a>(values: &mut Values<'a>) -> Result<Buckets<'a>, Malformed> {
    Buckets::new(values.list()?).ok_or(Malformed::Buckets)
}

/// The edges of a window: one [`EdgeRow`] per pair of ends. What was open at its start is counted if that
/// starts a minute, when every open connection has a row; else [`super::open_at`] is to be asked.
///
/// Each table is read once, and sums travel in an array: most of the time that a short window takes is
/// ClickHouse's for the statement itself, which grows with its columns.
///
/// Of ends that are not `kept` nothing is told; without it, all are.
pub(crate) fn edges(
    group_by: GroupBy,
    detail: Detail,
    filter: &str,
    plan: &Plan,
    kept: Option<&Kept>,
) -> String {
    let columns = kept::columns(kept, group_by);
    let tiers = plan.by_tier();
    let parts = tiers.iter().map(|(tier, segments)| {
        let (time, counted) = counted_within(*tier, segments);
        let rows = format!("{} WHERE {counted} AND {filter}", table(*tier, detail));
        summands(*tier, &columns, &opening(time, segments, plan), &rows)
    });
    let parts = parts.collect::<Vec<_>>().join("\n            UNION ALL ");
    let rows = telling(kept, group_by, parts);
    format!(
        "SELECT
            {answered},
            toUnixTimestamp64Milli(min(rows.first_seen)) AS first_seen_ms,
            toUnixTimestamp64Milli(max(rows.last_seen)) AS last_seen_ms,
            sumForEach(rows.sums) AS sums,
            maxForEach(rows.largest) AS largest,
            sumMap(latency) AS latency_buckets,
            sumMap(first_response) AS first_response_buckets
        FROM (
            {rows}
        ) AS rows
        GROUP BY {grouping}",
        answered = ends::answered(group_by),
        grouping = ends::grouping(group_by),
    )
}

/// The rows of one table that a window is made of, in the columns that all tiers have.
fn summands(tier: Tier, columns: &str, opening: &str, rows: &str) -> String {
    let summed = SUMMED.map(|name| match name {
        OPENING => opening.to_owned(),
        INFERRED => format!("direction_inferred * (opened + joined + {opening})"),
        _ => name.to_owned(),
    });
    format!(
        "SELECT {columns}, first_seen, last_seen, [{summed}] AS sums, [{largest}] AS largest, \
         {latency} AS latency, {first_response} AS first_response \
         FROM {rows}",
        summed = summed.join(", "),
        largest = LARGEST.join(", "),
        latency = buckets(tier, "syn_to_synack"),
        first_response = buckets(tier, "first_response"),
    )
}

/// The connections of a row that were open at the window's start, if rows tell that.
pub(super) fn opening(time: &str, segments: &[Segment], plan: &Plan) -> String {
    let from_s = plan.bounds.from_s;
    if starts_minute(from_s) && segments.iter().any(|segment| segment.from_s == from_s) {
        format!("if({time} = toDateTime({from_s}, 'UTC'), open_at_start, 0)")
    } else {
        "0".to_owned()
    }
}

/// Samples of a measure by bucket, as a map.
pub(super) fn buckets(tier: Tier, measure: &str) -> String {
    if tier != Tier::Raw {
        return format!("{measure}_buckets");
    }
    let (sum, count) = (format!("{measure}_us"), format!("{measure}_count"));
    let bucket = bucket_sql(&sum, &count);
    // A map has no rows without a sample.
    format!(
        "mapFromArrays(if({count} > 0, [{bucket}], []), if({count} > 0, [toUInt64({count})], []))"
    )
}
