//! When pairs of ends were first seen, in all history.

use clickhouse::Row;
use serde::Deserialize;

use super::ends::{SIDES, answered_ends, key_columns, key_names};
use super::{Detail, End, counted, table};
use crate::params::GroupBy;
use crate::planner::Tier;

/// A pair of ends and its first packet, milliseconds since the epoch.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct FirstSeenRow {
    pub(crate) source: End,
    pub(crate) target: End,
    pub(crate) first_seen_ms: i64,
}

/// [`FirstSeenRow`]s from the rows of a tier that has all history, of those that begin before `to_s`, seconds
/// since the epoch.
pub(crate) fn first_seen(
    group_by: GroupBy,
    tier: Tier,
    detail: Detail,
    filter: &str,
    to_s: u32,
) -> String {
    let (time, primary) = counted(tier);
    format!(
        "SELECT {ends}, toUnixTimestamp64Milli(min(seen)) AS first_seen_ms
        FROM (
            SELECT {columns}, first_seen AS seen FROM {table}
            WHERE {primary}{time} < toDateTime({to_s}, 'UTC') AND {filter}
        )
        GROUP BY {names}",
        ends = answered_ends(&SIDES, group_by).join(", "),
        columns = key_columns(&SIDES, group_by).join(", "),
        table = table(tier, detail),
        names = key_names(&SIDES, group_by).join(", "),
    )
}
