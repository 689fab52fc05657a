//! The interface as its clients see it, over a real engine: the `clickhouse` crate with its
//! defaults, and plain HTTP.

// Helpers of tests, where a panic is the failing assertion.
#![allow(clippy::unwrap_used, clippy::panic)]

mod client;
mod common;
mod errors;
mod native;
mod plain;
