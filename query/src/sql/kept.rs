//! Which edges stay when a graph has more than are asked for, so that ClickHouse folds the rest into the node
//! `other` as [`crate::graph`] does: a graph of pods can have more edges than may travel.

use clickhouse::Row;
use serde::Deserialize;

use super::edges::opening;
use super::ends::{NO_ADDRESS, SIDES, key_names};
use super::{Detail, counted_within, ends, open_connections, table};
use crate::params::{GroupBy, Stat};
use crate::planner::Plan;

/// An edge that ranks among the first, by the numbers of its nodes and its own.
#[derive(Clone, Copy, Debug, Row, Deserialize)]
pub(crate) struct RankedRow {
    pub(crate) edge: u64,
    pub(crate) source_number: u64,
    pub(crate) target_number: u64,
}

/// The edges that stay, and their nodes.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    edges: Vec<u64>,
    nodes: Vec<u64>,
}

impl Kept {
    /// The first `limit` edges of those that rank among the first; `None` if these are all.
    pub(crate) fn of(ranked: &[RankedRow], limit: usize) -> Option<Self> {
        let stays = ranked.get(..limit).filter(|_| ranked.len() > limit)?;
        let mut nodes: Vec<_> =
            stays.iter().flat_map(|row| [row.source_number, row.target_number]).collect();
        nodes.sort_unstable();
        nodes.dedup();
        Some(Self { edges: stays.iter().map(|row| row.edge).collect(), nodes })
    }
}

/// Columns of the rows of [`telling`].
pub(super) fn columns(kept: Option<&Kept>, group_by: GroupBy) -> String {
    let columns = ends::columns(group_by);
    match kept {
        None => columns,
        Some(_) => format!("{columns}, {}", ends::number_columns(group_by)),
    }
}

/// The rows of a question, with [`columns`] and others; where only some edges stay, the ends of those that do not are
/// empty. Each list is long, and stands there once.
pub(super) fn telling(kept: Option<&Kept>, group_by: GroupBy, rows: String) -> String {
    let Some(Kept { edges, nodes }) = kept else { return rows };
    let list = |numbers: &[u64]| {
        let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
        format!("CAST('[{}]', 'Array(UInt64)')", numbers.join(","))
    };
    let (edges, nodes) = (list(edges), list(nodes));
    format!(
        "SELECT * REPLACE ({staying}) FROM (
            SELECT *, {EDGE} IN {edges} AS edge_kept, source_number IN {nodes} AS source_kept,
                target_number IN {nodes} AS target_kept
            FROM (
            {rows}
            )
        )",
        staying = staying(group_by),
    )
}

/// The columns that tell an end, empty where that does not stay.
fn staying(group_by: GroupBy) -> String {
    let of_side = |(end, side)| {
        let keys = key_names(&[(end, side)], group_by).into_iter();
        keys.chain([format!("{end}_listed")]).map(move |column| {
            let staying = match column.strip_prefix(end) {
                Some("_kind") => format!("toInt8({column}), 0"),
                Some("_address" | "_listed") => format!("{column}, {NO_ADDRESS}"),
                _ => format!("{column}, ''"),
            };
            format!("if({}, {staying}) AS {column}", stays(end))
        })
    };
    SIDES.into_iter().flat_map(of_side).collect::<Vec<_>>().join(", ")
}

/// Whether an end of a row of [`telling`] stays: both of an edge that does, else the one that is a node of another such,
/// the client's if both are.
fn stays(end: &str) -> &'static str {
    match end {
        "source" => "source_kept",
        _ => "(edge_kept OR (target_kept AND NOT source_kept))",
    }
}

/// The number of an edge.
const EDGE: &str = "source_number * 11400714819323198485 + target_number";

/// What edges are ranked by: a sum of rows, perhaps over another.
struct Rank {
    amount: &'static str,
    samples: Option<&'static str>,
}

/// `None` of what is no sum.
fn rank(stat: Stat) -> Option<Rank> {
    let amount = match stat {
        Stat::Connections => "opened + joined",
        Stat::Bytes => "sent_bytes + received_bytes",
        Stat::Packets => "sent_packets + received_packets",
        Stat::Duration => "duration_us",
        Stat::Latency => return None,
        Stat::Retransmits => "sent_retransmitted_packets + received_retransmitted_packets",
        Stat::Failures => "closed_refused + closed_unanswered",
    };
    Some(Rank { amount, samples: (stat == Stat::Duration).then_some("duration_count") })
}

/// The [`RankedRow`]s of the first `count` edges of a window; `None` of a `stat` that is not to be ranked by
/// here.
pub(crate) fn ranked(
    group_by: GroupBy,
    detail: Detail,
    filter: &str,
    plan: &Plan,
    stat: Stat,
    count: usize,
) -> Option<String> {
    let Rank { amount, samples } = rank(stat)?;
    let counts_connections = stat == Stat::Connections;
    let numbers = ends::number_columns(group_by);
    let part = |amount: &str, source: &str| {
        let samples = samples.unwrap_or("1");
        format!(
            "SELECT {numbers}, toUInt64({amount}) AS amount, toUInt64({samples}) AS samples FROM {source}"
        )
    };
    let tiers = plan.by_tier();
    let of_tables = tiers.iter().map(|(tier, segments)| {
        let (time, counted) = counted_within(*tier, segments);
        let amount = if counts_connections {
            format!("{amount} + {}", opening(time, segments, plan))
        } else {
            amount.to_owned()
        };
        let table = table(*tier, detail);
        part(&amount, &format!("{table} WHERE {counted} AND {filter}"))
    });
    let open = plan.open_at_start_s().filter(|_| counts_connections);
    let open = open.map(|at_s| part("1", &format!("({})", open_connections(filter, &[at_s]))));
    let parts: Vec<_> = of_tables.chain(open).collect();
    let ranked = match samples {
        Some(_) => "if(sum(samples) = 0, 0, sum(amount) / sum(samples))",
        None => "sum(amount)",
    };
    Some(format!(
        "SELECT {EDGE} AS edge, source_number, target_number
        FROM (
            {parts}
        )
        GROUP BY source_number, target_number
        ORDER BY {ranked} DESC, edge
        LIMIT {count}",
        parts = parts.join("\n            UNION ALL "),
    ))
}
