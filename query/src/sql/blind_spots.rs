//! What the agents that reported did not see.

use clickhouse::Row;
use serde::Deserialize;

/// When an agent was blind. Times are seconds since the epoch; the lists are in order of time.
#[derive(Clone, Debug, Row, Deserialize)]
pub(crate) struct BlindRow {
    pub(crate) agent: String,
    /// Its node; empty if no report was read that says so.
    pub(crate) node: String,
    /// Without report: from and to.
    pub(crate) holes: Vec<(u32, u32)>,
    /// With drops: from, to, packets, records.
    pub(crate) drops: Vec<(u32, u32, u64, u64)>,
}

impl BlindRow {
    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let names = self.agent.len() + self.node.len();
        size_of::<Self>() + names + size_of_val(&*self.holes) + size_of_val(&*self.drops)
    }
}

/// The holes in each agent's reports on `[from, due)`, and when it dropped something. Of whole hours, from
/// `first_hour` to `end_hour`, the bitmaps say which intervals were reported on, to the interval; what was
/// dropped is known by the hour. Each list has at most `listed` entries.
pub(crate) const BLIND_SPOTS: &str = "
    SELECT
        agent,
        named AS node,
        arraySlice(
            arrayFilter(
                hole -> hole.2 > hole.1,
                arrayMap(
                    (end, next) -> (end, next),
                    arrayPushFront(arrayMap(span -> span.2, seen), {from:UInt32}),
                    arrayPushBack(arrayMap(span -> span.1, seen), {due:UInt32})
                )
            ),
            1, {listed:UInt32}
        ) AS holes,
        arraySlice(
            arrayMap(
                run -> (run[1].1, run[-1].2, arraySum(span -> span.3, run), arraySum(span -> span.4, run)),
                arraySplit(
                    (span, before) -> span.1 != before,
                    dropping,
                    arrayPopBack(arrayPushFront(arrayMap(span -> span.2, dropping), toUInt32(0)))
                )
            ),
            1, {listed:UInt32}
        ) AS drops
    FROM (
        SELECT
            agent,
            max(of_node) AS named,
            arraySort(groupUniqArrayArray(spans)) AS seen,
            arraySort(groupArrayIf((from_s, to_s, packets, records), packets + records > 0)) AS dropping
        FROM (
            SELECT
                toString(coverage.agent) AS agent,
                toString(coverage.node) AS of_node,
                toUInt32(interval_start) AS from_s,
                toUInt32(from_s + interval_s) AS to_s,
                [(from_s, to_s)] AS spans,
                coverage.packets_dropped AS packets,
                coverage.records_dropped AS records
            FROM coverage
            WHERE (interval_start >= toDateTime({from:UInt32}, 'UTC') AND interval_start < toDateTime({fringe_end:UInt32}, 'UTC'))
                OR (interval_start >= toDateTime({fringe_start:UInt32}, 'UTC') AND interval_start < toDateTime({due:UInt32}, 'UTC'))
            UNION ALL
            SELECT
                agent,
                '' AS of_node,
                hour AS from_s,
                toUInt32(hour + 3600) AS to_s,
                if(
                    length(offsets) * {interval:UInt32} >= 3600,
                    [(hour, to_s)],
                    arrayMap(offset -> (toUInt32(hour + offset), toUInt32(hour + offset + {interval:UInt32})), offsets)
                ) AS spans,
                packets,
                records
            FROM (
                SELECT
                    toString(coverage_1h.agent) AS agent,
                    toUInt32(start) AS hour,
                    bitmapToArray(groupBitmapMergeState(coverage_1h.intervals)) AS offsets,
                    sum(coverage_1h.packets_dropped) AS packets,
                    sum(coverage_1h.records_dropped) AS records
                FROM coverage_1h
                WHERE start >= toDateTime({first_hour:UInt32}, 'UTC') AND start < toDateTime({end_hour:UInt32}, 'UTC')
                GROUP BY agent, hour
            )
        )
        GROUP BY agent
    )
    WHERE notEmpty(holes) OR notEmpty(drops)";
