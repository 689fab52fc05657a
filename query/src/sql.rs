//! The questions to ClickHouse: fixed text and the rows they answer with. Windows and filters are
//! bound parameters (`{name:Type}`).
//!
//! Edge counters come from primary rows only. Rows are grouped by what the request's `group_by`
//! needs of each end, perhaps more finely than by node: [`crate::graph`] decides what a node is.

use std::net::Ipv6Addr;

use clickhouse::Row;
use serde::Deserialize;

use crate::histogram::bucket_sql;
use crate::params::GroupBy;

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

/// The lengths of the intervals in `[from, to)`.
pub(crate) const INTERVAL_LENGTHS: &str = "
    SELECT DISTINCT interval_s FROM (
        SELECT interval_s FROM coverage WHERE interval_start >= toDateTime({from:UInt32}, 'UTC') AND interval_start < toDateTime({to:UInt32}, 'UTC')
        UNION ALL
        SELECT interval_s FROM flows WHERE interval_start >= toDateTime({from:UInt32}, 'UTC') AND interval_start < toDateTime({to:UInt32}, 'UTC')
    )";

/// Each agent that reported in `[since, until)`, with its reports on `[from, to)`. Reports from the
/// future are a wrong clock's: the others are not late because of them.
pub(crate) const COVERAGE: &str = "
    SELECT
        toUInt64(max(toUInt32(interval_start) + interval_s)) AS reported_until_s,
        uniqExactIf(interval_start, within) AS intervals,
        sumIf(packets_dropped, within) AS packets_dropped,
        sumIf(records_dropped, within) AS records_dropped
    FROM (
        SELECT *, interval_start >= toDateTime({from:UInt32}, 'UTC') AND interval_start < toDateTime({to:UInt32}, 'UTC') AS within
        FROM coverage
        WHERE interval_start >= toDateTime({since:UInt32}, 'UTC') AND interval_start < toDateTime({until:UInt32}, 'UTC')
            AND interval_start <= now()
    )
    GROUP BY agent";

/// The edges of `[from, to)`: one [`EdgeRow`] per pair of ends. `open_at_start` counts what was open
/// at `from` if that starts a minute, when every open connection has a row; else it is 0, and
/// [`open_at`] is to be asked.
pub(crate) fn edges(group_by: GroupBy, filter: &str) -> String {
    let (source, target, labels) = (source(group_by), target(group_by), labels());
    let measure = |name: &str| {
        let (sum, count, max) =
            (format!("{name}_us"), format!("{name}_count"), format!("{name}_max_us"));
        let bucket = bucket_sql(&sum, &count);
        format!(
            "(sum({sum}), sum({count}), max({max}), sumMapIf([{bucket}], [toUInt64({count})], {count} > 0))"
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
    let opening = "interval_start = toDateTime({from:UInt32}, 'UTC') AND {from:UInt32} % 60 = 0";
    format!(
        "SELECT
            {source} AS source,
            {target} AS target,
            {labels},
            toUnixTimestamp64Milli(min(first_seen)) AS first_seen_ms,
            toUnixTimestamp64Milli(max(last_seen)) AS last_seen_ms,
            sumIf(flows.open_at_start, {opening}) AS open_at_start,
            sum(flows.opened) AS opened,
            sum(flows.joined) AS joined,
            sumIf(flows.opened + flows.joined + if({opening}, flows.open_at_start, 0), direction_inferred) AS inferred,
            (sum(closed_fin), sum(closed_reset_by_client), sum(closed_reset_by_server), sum(closed_refused),
             sum(closed_unanswered), sum(closed_idle), sum(closed_superseded), sum(closed_evicted)) AS closed,
            {sent} AS sent,
            {received} AS received,
            (sum(duration_us), sum(duration_count), max(duration_max_us)) AS duration,
            {latency} AS latency,
            {first_response} AS first_response
        FROM flows
        WHERE primary AND interval_start >= toDateTime({{from:UInt32}}, 'UTC') AND interval_start < toDateTime({{to:UInt32}}, 'UTC')
            AND {filter}
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
    let (source, target, labels) = (source(group_by), target(group_by), labels());
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
        GroupBy::Ip => (none(), (none(), none()), none(), none(), format!("{side}_real_ip")),
    };
    format!(
        "(toInt8({side}_kind), {namespace}, {workload_kind}, {workload}, {name}, {node}, \
         toString({service_namespace}), toString({service}), {address})"
    )
}

fn labels() -> String {
    let listed = |values: &str, alias: &str| {
        format!("arraySlice(arraySort({values}), 1, {}) AS {alias}", MAX_LISTED + 1)
    };
    [
        listed("groupUniqArray(server_port)", "server_ports"),
        listed(
            "groupUniqArrayIf(concat(service_namespace, '/', service_name), service_name != '')",
            "services",
        ),
        listed("groupUniqArray(client_real_ip)", "client_addresses"),
        listed("groupUniqArray(server_real_ip)", "server_addresses"),
    ]
    .join(",\n            ")
}
