//! Whole-system tests and the demo: a pod-like network of namespaces, real programs that talk real
//! TCP in it, and what Flowtrail must say about them.
//!
//! ```text
//! lab (namespaces, veth) ── cluster (pods, Services, nftables) ── traffic (clients, counters)
//!                                                                      └── workload (the programs)
//!      scenario (start, stop, judge) ── expectation (edges, exact bytes)
//! ```

pub mod bench;
pub mod broker;
pub mod cluster;
pub mod expectation;
pub mod faults;
pub mod flowtrail;
pub mod golden;
pub mod lab;
pub mod names;
pub mod program;
pub mod published;
pub mod relay;
pub mod scenario;
pub mod store;
pub mod traffic;
pub mod workload;
