//! Whole-system tests and the demo: a pod-like network of namespaces, real programs that talk real
//! TCP in it, and what Flowtrail must say about them.
//!
//! ```text
//! lab (namespaces, veth, bridges, nftables) ── workload (programs) ── names (kubectl's List)
//!                         └── flowtrail up (lab::Node::command) ── expectation (edges, exact bytes)
//! ```

pub mod broker;
pub mod cluster;
pub mod expectation;
pub mod flowtrail;
pub mod lab;
pub mod names;
pub mod relay;
pub mod workload;
