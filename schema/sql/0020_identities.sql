-- Who owned an address (or a port of one, or a node port) from when to when, as ingest learned it from
-- Kubernetes: the widest interval that any ingest saw. Rows of one key merge. Read it with FINAL.
-- The end: `deleted` if set; else `released` if set and not before `last_seen`; else it is held still, for
-- certain until `last_seen` or, if that is later, the `last_seen` of its kind in identities_seen.
CREATE TABLE IF NOT EXISTS identities
(
    address       IPv6 COMMENT 'IPv4 mapped; :: for a port of every node (NodePort)' CODEC(ZSTD(1)),
    port          UInt16 COMMENT 'of a hostNetwork pod, a host port or a NodePort; 0 for the whole address' CODEC(ZSTD(1)),
    uid           String COMMENT 'of the Kubernetes object' CODEC(ZSTD(1)),
    kind          SimpleAggregateFunction(anyLast, Enum8('pod' = 1, 'service' = 2, 'node' = 3)),
    namespace     SimpleAggregateFunction(anyLast, String) CODEC(ZSTD(1)),
    name          SimpleAggregateFunction(anyLast, String) CODEC(ZSTD(1)),
    node          SimpleAggregateFunction(anyLast, String) COMMENT 'node that the pod runs on' CODEC(ZSTD(1)),
    workload      SimpleAggregateFunction(anyLast, String) COMMENT 'top owner; of a Service, that of its endpoints' CODEC(ZSTD(1)),
    workload_kind SimpleAggregateFunction(anyLast, String) CODEC(ZSTD(1)),
    ports         SimpleAggregateFunction(anyLast, Array(UInt16)) COMMENT 'Service or container ports' CODEC(ZSTD(1)),
    start         SimpleAggregateFunction(min, DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    last_seen     SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'when it was last known for certain to be held' CODEC(ZSTD(1)),
    released      SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'when it was given up, or the object found missing; 0 if not' CODEC(ZSTD(1)),
    deleted       SimpleAggregateFunction(max, DateTime64(6, 'UTC')) COMMENT 'when the object was deleted or finished; 0 if not' CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
ORDER BY (address, port, uid)
TTL toDateTime(greatest(last_seen, released, deleted)) + INTERVAL 90 DAY
