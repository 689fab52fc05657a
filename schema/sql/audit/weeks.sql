-- Rollups of weeks: each holds what those of days add up to, for each pair of workloads and week (from Monday on) that
-- the window touches. Days are what rollups.sql holds against flows, of which a whole week may be gone, and is much to
-- read. Weeks go by the month that they begin in: what is left of days from before the earliest week is nobody's.
WITH
    greatest(toDateTime(toMonday(toDateTime({from:UInt32}, 'UTC')), 'UTC'), (SELECT min(start) FROM {table:Identifier})) AS first,
    addWeeks(toDateTime(toMonday(toDateTime({to:UInt32} - 1, 'UTC')), 'UTC'), 1) AS end,
    summed AS
    (
        SELECT
            toDateTime(toMonday(start), 'UTC') AS at,
            client_namespace, client_workload, server_namespace, server_workload,
            (sum(records), sum(sent_bytes), sum(received_bytes), sum(sent_packets), sum(received_packets), sum(opened), sum(joined),
             sumIf(open_at_start, start = at),
             sum(closed_fin + closed_reset_by_client + closed_reset_by_server + closed_refused + closed_unanswered + closed_idle + closed_superseded + closed_evicted),
             sum(duration_us), sum(syn_to_synack_us), toUInt64(arraySum(mapValues(sumMap(first_response_buckets))))) AS sums
        FROM {days:Identifier}
        WHERE start >= first AND start < end
        GROUP BY at, client_namespace, client_workload, server_namespace, server_workload
    ),
    rolled AS
    (
        SELECT
            start AS at,
            client_namespace, client_workload, server_namespace, server_workload,
            (sum(records), sum(sent_bytes), sum(received_bytes), sum(sent_packets), sum(received_packets), sum(opened), sum(joined),
             sum(open_at_start),
             sum(closed_fin + closed_reset_by_client + closed_reset_by_server + closed_refused + closed_unanswered + closed_idle + closed_superseded + closed_evicted),
             sum(duration_us), sum(syn_to_synack_us), toUInt64(arraySum(mapValues(sumMap(first_response_buckets))))) AS sums
        FROM {table:Identifier}
        WHERE start >= first AND start < end
        GROUP BY at, client_namespace, client_workload, server_namespace, server_workload
    )
SELECT
    'rollup' AS problem,
    concat({table:String}, ' ', formatDateTime(at, '%FT%TZ'), ' ', client_namespace, '/', client_workload, ' to ', server_namespace, '/', server_workload) AS place,
    concat('(rows, bytes sent, received, packets sent, received, opened, joined, open at start, closed, duration, latency, first responses) ', toString(rolled.sums), ', ', {days:String}, ' has ', toString(summed.sums)) AS detail
FROM summed FULL JOIN rolled USING (at, client_namespace, client_workload, server_namespace, server_workload)
WHERE summed.sums != rolled.sums
ORDER BY place
