//! The questions to ClickHouse about connections, and the rows they answer with. Two are asked of `flows`: which
//! connections are on the page (of primary rows, what the order needs and no more), and all rows of these, which
//! the client's initial sequence number finds. What a caller says in words is bound as parameters.

use std::net::Ipv6Addr;

use clickhouse::Row;
use serde::Deserialize;

use super::cursor::Key;
use crate::params::Order;

/// [`Key`] as columns.
pub(crate) type KeyColumns = (bool, bool, u64, Ipv6Addr, u16, Ipv6Addr, u16);

/// Bytes, payload bytes, packets, retransmitted packets, zero-window packets.
pub(crate) type CountersColumns = (u64, u64, u64, u64, u64);

/// Closes by reason, in the order of [`crate::answer::Closed`].
pub(crate) type ClosedColumns = (u64, u64, u64, u64, u64, u64, u64, u64);

/// Sum and number of samples, microseconds.
pub(crate) type SamplesColumns = (u64, u64);

/// Kind, namespace, name, workload, workload kind, node, uncertain, address and port behind NAT.
pub(crate) type EndColumns = (i8, String, String, String, String, String, bool, Ipv6Addr, u16);

/// A connection of the page.
#[derive(Clone, Copy, Debug, Row, Deserialize)]
pub(crate) struct PageRow {
    pub(crate) key: KeyColumns,
    /// What it is ordered by, largest first.
    pub(crate) rank: u64,
    /// Start of its first primary interval, seconds since the epoch.
    pub(crate) first_s: u32,
    /// End of its last primary interval, seconds since the epoch.
    pub(crate) end_s: u32,
}

/// The rows of one observation of a connection, summed: those that the edge counts and those that are
/// evidence only, and those of before the window, apart.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct ObservationRow {
    pub(crate) key: KeyColumns,
    /// Primary, and kept by the filter.
    pub(crate) counted: bool,
    /// In the window, and not in what of the minute is before it.
    pub(crate) within: bool,
    /// Node, agent, interface, its kind, reporter.
    pub(crate) point: (String, String, String, i8, i8),
    pub(crate) primary: bool,
    pub(crate) local_primary: bool,
    pub(crate) detail: i8,
    pub(crate) connection_id: u64,
    pub(crate) id_kind: i8,
    /// Handshake seen, one-sided, direction inferred.
    pub(crate) flags: (bool, bool, bool),
    /// First and last packet, microseconds since the epoch; 0 without one.
    pub(crate) packets_us: (i64, i64),
    /// Start of the connection, microseconds since the epoch; 0 where no row tells.
    pub(crate) started_us: i64,
    /// Starts of the first and the last interval, end of the last one.
    pub(crate) intervals_s: (u32, u32, u32),
    /// Start of the last interval with its beginning, or that it was open at the start of; 0 without one.
    pub(crate) open_s: u32,
    /// Start of the last interval with a close, 0 without one; and which reason that was, in the order of
    /// `closed`, from 1 on.
    pub(crate) closed_last: (u32, u8),
    pub(crate) rows: u64,
    /// Opened, joined.
    pub(crate) life: (u64, u64),
    pub(crate) closed: ClosedColumns,
    pub(crate) sent: CountersColumns,
    pub(crate) received: CountersColumns,
    pub(crate) syn_to_synack: SamplesColumns,
    pub(crate) synack_to_ack: SamplesColumns,
    pub(crate) first_response: SamplesColumns,
    pub(crate) client: EndColumns,
    pub(crate) server: EndColumns,
    /// Namespace and name.
    pub(crate) service: (String, String),
}

/// A time in which an agent did not see all; an empty one says that it reported.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct GapRow {
    pub(crate) node: String,
    pub(crate) agent: String,
    /// 1 no report, 2 packets dropped, 3 records dropped, 4 folded.
    pub(crate) reason: u8,
    pub(crate) from_s: u32,
    pub(crate) to_s: u32,
}

/// An interval of ownership; times are microseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Row, Deserialize)]
pub(crate) struct OwnershipRow {
    pub(crate) address: Ipv6Addr,
    pub(crate) port: u16,
    pub(crate) uid: String,
    pub(crate) kind: i8,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) start_us: i64,
    /// 0 while it is held.
    pub(crate) end_us: i64,
    pub(crate) certain_until_us: i64,
}

/// Rows of one address and port that are read, so that an address of Jobs does not fill an answer.
pub(crate) const MAX_OWNERSHIPS: usize = 16;

/// Rows of one pair of ends that are read of a connection: twelve points, as ingest joins them, with rows of
/// before the window, kept and not kept by the filter.
const MAX_OBSERVATION_ROWS: usize = 36;

/// Gaps of one agent that are read. Beyond it the last one is taken to last.
pub(crate) const MAX_GAPS: usize = 1_000;

const KEY: &[&str] =
    &["folded", "hashed", "shared", "client_ip", "client_port", "server_ip", "server_port"];

/// Columns that rows of `flows` lack. `crate::sql::open_at` tells connections apart by the same.
const DERIVED: &str = "detail != 'flow' AS folded,
            id_kind = 'tuple_hash' AS hashed,
            if(hashed, connection_id, bitShiftRight(connection_id, 32)) AS shared,
            interval_start >= toDateTime({from:UInt32}, 'UTC') AS within,
            sent_packets + received_packets > 0 AS with_packets,
            closed_fin + closed_reset_by_client + closed_reset_by_server + closed_refused
                + closed_unanswered + closed_idle + closed_superseded + closed_evicted AS closes,
            toUnixTimestamp64Micro(first_seen) AS first_us,
            toUnixTimestamp64Micro(last_seen) AS last_us,
            toInt64(toUInt32(interval_start)) AS start_s";

/// When a row says that its connection began: `age_us` is the age at the last packet, in a heartbeat at the
/// interval's end. In a close without packets it is of a packet before, and in a summary of any connection.
const STARTED: &str =
    "if(with_packets, last_us, (start_s + interval_s) * 1000000) - toInt64(age_us)";
const TELLS_START: &str = "NOT folded AND (with_packets OR closes = 0)";

/// Rows of the window, and those before it that tell what was open at its start.
const RANGE: &str = "interval_start >= toDateTime({since:UInt32}, 'UTC') AND interval_start < toDateTime({until:UInt32}, 'UTC')";

/// The connections of a page: those with primary rows in the window, or open at its start, after the cursor.
/// Parameters: `from`, `since`, `until`, `limit`, and those of a cursor.
pub(crate) fn page(order: Order, filter: &str, after_cursor: bool) -> String {
    let key = KEY.join(", ");
    let started = "if(countIf(tells_start) > 0, minIf(started_us, tells_start), min(first_us))";
    let rank = match order {
        Order::Newest => format!("greatest({started}, 0)"),
        Order::Longest => format!("greatest(max(last_us) - {started}, 0)"),
        Order::Bytes => "sumIf(sent_bytes + received_bytes, within)".to_owned(),
        Order::Retransmits => {
            "sumIf(sent_retransmitted_packets + received_retransmitted_packets, within)".to_owned()
        }
    };
    let after = if after_cursor {
        "AND (rank < {rank:UInt64} OR (rank = {rank:UInt64} AND
            (folded, hashed, shared, client_ip, client_port, server_ip, server_port)
                > ({folded:UInt8}, {hashed:UInt8}, {shared:UInt64}, {client_ip:IPv6}, {client_port:UInt16}, {server_ip:IPv6}, {server_port:UInt16})))"
    } else {
        ""
    };
    format!(
        "SELECT
            ({key}) AS key,
            toUInt64({rank}) AS rank,
            toUInt32(min(start_s)) AS first_s,
            toUInt32(max(start_s + interval_s)) AS end_s
        FROM (
            SELECT *, {DERIVED},
            {STARTED} AS started_us,
            {TELLS_START} AS tells_start
            FROM flows
            WHERE primary AND {RANGE} AND ({filter})
        )
        GROUP BY {key}
        HAVING (countIf(within) > 0 OR sumIf(closes, NOT within) = 0) {after}
        ORDER BY rank DESC, {key}
        LIMIT {{limit:UInt32}}"
    )
}

/// All rows that may be of some connections. Parameters: `from`, `since`, `until`, `isns`, `hashes`.
pub(crate) fn observations(filter: &str) -> String {
    let key = KEY.join(", ");
    let point = "(toString(node), toString(agent), toString(interface), toInt8(interface_kind), toInt8(reporter))";
    let counters = |side: &str| {
        format!(
            "(sum({side}_bytes), sum({side}_payload_bytes), sum({side}_packets), \
             sum({side}_retransmitted_packets), sum({side}_zero_window_packets))"
        )
    };
    let (sent, received) = (counters("sent"), counters("received"));
    let samples = |name: &str| format!("(sum({name}_us), sum({name}_count)) AS {name}");
    let samples =
        ["syn_to_synack", "synack_to_ack", "first_response"].map(samples).join(",\n            ");
    let latest = |columns: String| format!("argMax(({columns}), (start_s, last_us))");
    let end = |side: &str| {
        let texts = ["namespace", "name", "workload", "workload_kind", "node"];
        let texts = texts.map(|column| format!("toString({side}_{column})")).join(", ");
        latest(format!(
            "toInt8({side}_kind), {texts}, {side}_uncertain, {side}_real_ip, {side}_real_port"
        ))
    };
    let (client, server) = (end("client"), end("server"));
    let service = latest("toString(service_namespace), toString(service_name)".to_owned());
    format!(
        "SELECT
            ({key}) AS key,
            counted,
            within,
            point,
            primary,
            max(observed.local_primary) AS local_primary,
            max(toInt8(observed.detail)) AS detail,
            max(observed.connection_id) AS connection_id,
            min(toInt8(observed.id_kind)) AS id_kind,
            (max(observed.handshake_seen), max(observed.one_sided), max(observed.direction_inferred)) AS flags,
            (minIf(first_us, with_packets), maxIf(last_us, with_packets)) AS packets_us,
            minIf({STARTED}, {TELLS_START}) AS started_us,
            (toUInt32(min(start_s)), toUInt32(max(start_s)), toUInt32(max(start_s + interval_s))) AS intervals_s,
            toUInt32(maxIf(start_s, opened + joined + open_at_start + syn_to_synack_count > 0)) AS open_s,
            (toUInt32(maxIf(start_s, closes > 0)), toUInt8(argMaxIf(
                multiIf(closed_fin > 0, 1, closed_reset_by_client > 0, 2, closed_reset_by_server > 0, 3, closed_refused > 0, 4,
                        closed_unanswered > 0, 5, closed_idle > 0, 6, closed_superseded > 0, 7, 8),
                (start_s, last_us), closes > 0))) AS closed_last,
            count() AS rows,
            (sum(opened), sum(joined)) AS life,
            (sum(closed_fin), sum(closed_reset_by_client), sum(closed_reset_by_server), sum(closed_refused),
             sum(closed_unanswered), sum(closed_idle), sum(closed_superseded), sum(closed_evicted)) AS closed,
            {sent} AS sent,
            {received} AS received,
            {samples},
            {client} AS client,
            {server} AS server,
            {service} AS service
        FROM (
            SELECT *, {DERIVED},
            {point} AS point,
            (primary AND ({filter})) AS counted
            FROM flows
            WHERE {RANGE} AND (id_kind != 'tuple_hash' AND bitShiftRight(connection_id, 32) IN {{isns:Array(UInt64)}}
                OR id_kind = 'tuple_hash' AND connection_id IN {{hashes:Array(UInt64)}})
        ) AS observed
        GROUP BY {key}, point, primary, counted, within
        ORDER BY primary DESC, counted DESC, within DESC, {key}, point
        LIMIT {limit} BY {key}",
        limit = MAX_OBSERVATION_ROWS + 1,
    )
}

/// Whether rows of one pair of ends were left out.
pub(crate) fn is_cut(rows_of_ends: usize) -> bool {
    rows_of_ends > MAX_OBSERVATION_ROWS
}

/// When the agents of some nodes did not see all, within `[since, until)`. An agent that reported at all has a
/// row for what comes after its last report, even if that is nothing. Records that were given up may be of any
/// time before the report that tells of them.
pub(crate) fn gaps() -> String {
    let range = format!("{RANGE} AND node IN {{nodes:Array(String)}}");
    format!(
        "SELECT toString(node) AS node, toString(agent) AS agent, toUInt8(reason) AS reason,
            toUInt32(gaps.from_s) AS from_s, toUInt32(gaps.to_s) AS to_s
        FROM (
            SELECT node, agent, 1 AS reason, greatest(reported_until, {{since:UInt32}}) AS from_s, start_s AS to_s
            FROM (
                SELECT node, agent, toUInt32(interval_start) AS start_s,
                    max(start_s + interval_s) OVER (PARTITION BY node, agent ORDER BY start_s
                        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reported_until
                FROM coverage WHERE {range}
            )
            WHERE from_s < to_s
            UNION ALL
            SELECT node, agent, 1, max(toUInt32(interval_start) + interval_s), {{until:UInt32}}
            FROM coverage WHERE {range} GROUP BY node, agent
            UNION ALL
            SELECT node, agent, 2, toUInt32(interval_start), toUInt32(interval_start) + interval_s
            FROM coverage WHERE {range} AND packets_dropped > 0
            UNION ALL
            SELECT node, agent, 3, {{since:UInt32}}, max(toUInt32(interval_start) + interval_s)
            FROM coverage WHERE {range} AND records_dropped > 0 GROUP BY node, agent
            UNION ALL
            SELECT node, agent, 4, toUInt32(interval_start), toUInt32(interval_start) + interval_s
            FROM flows WHERE {range} AND detail != 'flow' GROUP BY node, agent, interval_start, interval_s
        ) AS gaps
        ORDER BY node, agent, from_s, to_s, reason
        LIMIT {MAX_GAPS} BY node, agent"
    )
}

/// Who held some addresses, or some ports of every node, within `[since_us, until_us]`. The end of an
/// interval is as the table explains it.
pub(crate) fn ownerships() -> String {
    format!(
        "WITH (SELECT (groupArray(kind), groupArray(seen)) FROM (
            SELECT toInt8(kind) AS kind, toUnixTimestamp64Micro(max(last_seen)) AS seen FROM identities_seen GROUP BY kind
        )) AS seen_last
        SELECT
            address,
            port,
            uid,
            toInt8(held.kind) AS kind,
            namespace,
            name,
            toUnixTimestamp64Micro(start) AS start_us,
            multiIf(deleted_us != 0, deleted_us, released_us != 0 AND released_us >= last_seen_us, released_us, 0) AS end_us,
            multiIf(deleted_us != 0, deleted_us, end_us != 0, last_seen_us,
                greatest(last_seen_us, seen_last.2[indexOf(seen_last.1, toInt8(held.kind))])) AS certain_until_us
        FROM (
            SELECT *,
                toUnixTimestamp64Micro(deleted) AS deleted_us,
                toUnixTimestamp64Micro(released) AS released_us,
                toUnixTimestamp64Micro(last_seen) AS last_seen_us
            FROM identities
            WHERE address IN {{addresses:Array(IPv6)}} AND (port = 0 OR port IN {{ports:Array(UInt16)}})
        ) AS held
        WHERE start_us <= {{until_us:Int64}} AND (end_us = 0 OR end_us >= {{since_us:Int64}})
        ORDER BY address, port, start_us DESC, uid
        LIMIT {MAX_OWNERSHIPS} BY address, port"
    )
}

impl From<KeyColumns> for Key {
    fn from(columns: KeyColumns) -> Self {
        let (folded, hashed, shared, client_ip, client_port, server_ip, server_port) = columns;
        Self { folded, hashed, shared, client_ip, client_port, server_ip, server_port }
    }
}
