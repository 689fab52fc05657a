//! The agent against the real kernel (network namespaces: needs root) and librdkafka's mock cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is the failing assertion, in helpers too"
)]

mod files;
mod fuzz_corpus;
mod golden;
mod group;
mod interfaces;
mod json;
mod kafka;
mod live;
mod privilege;
mod sockets;
mod support;
