//! The topic: its name, how a partition is chosen, and a message on its way.

use bytes::Bytes;

use crate::connection_id::{name_hash, partition_hash};
use crate::record::IdKind;

/// The topic that agents publish to. The `v1` is the version of the wire format.
pub const FLOWS_TOPIC: &str = "flowtrail.flows.v1";

/// The topic for messages that ingest rejects, or records of: the original bytes.
pub const DEAD_LETTER_TOPIC: &str = "flowtrail.flows.v1.dead-letters";

/// The partition of a connection's records: all its observations, whichever agent makes them, go to
/// the same one. `partitions` is at least 1.
pub fn partition_of(connection_id: u64, kind: IdKind, partitions: u32) -> u32 {
    (partition_hash(connection_id, kind) % u64::from(partitions.max(1))) as u32
}

/// The one partition whose ingest writes an agent's coverage: the report itself goes to all.
pub fn coverage_partition(agent: &str, partitions: u32) -> u32 {
    (name_hash(agent) % u64::from(partitions.max(1))) as u32
}

/// One encoded `FlowBatch` on its way to a partition: what a transport carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Partition of [`FLOWS_TOPIC`].
    pub partition: u32,
    /// The encoded batch.
    pub payload: Bytes,
    /// Records in it, for counting.
    pub records: u32,
}
