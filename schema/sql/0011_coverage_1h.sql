-- What coverage tells of each hour and agent: long windows need no more.
CREATE TABLE IF NOT EXISTS coverage_1h
(
    start           DateTime('UTC') COMMENT 'start of the hour' CODEC(DoubleDelta, ZSTD(1)),
    agent           LowCardinality(String),
    reported_until  SimpleAggregateFunction(max, DateTime('UTC')) COMMENT 'end of the latest interval reported on' CODEC(DoubleDelta, ZSTD(1)),
    intervals       AggregateFunction(groupBitmap, UInt16) COMMENT 'starts of the intervals reported on, seconds after the hour''s' CODEC(ZSTD(1)),
    packets_dropped SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    records_dropped SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(start)
ORDER BY (start, agent)
TTL start + INTERVAL 2 YEAR
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000
