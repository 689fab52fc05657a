-- Agents' numbers: within the window's chunks each number of (agent, start, partition) comes once, and
-- none is left out between the first and the last.
WITH
    touched AS
    (
        SELECT topic_id, partition, min(chunk_start) AS first_start, max(chunk_end) AS last_end
        FROM deliveries
        WHERE records > 0 AND max_interval_start >= toDateTime({from:UInt32}) AND min_interval_start < toDateTime({to:UInt32})
        GROUP BY topic_id, partition
    ),
    numbers AS
    (
        SELECT
            topic_id, partition, batches.agent AS agent, batches.agent_start AS agent_start, batches.sequence AS sequence,
            lagInFrame(toNullable(batches.sequence)) OVER
                (PARTITION BY topic_id, partition, batches.agent, batches.agent_start ORDER BY batches.sequence ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS previous
        FROM deliveries
        INNER JOIN touched USING (topic_id, partition)
        ARRAY JOIN batches
        WHERE chunk_end > first_start AND chunk_start < last_end
    )
SELECT
    if(sequence = previous, 'duplicate', 'gap') AS problem,
    concat('agent ', agent, ' started ', formatDateTime(agent_start, '%FT%TZ'), ', partition ', toString(partition)) AS place,
    if(sequence = previous,
        concat('batch ', toString(sequence), ' was accepted twice'),
        concat('batches ', toString(assumeNotNull(previous) + 1), ' to ', toString(sequence - 1), ' never came')
    ) AS detail
FROM numbers
WHERE previous IS NOT NULL AND sequence != previous + 1
ORDER BY agent, agent_start, partition, sequence
