-- Rollups: each holds what the primary rows of flows add up to, for each pair of workloads and hour (or day, if its
-- rows are of days) of the window, widened to these, as far back as flows goes. Asked for each with its table and seconds.
WITH
    greatest({seconds:UInt32}, 3600) AS step,
    greatest(toDateTime(intDiv({from:UInt32}, step) * step), toStartOfDay((SELECT min(interval_start) FROM flows))) AS first,
    toDateTime(intDiv({to:UInt32} + step - 1, step) * step) AS end,
    raw AS
    (
        SELECT
            toDateTime(intDiv(toUInt32(interval_start), step) * step) AS at,
            client_namespace, client_workload, server_namespace, server_workload,
            (count(), sum(sent_bytes), sum(received_bytes), sum(sent_packets), sum(received_packets), sum(opened), sum(joined),
             sumIf(open_at_start, toUInt32(interval_start) % {seconds:UInt32} = 0),
             sum(closed_fin + closed_reset_by_client + closed_reset_by_server + closed_refused + closed_unanswered + closed_idle + closed_superseded + closed_evicted),
             sum(duration_us), sum(syn_to_synack_us), sum(first_response_count)) AS sums
        FROM flows
        WHERE primary AND interval_start >= first AND interval_start < end
        GROUP BY at, client_namespace, client_workload, server_namespace, server_workload
    ),
    rolled AS
    (
        SELECT
            toDateTime(intDiv(toUInt32(start), step) * step) AS at,
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
    concat('(rows, bytes sent, received, packets sent, received, opened, joined, open at start, closed, duration, latency, first responses) ', toString(rolled.sums), ', flows has ', toString(raw.sums)) AS detail
FROM raw FULL JOIN rolled USING (at, client_namespace, client_workload, server_namespace, server_workload)
WHERE raw.sums != rolled.sums
ORDER BY place
