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
mod call;
mod connections;
mod coverage;
mod diff;
mod expression;
mod filter;
mod graph;
mod histogram;
mod http;
mod infinity;
mod metrics;
mod nodegraph;
mod openapi;
mod params;
mod pipeline;
mod planner;
mod problem;
mod query;
mod reports;
mod scope;
mod shared;
mod sql;
mod store;
mod timeseries;
mod values;
mod window;

pub use access::TokenFileError;
pub use answer::{
    BlindReason, BlindSpot, Closed, Counters, Coverage, Duration, Edge, Graph, Latency, Node,
    StatValue, Traffic, Window,
};
pub use connections::{
    Comparison, Connection, Connections, Difference, Direction, Disagreement, End, GapKind,
    Latencies, Observation, Obstacle, Ownership, Side, Start, State, Verdict,
};
pub use coverage::{AgentCoverage, CoverageSteps};
pub use diff::{Change, Diff, DiffCounts, DiffEdge, DiffWindow};
pub use expression::{Expression, ExpressionError};
pub use problem::Problem;
pub use query::{Config, Query, QueryError};
pub use timeseries::{Point, Series, TimeSeries};
pub use values::{Value, Values};
