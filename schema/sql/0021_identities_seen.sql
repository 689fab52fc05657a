-- When all objects of a kind in identities that have no end were last known for certain to be there.
CREATE TABLE IF NOT EXISTS identities_seen
(
    kind      Enum8('pod' = 1, 'service' = 2, 'node' = 3),
    last_seen SimpleAggregateFunction(max, DateTime64(6, 'UTC'))
)
ENGINE = AggregatingMergeTree
ORDER BY kind
