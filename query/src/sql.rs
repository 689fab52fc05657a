//! The questions to ClickHouse: fixed text and the rows they answer with. What a caller says in words is
//! bound as parameters (`{name:Type}`); planned times are numbers of ours.
//!
//! Edge counters come from primary rows only, which is all that rollups are of. Rows are grouped by what
//! the request's `group_by` needs of each end, perhaps more finely than by node: [`crate::graph`] decides
//! what a node is.

use std::net::Ipv6Addr;

use clickhouse::Row;
use serde::Deserialize;

use crate::filter::Filter;
use crate::histogram::bucket_sql;
use crate::params::GroupBy;
use crate::planner::{Plan, Segment, Tier};
use crate::window::starts_minute;

/// Ports, Services and addresses listed of one edge or node: what a person reads. One more is
/// fetched, to tell that there are more.
pub(crate) const MAX_LISTED: usize = 64;

/// What `group_by` needs of an end: kind, namespace, workload kind, workload, name, node, Service's
/// namespace, Service, address. What it does not need is empty.
pub(crate) type End = (i8, String, String, String, String, String, String, String, Ipv6Addr);

/// Bytes, payload bytes, packets, retransmitted packets, zero-window packets.
pub(crate) type CountersColumns = (u64, u64, u64, u64, u64);

/// Sum and number of samples, largest sample (microseconds), buckets and their counts.
pub(crate) type MeasureColumns = (u64, u64, u64, (Vec<u16>, Vec<u64>));

/// The primary rows of a window, summed.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct EdgeRow {
    pub(crate) source: End,
    pub(crate) target: End,
    pub(crate) server_ports: Vec<u16>,
    pub(crate) services: Vec<String>,
    pub(crate) client_addresses: Vec<Ipv6Addr>,
    pub(crate) server_addresses: Vec<Ipv6Addr>,
    pub(crate) first_seen_ms: i64,
    pub(crate) last_seen_ms: i64,
    pub(crate) open_at_start: u64,
    pub(crate) opened: u64,
    pub(crate) joined: u64,
    pub(crate) inferred: u64,
    pub(crate) closed: (u64, u64, u64, u64, u64, u64, u64, u64),
    pub(crate) sent: CountersColumns,
    pub(crate) received: CountersColumns,
    pub(crate) duration: (u64, u64, u64),
    pub(crate) latency: MeasureColumns,
    pub(crate) first_response: MeasureColumns,
}

/// The connections open at an instant.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct OpenRow {
    pub(crate) source: End,
    pub(crate) target: End,
    pub(crate) server_ports: Vec<u16>,
    pub(crate) services: Vec<String>,
    pub(crate) client_addresses: Vec<Ipv6Addr>,
    pub(crate) server_addresses: Vec<Ipv6Addr>,
    pub(crate) connections: u64,
    pub(crate) inferred: u64,
}

/// One agent's reports.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct CoverageRow {
    /// End of the latest interval it reported on, near the window, seconds since the epoch.
    pub(crate) reported_until_s: u64,
    /// Intervals of the window it reported on.
    pub(crate) intervals: u64,
    pub(crate) packets_dropped: u64,
    pub(crate) records_dropped: u64,
}

/// The lengths of the intervals in the minutes that begin at `first` and `last`.
pub(crate) const INTERVAL_LENGTHS: &str = "
    WITH toDateTime({first:UInt32}, 'UTC') AS first, toDateTime({last:UInt32}, 'UTC') AS last
    SELECT DISTINCT interval_s FROM (
        SELECT interval_s FROM coverage
        WHERE (interval_start >= first AND interval_start < first + INTERVAL 1 MINUTE)
            OR (interval_start >= last AND interval_start < last + INTERVAL 1 MINUTE)
        UNION ALL
        SELECT interval_s FROM flows
        WHERE (interval_start >= first AND interval_start < first + INTERVAL 1 MINUTE)
            OR (interval_start >= last AND interval_start < last + INTERVAL 1 MINUTE)
    )";

/// The time of the earliest row of each tier, from the finest on, 0 without rows; and whether `flows` and
/// `edges_1m` have, of the day of theirs, as many rows as `edges_1h` has summed.
pub(crate) const EARLIEST: &str = "
    WITH
        assumeNotNull((SELECT min(interval_start) FROM flows)) AS raw,
        assumeNotNull((SELECT min(start) FROM edges_1m)) AS minutes,
        toStartOfDay(raw) AS raw_day,
        toStartOfDay(minutes) AS minutes_day
    SELECT
        toUInt32(raw),
        toUInt32(minutes),
        toUInt32(assumeNotNull((SELECT min(start) FROM edges_1h))),
        toUInt32(assumeNotNull((SELECT min(start) FROM edges_1d))),
        assumeNotNull((SELECT countIf(primary) FROM flows WHERE interval_start >= raw_day AND interval_start < raw_day + INTERVAL 1 DAY))
            = assumeNotNull((SELECT sum(records) FROM edges_1h WHERE start >= raw_day AND start < raw_day + INTERVAL 1 DAY)),
        assumeNotNull((SELECT sum(records) FROM edges_1m WHERE start >= minutes_day AND start < minutes_day + INTERVAL 1 DAY))
            = assumeNotNull((SELECT sum(records) FROM edges_1h WHERE start >= minutes_day AND start < minutes_day + INTERVAL 1 DAY))";

/// Each agent that reported in `[since, until)`, with its reports on `[from, to)`: of whole hours from
/// `first_hour` to `end_hour` as they are summed, of the rest one by one. Reports from the future are a
/// wrong clock's: the others are not late because of them.
pub(crate) const COVERAGE: &str = "
    SELECT
        max(until_s) AS reported_until_s,
        sum(reported) AS intervals,
        sum(packets) AS packets_dropped,
        sum(records) AS records_dropped
    FROM (
        SELECT
            agent,
            toUInt64(max(toUInt32(interval_start) + interval_s)) AS until_s,
            uniqExactIf(interval_start, within) AS reported,
            sumIf(packets_dropped, within) AS packets,
            sumIf(records_dropped, within) AS records
        FROM (
            SELECT *, interval_start >= toDateTime({from:UInt32}, 'UTC') AND interval_start < toDateTime({to:UInt32}, 'UTC') AS within
            FROM coverage
            WHERE ((interval_start >= toDateTime({since:UInt32}, 'UTC') AND interval_start < toDateTime({first_hour:UInt32}, 'UTC'))
                OR (interval_start >= toDateTime({end_hour:UInt32}, 'UTC') AND interval_start < toDateTime({until:UInt32}, 'UTC')))
                AND interval_start <= now()
        )
        GROUP BY agent
        UNION ALL
        SELECT
            agent,
            toUInt64(toUInt32(max(reported_until))) AS until_s,
            sum(bitmapCardinality(of_hour)) AS reported,
            sum(packets) AS packets,
            sum(records) AS records
        FROM (
            SELECT
                agent,
                start,
                max(coverage_1h.reported_until) AS reported_until,
                groupBitmapMergeState(coverage_1h.intervals) AS of_hour,
                sum(coverage_1h.packets_dropped) AS packets,
                sum(coverage_1h.records_dropped) AS records
            FROM coverage_1h
            WHERE start >= toDateTime({first_hour:UInt32}, 'UTC') AND start < toDateTime({end_hour:UInt32}, 'UTC') AND start <= now()
            GROUP BY agent, start
        )
        GROUP BY agent
    )
    GROUP BY agent";

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
fn table(tier: Tier, detail: Detail) -> &'static str {
    match (tier, detail) {
        (Tier::Raw, _) => "flows",
        (Tier::Minute, _) => "edges_1m",
        (Tier::Hour, Detail::Pods) => "edges_1h",
        (Tier::Hour, Detail::Workloads) => "workload_edges_1h",
        (Tier::Day, Detail::Pods) => "edges_1d",
        (Tier::Day, Detail::Workloads) => "workload_edges_1d",
    }
}

/// Columns that are summed, by the same name in every table.
const SUMMED: &[&str] = &[
    "sent_bytes",
    "sent_payload_bytes",
    "sent_packets",
    "sent_retransmitted_packets",
    "sent_zero_window_packets",
    "received_bytes",
    "received_payload_bytes",
    "received_packets",
    "received_retransmitted_packets",
    "received_zero_window_packets",
    "opened",
    "joined",
    "closed_fin",
    "closed_reset_by_client",
    "closed_reset_by_server",
    "closed_refused",
    "closed_unanswered",
    "closed_idle",
    "closed_superseded",
    "closed_evicted",
    "duration_us",
    "duration_count",
    "duration_max_us",
    "syn_to_synack_us",
    "syn_to_synack_count",
    "syn_to_synack_max_us",
    "first_response_us",
    "first_response_count",
    "first_response_max_us",
];

/// The rows of a part of a window, in the columns that all tiers have. `opening` is what was open at
/// the window's start, if the part begins there.
fn rows(segment: Segment, at_s: u32, detail: Detail, group_by: GroupBy, filter: &str) -> String {
    let Segment { tier, from_s, to_s } = segment;
    let (time, primary) =
        if tier == Tier::Raw { ("interval_start", "primary AND ") } else { ("start", "") };
    let within =
        format!("{time} >= toDateTime({from_s}, 'UTC') AND {time} < toDateTime({to_s}, 'UTC')");
    let buckets = |measure: &str| match tier {
        Tier::Raw => {
            let (sum, count) = (format!("{measure}_us"), format!("{measure}_count"));
            let bucket = bucket_sql(&sum, &count);
            // A map has no rows without a sample.
            format!(
                "mapFromArrays(if({count} > 0, [{bucket}], []), if({count} > 0, [toUInt64({count})], [])) AS {measure}_buckets"
            )
        }
        _ => format!("{measure}_buckets"),
    };
    let ends = ["client", "server"].map(|side| ends_columns(side, group_by)).join(", ");
    format!(
        "SELECT {ends}, server_port, service_namespace, service_name, direction_inferred, first_seen, last_seen, \
         if({time} = toDateTime({at_s}, 'UTC'), open_at_start, 0) AS opening, {summed}, {latency}, {first_response} \
         FROM {table} WHERE {primary}{within} AND {filter}",
        summed = SUMMED.join(", "),
        latency = buckets("syn_to_synack"),
        first_response = buckets("first_response"),
        table = table(tier, detail),
    )
}

/// What is read of an end.
fn ends_columns(side: &str, group_by: GroupBy) -> String {
    let node = if group_by == GroupBy::Node { Some("node") } else { None };
    let columns = ["kind", "namespace", "workload", "workload_kind", "name", "real_ip"];
    let columns = columns.into_iter().chain(node).map(|column| format!("{side}_{column}"));
    columns.collect::<Vec<_>>().join(", ")
}

/// The edges of a window: one [`EdgeRow`] per pair of ends. `open_at_start` counts what was open at its
/// start if that starts a minute, when every open connection has a row; else it is 0, and [`open_at`] is
/// to be asked.
pub(crate) fn edges(group_by: GroupBy, detail: Detail, filter: &str, plan: &Plan) -> String {
    let (source, target, labels) = (source(group_by), target(group_by), labels(group_by));
    // At no other time does every open connection have a row; at 0 nobody has one.
    let at_s = if starts_minute(plan.bounds.from_s) { plan.bounds.from_s } else { 0 };
    let parts = plan.segments.iter().map(|part| rows(*part, at_s, detail, group_by, filter));
    let parts = parts.collect::<Vec<_>>().join("\n            UNION ALL ");
    let measure = |name: &str| {
        let buckets = format!("sumMap({name}_buckets)");
        format!(
            "(sum({name}_us), sum({name}_count), max({name}_max_us), (mapKeys({buckets}), mapValues({buckets})))"
        )
    };
    let (latency, first_response) = (measure("syn_to_synack"), measure("first_response"));
    let counters = |side: &str| {
        format!(
            "(sum({side}_bytes), sum({side}_payload_bytes), sum({side}_packets), \
             sum({side}_retransmitted_packets), sum({side}_zero_window_packets))"
        )
    };
    let (sent, received) = (counters("sent"), counters("received"));
    format!(
        "SELECT
            {source} AS source,
            {target} AS target,
            {labels},
            toUnixTimestamp64Milli(min(rows.first_seen)) AS first_seen_ms,
            toUnixTimestamp64Milli(max(rows.last_seen)) AS last_seen_ms,
            sum(opening) AS open_at_start,
            sum(rows.opened) AS opened,
            sum(rows.joined) AS joined,
            sumIf(rows.opened + rows.joined + opening, direction_inferred) AS inferred,
            (sum(closed_fin), sum(closed_reset_by_client), sum(closed_reset_by_server), sum(closed_refused),
             sum(closed_unanswered), sum(closed_idle), sum(closed_superseded), sum(closed_evicted)) AS closed,
            {sent} AS sent,
            {received} AS received,
            (sum(duration_us), sum(duration_count), max(duration_max_us)) AS duration,
            {latency} AS latency,
            {first_response} AS first_response
        FROM (
            {parts}
        ) AS rows
        GROUP BY source, target"
    )
}

/// The connections open when a minute, hour or day begins, from a rollup's rows of it: for times whose
/// raw rows are past their retention.
pub(crate) fn open_at_boundary(
    group_by: GroupBy,
    detail: Detail,
    filter: &str,
    tier: Tier,
) -> String {
    let (source, target, labels) = (source(group_by), target(group_by), labels(group_by));
    let table = table(tier, detail);
    format!(
        "SELECT
            {source} AS source,
            {target} AS target,
            {labels},
            sum(open_at_start) AS connections,
            sumIf(open_at_start, direction_inferred) AS inferred
        FROM {table}
        WHERE start = toDateTime({{at:UInt32}}, 'UTC') AND open_at_start > 0 AND {filter}
        GROUP BY source, target"
    )
}

/// The connections open at `at`: those with a primary row in `[minute, at)` and no close there,
/// where `minute` is the last minute that began before. Every open connection has a row in the first
/// interval of each minute, so a minute is enough.
///
/// A connection is told by its tuple and the client's sequence number: its id changes once, when
/// the server's half becomes known. Its last row names it.
pub(crate) fn open_at(group_by: GroupBy, filter: &str) -> String {
    let (source, target, labels) = (source(group_by), target(group_by), labels(group_by));
    let connection = "if(id_kind = 'tuple_hash', connection_id, bitShiftRight(connection_id, 32)), \
                      client_ip, client_port, server_ip, server_port";
    let window = "primary AND interval_start >= toDateTime({minute:UInt32}, 'UTC') AND interval_start < toDateTime({at:UInt32}, 'UTC')";
    format!(
        "SELECT
            {source} AS source,
            {target} AS target,
            {labels},
            count() AS connections,
            countIf(direction_inferred) AS inferred
        FROM (
            SELECT * FROM flows
            WHERE {window} AND ({connection}) NOT IN (
                SELECT {connection} FROM flows
                WHERE {window} AND closed_fin + closed_reset_by_client + closed_reset_by_server + closed_refused
                    + closed_unanswered + closed_idle + closed_superseded + closed_evicted > 0
            )
            ORDER BY interval_start DESC, last_seen DESC
            LIMIT 1 BY {connection}
        )
        WHERE {filter}
        GROUP BY source, target"
    )
}

fn source(group_by: GroupBy) -> String {
    end("client", group_by, "''", "''")
}

fn target(group_by: GroupBy) -> String {
    match group_by {
        GroupBy::Service => end("server", group_by, "service_namespace", "service_name"),
        _ => end("server", group_by, "''", "''"),
    }
}

/// The tuple [`End`] of one side.
fn end(side: &str, group_by: GroupBy, service_namespace: &str, service: &str) -> String {
    let column = |name: &str| format!("toString({side}_{name})");
    let address = |when: String| format!("if({when}, {side}_real_ip, toIPv6('::'))");
    let none = || "''".to_owned();
    let namespace = column("namespace");
    let workload = (column("workload_kind"), column("workload"));
    let name_without_workload = format!("if({side}_workload = '', {}, '')", column("name"));
    let nameless = format!("{side}_name = ''");
    let (namespace, (workload_kind, workload), name, node, address) = match group_by {
        GroupBy::Namespace => {
            (namespace, (none(), none()), none(), none(), "toIPv6('::')".to_owned())
        }
        GroupBy::Workload | GroupBy::Service => {
            let address = address(format!("{side}_workload = '' AND {nameless}"));
            (namespace, workload, name_without_workload, none(), address)
        }
        GroupBy::Pod => (namespace, workload, column("name"), none(), address(nameless)),
        GroupBy::Node => {
            let name = format!("if({side}_node = '', {}, '')", column("name"));
            let address = address(format!("{side}_node = '' AND {nameless}"));
            (namespace, (none(), none()), name, column("node"), address)
        }
        GroupBy::Ip => {
            // A hidden address is folded into its namespace.
            let namespace = format!("if({side}_real_ip = toIPv6('::'), {namespace}, '')");
            (namespace, (none(), none()), none(), none(), format!("{side}_real_ip"))
        }
    };
    format!(
        "(toInt8({side}_kind), {namespace}, {workload_kind}, {workload}, {name}, {node}, \
         toString({service_namespace}), toString({service}), {address})"
    )
}

fn labels(group_by: GroupBy) -> String {
    let listed = |values: &str, alias: &str| {
        format!("arraySlice(arraySort({values}), 1, {}) AS {alias}", MAX_LISTED + 1)
    };
    // A workload's pods come and go: no table of workloads has their addresses.
    let addresses = |side: &str| match group_by {
        GroupBy::Pod | GroupBy::Ip => format!("groupUniqArray({side}_real_ip)"),
        _ => format!("groupUniqArrayIf({side}_real_ip, {side}_workload = '')"),
    };
    [
        listed("groupUniqArray(server_port)", "server_ports"),
        listed(
            "groupUniqArrayIf(concat(service_namespace, '/', service_name), service_name != '')",
            "services",
        ),
        listed(&addresses("client"), "client_addresses"),
        listed(&addresses("server"), "server_addresses"),
    ]
    .join(",\n            ")
}
