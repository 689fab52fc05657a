//! ClickHouse's HTTP interface over libchdb, so that one client path serves the embedded engine, a
//! server and a cluster.
//!
//! A request's way: `http` (admission, headers) → `request` (what it asks) → `statement` (rows out,
//! rows in, or neither) → `access` (who asks) → `session` (a connection with its settings) → `query`, `insert`
//! or `command` → `libchdb`.

mod access;
mod command;
mod compression;
mod config;
mod engine;
mod exception;
mod http;
mod insert;
mod libchdb;
mod metrics;
mod native;
mod query;
mod request;
mod session;
mod statement;

pub use access::{Access, Login};
pub use config::{Config, ENGINE_VERSION};
pub use engine::{Engine, EngineError};
pub use http::serve;
