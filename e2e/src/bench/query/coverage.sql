-- Reports {first}, {first} + 1, … of 50 agents that are up all the time: one for each interval of 10 s.
-- {start}: the history's first second, on an interval.
INSERT INTO coverage
(
    interval_start, interval_s, node, agent, agent_start, interfaces, packets_seen, records_emitted, topic_id
)
SELECT
    toDateTime({start:UInt32} + intDiv(number, 50) * 10, 'UTC'),
    10,
    'node-' || leftPad(toString(number % 50), 2, '0') || '.cluster.example' AS agent_,
    agent_,
    toDateTime64({start:UInt32}, 6, 'UTC'),
    42,
    1000 + cityHash64(number) % 1000,
    10 + cityHash64(number, 1) % 10,
    'history'
FROM numbers_mt({first:UInt64}, {count:UInt64})
