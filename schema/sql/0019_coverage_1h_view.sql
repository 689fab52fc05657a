-- Feeds coverage_1h with what is inserted into coverage.
CREATE MATERIALIZED VIEW IF NOT EXISTS coverage_1h_view TO coverage_1h AS
SELECT
    toStartOfHour(interval_start) AS start,
    agent,
    max(interval_start + interval_s) AS reported_until,
    groupBitmapState(toUInt16(interval_start - toStartOfHour(interval_start))) AS intervals,
    sum(coverage.packets_dropped) AS packets_dropped,
    sum(coverage.records_dropped) AS records_dropped
FROM coverage
GROUP BY start, agent
