-- As in flows: what partition and chunk_start are of.
ALTER TABLE coverage ADD COLUMN IF NOT EXISTS topic_id LowCardinality(String) COMMENT 'topic that partition and chunk_start are of' AFTER announced_addresses
