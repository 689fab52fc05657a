//! `FlowRow`: a record with names, as one row of the table `flows`. Fields are what the table tells
//! (`sql/0001_flows.sql`), in its order: aliases, and not what they are computed from. For reading: ingest writes whole
//! columns, and those that are stored.

use std::net::Ipv6Addr;

use clickhouse::Row;
use serde::{Deserialize, Serialize};

use crate::record::word_enum;

word_enum! {
    /// What owned an address when its packets were seen.
    EntityKind {
        /// A pod with its own address, or a hostNetwork pod told by its port.
        Pod = 1, "pod";
        /// A Service's cluster, external or load-balancer address.
        Service = 2, "service";
        /// A node.
        Node = 3, "node";
        /// A public address, or one that a configured CIDR names.
        External = 4, "external";
        /// A private address that nothing is known to own.
        Unknown = 5, "unknown";
    }
}

/// One row of `flows`. Enum columns hold the numbers of the enums in [`crate::record`] and
/// [`EntityKind`]; addresses are IPv6, with IPv4 mapped (`::ffff:a.b.c.d`).
#[derive(Clone, Debug, PartialEq, Row, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each column is explained in sql/0001_flows.sql")]
pub struct FlowRow {
    pub interval_start: u32,
    pub interval_s: u8,
    pub first_seen: i64,
    pub last_seen: i64,

    pub node: String,
    pub agent: String,
    pub interface: String,
    pub interface_kind: i8,
    pub reporter: i8,
    pub local_primary: bool,
    pub primary: bool,
    pub detail: i8,

    pub connection_id: u64,
    pub id_kind: i8,
    pub handshake_seen: bool,
    pub one_sided: bool,
    pub direction_inferred: bool,
    pub age_us: u64,

    pub client_ip: Ipv6Addr,
    pub client_port: u16,
    pub client_kind: i8,
    pub client_namespace: String,
    pub client_name: String,
    pub client_workload: String,
    pub client_workload_kind: String,
    pub client_node: String,
    pub client_uncertain: bool,
    pub client_real_ip: Ipv6Addr,
    pub client_real_port: u16,

    pub server_ip: Ipv6Addr,
    pub server_port: u16,
    pub server_kind: i8,
    pub server_namespace: String,
    pub server_name: String,
    pub server_workload: String,
    pub server_workload_kind: String,
    pub server_node: String,
    pub server_uncertain: bool,
    pub server_real_ip: Ipv6Addr,
    pub server_real_port: u16,
    pub service_namespace: String,
    pub service_name: String,

    pub sent_bytes: u64,
    pub sent_payload_bytes: u64,
    pub sent_packets: u64,
    pub sent_retransmitted_packets: u64,
    pub sent_zero_window_packets: u64,
    pub received_bytes: u64,
    pub received_payload_bytes: u64,
    pub received_packets: u64,
    pub received_retransmitted_packets: u64,
    pub received_zero_window_packets: u64,

    pub opened: u32,
    pub joined: u32,
    pub open_at_start: u32,
    pub closed_fin: u32,
    pub closed_reset_by_client: u32,
    pub closed_reset_by_server: u32,
    pub closed_refused: u32,
    pub closed_unanswered: u32,
    pub closed_idle: u32,
    pub closed_superseded: u32,
    pub closed_evicted: u32,

    pub syn_to_synack_us: u64,
    pub syn_to_synack_count: u32,
    pub syn_to_synack_max_us: u64,
    pub synack_to_ack_us: u64,
    pub synack_to_ack_count: u32,
    pub synack_to_ack_max_us: u64,
    pub first_response_us: u64,
    pub first_response_count: u32,
    pub first_response_max_us: u64,
    pub duration_us: u64,
    pub duration_count: u32,
    pub duration_max_us: u64,

    pub topic_id: String,
    pub partition: u32,
    pub chunk_start: u64,
}

/// One row of `coverage`: an agent's report on one interval (`sql/0002_coverage.sql`).
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each column is explained in sql/0002_coverage.sql")]
pub struct CoverageRow {
    pub interval_start: u32,
    pub interval_s: u8,
    pub node: String,
    pub agent: String,
    pub agent_start: i64,
    pub interfaces: u32,
    pub packets_seen: u64,
    pub packets_dropped: u64,
    pub flows_evicted: u64,
    pub records_emitted: u64,
    pub records_dropped: u64,
    pub announced_addresses: Vec<Ipv6Addr>,
    pub topic_id: String,
    pub partition: u32,
    pub chunk_start: u64,
}

/// One row of `deliveries`: one chunk of a partition that is in the tables (`sql/0003_deliveries.sql`).
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each column is explained in sql/0003_deliveries.sql")]
pub struct DeliveryRow {
    pub topic: String,
    pub topic_id: String,
    pub partition: u32,
    pub chunk_start: u64,
    pub chunk_end: u64,
    pub token: String,
    pub min_interval_start: u32,
    pub max_interval_start: u32,
    pub records: u64,
    pub coverage_reports: u64,
    #[serde(rename = "batches.agent")]
    pub batch_agents: Vec<String>,
    #[serde(rename = "batches.agent_start")]
    pub batch_agent_starts: Vec<i64>,
    #[serde(rename = "batches.sequence")]
    pub batch_sequences: Vec<u64>,
    #[serde(rename = "batches.records")]
    pub batch_records: Vec<u32>,
    #[serde(rename = "rejected.reason")]
    pub rejected_reasons: Vec<String>,
    #[serde(rename = "rejected.count")]
    pub rejected_counts: Vec<u64>,
    pub lost_offsets: u64,
    pub duplicate_batches: u64,
}

/// One row of `identities`: an object's hold on an address (`sql/0020_identities.sql`). Times are
/// microseconds since the epoch, `kind` an [`EntityKind`]'s number.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each column is explained in sql/0020_identities.sql")]
pub struct IdentityRow {
    pub address: Ipv6Addr,
    pub port: u16,
    pub uid: String,
    pub kind: i8,
    pub namespace: String,
    pub name: String,
    pub node: String,
    pub workload: String,
    pub workload_kind: String,
    pub ports: Vec<u16>,
    pub start: i64,
    pub last_seen: i64,
    pub released: i64,
    pub deleted: i64,
}

/// One row of `identities_seen` (`sql/0005_identities_seen.sql`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each column is explained in sql/0005_identities_seen.sql")]
pub struct IdentitiesSeenRow {
    pub kind: i8,
    pub last_seen: i64,
}
