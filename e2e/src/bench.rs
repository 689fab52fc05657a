//! What `make bench-capture` is made of: packets that are the same every time, programs run side by
//! side on one core, and what they used. `ingest` is what `make bench-ingest` is made of, `query` what
//! `make bench-query` is.
//!
//! ```text
//!  trace (connections in time) ── pcap (frames in a file) ── speed, memory, flood (measure: a program)
//!                             └── frame (bytes) ──────────── live (a veth pair, two cores)
//!                                                              └── verdict (goal, figure, met or not)
//! ```

pub mod flood;
pub mod frame;
pub mod ingest;
pub mod live;
pub mod measure;
pub mod memory;
pub mod pcap;
pub mod query;
pub mod sender;
pub mod speed;
pub mod trace;
pub mod verdict;
