//! Ingest against a real engine, over a channel and over librdkafka's mock of a Kafka cluster; and its
//! names against a double of the Kubernetes API.

#[cfg(test)]
mod audit;
#[cfg(test)]
mod common;
mod engine;
#[cfg(test)]
mod kafka;
#[cfg(test)]
mod pipeline;
#[cfg(test)]
mod store;
#[cfg(test)]
mod watch;
