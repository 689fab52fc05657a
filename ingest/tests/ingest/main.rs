//! Ingest against a real engine: over a channel, and over librdkafka's mock of a Kafka cluster.

mod common;
mod kafka;
mod pipeline;
