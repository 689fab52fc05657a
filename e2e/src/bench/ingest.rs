//! What `make bench-ingest` is made of: a cluster that is the same every time, what its agents say, and
//! how fast that is in the table, beside how fast the engine alone takes the same rows.
//!
//! ```text
//!  world (pods, names) ── traffic (batches) ─┬─ topic (a real broker) ── pipeline (`flowtrail ingest`) ─┐
//!                                            │                                  limit (a Native file) ──┼─ verdict
//!                                            └─ file ─────────────────────────── encode (one core) ─────┘
//! ```

pub mod encode;
pub mod limit;
pub mod pipeline;
pub mod store;
pub mod topic;
pub mod traffic;
pub mod world;
