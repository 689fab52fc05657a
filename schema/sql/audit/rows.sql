-- Rows: each chunk has as many rows in flows, and reports in coverage, as its delivery says; and no row
-- is of a chunk that was not delivered, but those of chunks that are under way. As far back as flows goes.
WITH
    touched AS
    (
        SELECT
            topic_id, partition, min(chunk_start) AS first_start, max(chunk_end) AS last_end,
            min(min_interval_start) AS first_interval, max(max_interval_start) AS last_interval
        FROM deliveries
        WHERE records > 0 AND max_interval_start >= toDateTime({from:UInt32}) AND min_interval_start < toDateTime({to:UInt32})
            AND min_interval_start >= toStartOfDay((SELECT min(interval_start) FROM flows))
        GROUP BY topic_id, partition
    ),
    said AS
    (
        SELECT topic_id, partition, chunk_start, sum(records) AS rows, sum(coverage_reports) AS reports
        FROM deliveries INNER JOIN touched USING (topic_id, partition)
        WHERE chunk_end > first_start AND chunk_start < last_end
        GROUP BY topic_id, partition, chunk_start
    ),
    there AS
    (
        SELECT topic_id, partition, chunk_start, countIf(source = 'flows') AS rows, countIf(source = 'coverage') AS reports
        FROM
        (
            SELECT 'flows' AS source, toString(topic_id) AS topic_id, partition, chunk_start
            FROM flows
            WHERE interval_start BETWEEN (SELECT min(first_interval) FROM touched) AND (SELECT max(last_interval) FROM touched)
            UNION ALL
            SELECT 'coverage' AS source, toString(topic_id) AS topic_id, partition, chunk_start
            FROM coverage
            WHERE interval_start BETWEEN (SELECT min(first_interval) FROM touched) - INTERVAL 8 DAY AND (SELECT max(last_interval) FROM touched) + INTERVAL 8 DAY
        ) AS both
        INNER JOIN touched USING (topic_id, partition)
        WHERE chunk_start >= first_start AND chunk_start < last_end
        GROUP BY topic_id, partition, chunk_start
    )
SELECT
    if(there.rows > said.rows OR there.reports > said.reports, 'duplicate', 'missing') AS problem,
    concat('topic ', topic_id, ' partition ', toString(partition), ' chunk ', toString(chunk_start)) AS place,
    concat('flows has ', toString(there.rows), ' rows of ', toString(said.rows), ', coverage ', toString(there.reports), ' of ', toString(said.reports)) AS detail
FROM (SELECT toString(topic_id) AS topic_id, partition, chunk_start, rows, reports FROM said) AS said
FULL JOIN there USING (topic_id, partition, chunk_start)
WHERE said.rows != there.rows OR said.reports != there.reports
ORDER BY topic_id, partition, chunk_start
