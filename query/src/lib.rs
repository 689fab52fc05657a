//! ClickHouse → graph → HTTP: answers who talked to whom, when, how much, and whether it worked, for
//! any window of the past.
//!
//! ```text
//! request ─ window ─ filter ─ sql ─ edges ─ graph ─ answer
//! ```
//!
//! [`Query`] is the service. [`Graph`] and its parts are what it answers, also for reading it.

mod answer;
mod coverage;
mod diff;
mod filter;
mod graph;
mod histogram;
mod http;
mod infinity;
mod metrics;
mod nodegraph;
mod params;
mod pipeline;
mod planner;
mod problem;
mod query;
mod reports;
mod sql;
mod store;
mod timeseries;
mod window;

pub use answer::{
    BlindReason, BlindSpot, Closed, Counters, Coverage, Duration, Edge, Graph, Latency, Node,
    StatValue, Traffic, Window,
};
pub use coverage::{AgentCoverage, CoverageSteps};
pub use diff::{Change, Diff, DiffCounts, DiffEdge, DiffWindow};
pub use problem::Problem;
pub use query::{Config, Query, QueryError};
pub use timeseries::{Point, Series, TimeSeries};
