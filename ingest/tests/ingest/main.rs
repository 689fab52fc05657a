//! Ingest against a real engine, over a channel and over librdkafka's mock of a Kafka cluster; and its
//! names against a double of the Kubernetes API.

#[cfg(test)]
mod audit;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod common;
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
