//! Plumbing that every Flowtrail service shares, deliberately small: configuration, telemetry, the
//! admin port, serving HTTP, shutdown, and the way to ClickHouse.

pub mod admin;
pub mod audit;
pub mod config;
pub mod instant;
pub mod kafka;
pub mod metrics;
pub mod net;
pub mod secret;
pub mod serve;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod tls;
