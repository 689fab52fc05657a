-- One row for each chunk [chunk_start, chunk_end) of a partition that is in the tables, written last:
-- its presence means done. Agents' sequence numbers against offset ranges prove that nothing is missing.
CREATE TABLE IF NOT EXISTS deliveries
(
    topic              LowCardinality(String),
    topic_id           LowCardinality(String) COMMENT 'tells a topic from a later one of the same name',
    partition          UInt32,
    chunk_start        UInt64 COMMENT 'first offset',
    chunk_end          UInt64 COMMENT 'first offset after the chunk',
    token              String COMMENT 'deduplication token of its inserts',
    min_interval_start DateTime('UTC') COMMENT 'earliest interval in the chunk; 0 without records',
    max_interval_start DateTime('UTC'),
    records            UInt64 COMMENT 'rows written to flows',
    coverage_reports   UInt64 COMMENT 'rows written to coverage',
    batches            Nested(agent LowCardinality(String), agent_start DateTime64(6, 'UTC'), sequence UInt64, records UInt32),
    rejected           Nested(reason LowCardinality(String), count UInt64),
    lost_offsets       UInt64 COMMENT 'offsets that Kafka no longer had',
    duplicate_batches  UInt64 COMMENT 'batches seen before, dropped',
    inserted_at        DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(inserted_at)
ORDER BY (topic, topic_id, partition, chunk_start)
TTL toDateTime(inserted_at) + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 10000
