//! What `make bench-query` is made of: a month of a cluster's traffic in the tables, graphs asked of it
//! over HTTP as a dashboard asks, and what that took and read.
//!
//! ```text
//!  history (flows.sql, coverage.sql) ── engine ─┬─ law (graphs are what the rows add up to)
//!                                               ├─ rounds (question → `flowtrail query`; caches; events) ─┐
//!                                               ├─ overhead (what the service adds to ClickHouse's time) ─┤
//!                                               ├─ dashboards (fifty people look at some) ────────────────┤
//!                                               └─ disk (bytes of each column) ───────────────────────────┴─ verdict
//! ```

pub mod caches;
pub mod dashboards;
pub mod disk;
pub mod events;
pub mod history;
pub mod law;
pub mod overhead;
pub mod question;
pub mod rounds;
