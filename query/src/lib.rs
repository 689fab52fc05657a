//! ClickHouse → graph → HTTP: answers who talked to whom, when, how much, and whether it worked, for
//! any window of the past.
//!
//! ```text
//! request ─ window ─ filter ─ sql ─ edges ─ graph ─ answer
//! ```
//!
//! [`Query`] is the service. [`Graph`] and its parts are what it answers, also for reading it.

mod access;
mod answer;
mod filter;
mod graph;
mod histogram;
mod http;
mod metrics;
mod nodegraph;
mod openapi;
mod params;
mod pipeline;
mod planner;
mod problem;
mod query;
mod scope;
mod sql;
mod store;
mod window;

pub use access::TokenFileError;
pub use answer::{
    Closed, Counters, Coverage, Duration, Edge, Graph, Latency, Node, Traffic, Window,
};
pub use problem::Problem;
pub use query::{Config, Query, QueryError};
