-- Rollups: edges_1m and edges_1h hold what the primary rows of flows add up to, for each pair of workloads and
-- hour of the window, widened to hours, as far back as flows goes. Asked for each with its table, column and seconds.
WITH
    greatest(toStartOfHour(toDateTime({from:UInt32})), toStartOfDay((SELECT min(interval_start) FROM flows))) AS first_hour,
    toStartOfHour(toDateTime({to:UInt32} + 3599)) AS end_hour,
    raw AS
    (
        SELECT
            toStartOfHour(interval_start) AS at,
            client_namespace, client_workload, server_namespace, server_workload,
            (count(), sum(sent_bytes), sum(received_bytes), sum(sent_packets), sum(received_packets), sum(opened), sum(joined),
             sumIf(open_at_start, interval_start = toStartOfInterval(interval_start, toIntervalSecond({seconds:UInt32}))),
             sum(closed_fin + closed_reset_by_client + closed_reset_by_server + closed_refused + closed_unanswered + closed_idle + closed_superseded + closed_evicted),
             sum(duration_us), sum(syn_to_synack_us)) AS sums
        FROM flows
        WHERE primary AND interval_start >= first_hour AND interval_start < end_hour
        GROUP BY at, client_namespace, client_workload, server_namespace, server_workload
    ),
    rolled AS
    (
        SELECT
            toStartOfHour({time:Identifier}) AS at,
            client_namespace, client_workload, server_namespace, server_workload,
            (sum(records), sum(sent_bytes), sum(received_bytes), sum(sent_packets), sum(received_packets), sum(opened), sum(joined),
             sum(open_at_start),
             sum(closed_fin + closed_reset_by_client + closed_reset_by_server + closed_refused + closed_unanswered + closed_idle + closed_superseded + closed_evicted),
             sum(duration_us), sum(syn_to_synack_us)) AS sums
        FROM {table:Identifier}
        WHERE {time:Identifier} >= first_hour AND {time:Identifier} < end_hour
        GROUP BY at, client_namespace, client_workload, server_namespace, server_workload
    )
SELECT
    'rollup' AS problem,
    concat({table:String}, ' ', formatDateTime(at, '%FT%TZ'), ' ', client_namespace, '/', client_workload, ' to ', server_namespace, '/', server_workload) AS place,
    concat('(rows, bytes sent, received, packets sent, received, opened, joined, open at start, closed, duration, latency) ', toString(rolled.sums), ', flows has ', toString(raw.sums)) AS detail
FROM raw FULL JOIN rolled USING (at, client_namespace, client_workload, server_namespace, server_workload)
WHERE raw.sums != rolled.sums
ORDER BY place
