//! The connections open at an instant.

use super::binary::{Malformed, ReadRow, Values};
use super::kept::{self, telling};
use super::pairs::{Pair, pair_columns};
use super::{Detail, Kept, ends, table};
use crate::params::GroupBy;
use crate::planner::Tier;
use crate::window::minute_before;

/// The connections of a pair of ends that are open at an instant: as they are where they were read.
#[derive(Debug)]
pub(crate) struct OpenRow<'a> {
    pub(crate) pair: Pair<'a>,
    /// The instant, seconds since the epoch.
    pub(crate) at_s: u32,
    pub(crate) connections: u64,
    pub(crate) inferred: u64,
}

impl<'a> ReadRow<'a> for OpenRow<'a> {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        pair_columns![("at_s", "UInt32"), ("connections", "UInt64"), ("inferred", "UInt64")];

    fn read(values: &mut Values<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            pair: Pair::read(values)?,
            at_s: u32::from_le_bytes(values.array()?),
            connections: u64::from_le_bytes(values.array()?),
            inferred: u64::from_le_bytes(values.array()?),
        })
    }
}

/// What filters and keys read of a connection, but for its tuple as it was seen.
const NAMED: [&str; 19] = [
    "client_kind",
    "client_namespace",
    "client_name",
    "client_workload",
    "client_workload_kind",
    "client_node",
    "client_real_ip",
    "client_real_port",
    "server_kind",
    "server_namespace",
    "server_name",
    "server_workload",
    "server_workload_kind",
    "server_node",
    "server_real_ip",
    "server_real_port",
    "service_namespace",
    "service_name",
    "direction_inferred",
];

/// The connections open when a minute, an hour, a day or a week begins, from a rollup's rows of it: for times whose
/// raw rows are past their retention.
pub(crate) fn open_at_boundary(
    group_by: GroupBy,
    detail: Detail,
    filter: &str,
    tier: Tier,
    at_s: u32,
    kept: Option<&Kept>,
) -> String {
    let rows = format!(
        "SELECT {columns}, direction_inferred, open_at_start AS open
        FROM {table}
        WHERE start = toDateTime({at_s}, 'UTC') AND open_at_start > 0 AND {filter}",
        columns = kept::columns(kept, group_by),
        table = table(tier, detail),
    );
    format!(
        "SELECT
            {answered},
            toUInt32({at_s}) AS at_s,
            sum(open) AS connections,
            sumIf(open, direction_inferred) AS inferred
        FROM ({rows})
        GROUP BY {grouping}",
        answered = ends::answered(group_by),
        rows = telling(kept, group_by, rows),
        grouping = ends::grouping(group_by),
    )
}

/// The connections open at each of some instants, in seconds since the epoch, by pair of ends.
pub(crate) fn open_at(
    group_by: GroupBy,
    filter: &str,
    instants: &[u32],
    kept: Option<&Kept>,
) -> String {
    let rows = format!(
        "SELECT {columns}, direction_inferred, at_s FROM ({open})",
        columns = kept::columns(kept, group_by),
        open = open_connections(filter, instants),
    );
    format!(
        "SELECT
            {answered},
            at_s,
            count() AS connections,
            countIf(direction_inferred) AS inferred
        FROM ({rows})
        GROUP BY {grouping}, at_s",
        answered = ends::answered(group_by),
        rows = telling(kept, group_by, rows),
        grouping = ends::grouping(group_by),
    )
}

/// The connections open at each of some instants, `at_s`: those with a primary row in the minute up to
/// there and no close in it. Every open connection has a row in the first interval of each minute, so a
/// minute is enough.
///
/// A connection is told by its tuple and the client's sequence number: its id changes once, when
/// the server's half becomes known. Its last row names it.
pub(super) fn open_connections(filter: &str, instants: &[u32]) -> String {
    let list = |times: &mut dyn Iterator<Item = u32>| {
        times.map(|time| format!("toUInt32({time})")).collect::<Vec<_>>().join(", ")
    };
    let (times, minutes) = (
        list(&mut instants.iter().copied()),
        list(&mut instants.iter().map(|at| minute_before(*at))),
    );
    let within = instants.iter().map(|at_s| {
        let minute_s = minute_before(*at_s);
        format!("interval_start >= toDateTime({minute_s}, 'UTC') AND interval_start < toDateTime({at_s}, 'UTC')")
    });
    let within = within.collect::<Vec<_>>().join(" OR ");
    let named: Vec<_> =
        NAMED.iter().enumerate().map(|(at, name)| format!("last.{} AS {name}", at + 1)).collect();
    format!(
        "SELECT * FROM (
            SELECT at_s, client_ip, client_port, server_ip, server_port, {named}
            FROM (
                SELECT
                    at_s, client_ip, client_port, server_ip, server_port,
                    argMax(({names}), (interval_start, last_seen)) AS last
                FROM flows
                ARRAY JOIN arrayFilter(
                    (at, minute) -> interval_start >= toDateTime(minute, 'UTC') AND interval_start < toDateTime(at, 'UTC'),
                    [{times}], [{minutes}]
                ) AS at_s
                WHERE primary AND ({within})
                GROUP BY
                    at_s, client_ip, client_port, server_ip, server_port,
                    if(id_kind = 'tuple_hash', connection_id, bitShiftRight(connection_id, 32))
                HAVING max(closed_fin + closed_reset_by_client + closed_reset_by_server + closed_refused
                    + closed_unanswered + closed_idle + closed_superseded + closed_evicted) = 0
            )
        )
        WHERE {filter}",
        named = named.join(", "),
        names = NAMED.join(", "),
    )
}
