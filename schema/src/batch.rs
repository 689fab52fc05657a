//! `FlowBatch`: what one agent says to one partition, one Kafka message.

use std::net::IpAddr;
use std::sync::Arc;

use crate::interval::Interval;
use crate::record::FlowRecord;

/// Records at most in one batch: with about 100 bytes each it stays well below Kafka's default
/// message limit of 1 MiB.
pub const MAX_RECORDS: usize = 1_000;

/// Reports at most in one batch: an hour of 10 s intervals, which is what an agent keeps for a
/// partition that it cannot reach. Their rows repeat the announced addresses.
pub const MAX_REPORTS: usize = 360;

/// Addresses announced at most in one batch: an agent announces a handful for each interface, and no
/// node has a thousand of these.
pub const MAX_ANNOUNCED_ADDRESSES: usize = 10_000;

/// Bytes at most of an agent's, node's or interface's name: Kubernetes' limit for a node's (RFC 1123).
/// Every row repeats them.
pub const MAX_NAME_BYTES: usize = 253;

/// Seconds at most between the earliest and the latest interval of one batch, and of one insert: each
/// day is a table partition of its own, and ClickHouse refuses a block of more than 100.
pub const MAX_SPAN_S: u64 = 8 * 86_400;

/// What one agent says to one partition: records, its reports, and the addresses it announces.
///
/// Every agent sends a batch to every partition in every interval, so that silence means something.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowBatch {
    /// Stable name of the agent, by default its node's.
    pub agent: Arc<str>,
    /// The node (or host) that the agent watches.
    pub node: Arc<str>,
    /// Start id: when the agent's process started, microseconds since the epoch.
    pub agent_start_us: u64,
    /// The partition this batch was made for.
    pub partition: u32,
    /// Counts the batches of (agent, start, partition) from 0, without gaps.
    pub sequence: u64,
    /// At most [`MAX_RECORDS`].
    pub records: Vec<FlowRecord>,
    /// The agent's reports on intervals that ended since its last batch to this partition.
    pub coverage: Vec<Coverage>,
    /// Addresses whose client side this agent observes.
    pub announced_addresses: Vec<IpAddr>,
}

/// An agent's report on one interval. That it is missing is information too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The interval reported on.
    pub interval: Interval,
    /// Interfaces watched.
    pub interfaces: u32,
    /// Packets the kernel delivered.
    pub packets_seen: u64,
    /// Packets the kernel dropped because the ring was full.
    pub packets_dropped: u64,
    /// Flows evicted because the table was full.
    pub flows_evicted: u64,
    /// Records emitted, over all partitions.
    pub records_emitted: u64,
    /// Records given up because every queue towards Kafka was full.
    pub records_dropped: u64,
}
