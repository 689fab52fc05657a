-- Offset ranges: each chunk of a partition must begin where the one before it ended, the first at 0.
-- Of each partition all chunks are looked at between the first and the last that touch the window.
WITH
    touched AS
    (
        SELECT topic_id, partition, min(chunk_start) AS first_start, max(chunk_end) AS last_end
        FROM deliveries
        WHERE records > 0 AND max_interval_start >= toDateTime({from:UInt32}) AND min_interval_start < toDateTime({to:UInt32})
        GROUP BY topic_id, partition
    ),
    before AS
    (
        SELECT topic_id, partition, max(chunk_end) AS end_before
        FROM deliveries INNER JOIN touched USING (topic_id, partition)
        WHERE chunk_end <= first_start
        GROUP BY topic_id, partition
    ),
    chunks AS
    (
        SELECT
            topic, topic_id, partition, chunk_start, chunk_end, lost_offsets,
            lagInFrame(chunk_end, 1, end_before) OVER
                (PARTITION BY topic_id, partition ORDER BY chunk_start, chunk_end ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS expected
        FROM deliveries
        INNER JOIN touched USING (topic_id, partition)
        LEFT JOIN before USING (topic_id, partition)
        WHERE chunk_end > first_start AND chunk_start < last_end
    )
SELECT
    multiIf(chunk_start > expected, 'gap', chunk_start < expected, 'duplicate', 'lost') AS problem,
    concat('topic ', topic, ' (', topic_id, ') partition ', toString(partition)) AS place,
    multiIf(
        chunk_start > expected, concat('offsets ', toString(expected), ' to ', toString(chunk_start - 1), ' are of no chunk'),
        chunk_start < expected, concat('offsets ', toString(chunk_start), ' to ', toString(least(expected, chunk_end) - 1), ' are of two chunks'),
        concat('of offsets ', toString(chunk_start), ' to ', toString(chunk_end - 1), ', ', toString(lost_offsets), ' were gone from Kafka before they were read')
    ) AS detail
FROM chunks
WHERE chunk_start != expected OR lost_offsets > 0
ORDER BY topic_id, partition, chunk_start
