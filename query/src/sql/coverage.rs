//! Questions about what there is: agents' reports, how long intervals are, and since when tables are whole.

use clickhouse::Row;
use serde::Deserialize;

/// One agent's reports.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct CoverageRow {
    pub(crate) agent: String,
    /// End of the latest interval it reported on, near the window, seconds since the epoch.
    pub(crate) reported_until_s: u64,
    /// Intervals of the window it reported on.
    pub(crate) intervals: u64,
    pub(crate) packets_dropped: u64,
    pub(crate) records_dropped: u64,
    /// It reported before the window too.
    pub(crate) before: bool,
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

/// The time now, and of the earliest row of each tier, from the finest on; 0 without rows.
pub(crate) const EARLIEST: &str = "
    SELECT
        toUInt32(now()),
        toUInt32(assumeNotNull((SELECT min(interval_start) FROM flows))),
        toUInt32(assumeNotNull((SELECT min(start) FROM edges_1m))),
        toUInt32(assumeNotNull((SELECT min(start) FROM edges_1h))),
        toUInt32(assumeNotNull((SELECT min(start) FROM edges_1d))),
        toUInt32(assumeNotNull((SELECT min(start) FROM edges_1w)))";

/// Each agent that reported in `[since, until)`, or by the hour since `known_since` and before the window, with its reports on `[from, to)`: of whole hours from
/// `first_hour` to `end_hour` as they are summed, of the rest one by one. Reports from the future are a
/// wrong clock's: the others are not late because of them.
pub(crate) const COVERAGE: &str = "
    SELECT
        toString(agent) AS agent,
        max(until_s) AS reported_until_s,
        sum(reported) AS intervals,
        sum(packets) AS packets_dropped,
        sum(records) AS records_dropped,
        toBool(max(earlier)) AS before
    FROM (
        SELECT
            agent,
            toUInt64(max(toUInt32(interval_start) + interval_s)) AS until_s,
            uniqExactIf(interval_start, within) AS reported,
            sumIf(packets_dropped, within) AS packets,
            sumIf(records_dropped, within) AS records,
            min(interval_start) < toDateTime({from:UInt32}, 'UTC') AS earlier
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
            sum(records) AS records,
            toUInt8(0) AS earlier
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
        UNION ALL
        SELECT DISTINCT agent, toUInt64(0) AS until_s, toUInt64(0) AS reported, toUInt64(0) AS packets, toUInt64(0) AS records,
            toUInt8(1) AS earlier
        FROM (
            SELECT agent, toUInt32(start) + bitmapMin(groupBitmapMergeState(coverage_1h.intervals)) AS first_s
            FROM coverage_1h
            WHERE start >= toDateTime({known_since:UInt32}, 'UTC') AND start < toDateTime({from:UInt32}, 'UTC')
            GROUP BY agent, start
        )
        WHERE first_s < {from:UInt32}
    )
    GROUP BY agent";
