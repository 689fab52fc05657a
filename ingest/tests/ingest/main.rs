//! Ingest against a real engine, over a channel and over librdkafka's mock of a Kafka cluster; and its
//! names against doubles of the Kubernetes API and of the Docker Engine API.

#[cfg(test)]
mod audit;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod common;
#[cfg(test)]
mod containers;
#[cfg(test)]
mod docker;
#[cfg(test)]
mod edge_metrics;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod kafka;
#[cfg(test)]
mod kubernetes;
#[cfg(test)]
mod names;
#[cfg(test)]
mod pipeline;
#[cfg(test)]
mod pods;
#[cfg(test)]
mod role;
#[cfg(test)]
mod store;
#[cfg(test)]
mod watch;
