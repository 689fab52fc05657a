-- Offsets, and with them chunks, are a topic's own: a topic made anew counts from 0 again.
ALTER TABLE flows ADD COLUMN IF NOT EXISTS topic_id LowCardinality(String) COMMENT 'topic that partition and chunk_start are of' AFTER duration_max_us
