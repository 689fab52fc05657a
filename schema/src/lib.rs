//! The contract between Flowtrail's processes: what capture publishes, what ingest writes and what
//! query reads. No I/O and nothing internal is used here; every other crate depends on this one.
//!
//! ```text
//! FlowRecord ─┐
//! Coverage   ─┼─ FlowBatch ── wire ── topic (partition) ── FlowRow ── sql
//! Announced  ─┘
//! ```

pub mod batch;
pub mod connection_id;
pub mod interval;
pub mod record;
pub mod row;
pub mod sql;
pub mod topic;
pub mod wire;

pub use batch::{Coverage, FlowBatch};
pub use record::{
    Closed, Counters, Detail, Endpoint, FlowRecord, IdKind, Interface, InterfaceKind, Measure,
    Reporter,
};
