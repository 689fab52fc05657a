//! A record with its names as a row of `flows`, and an agent's report as a row of `coverage`.

use std::net::{IpAddr, Ipv6Addr};

use flowtrail_schema::row::{CoverageRow, FlowRow};
use flowtrail_schema::{Coverage, FlowRecord};

use crate::chunk::{Accepted, ChunkId};
use crate::naming::ConnectionNames;
use crate::source::Topic;

/// The row of a record.
pub(crate) fn flow_row(
    record: &FlowRecord,
    names: &ConnectionNames,
    primary: bool,
    batch: &Accepted,
    topic: &Topic,
    chunk: ChunkId,
) -> FlowRow {
    let ConnectionNames { client, server, service } = names;
    let (service_namespace, service_name) = match service {
        Some((namespace, name)) => (namespace.to_string(), name.to_string()),
        None => Default::default(),
    };
    FlowRow {
        interval_start: seconds(record.interval.start_s()),
        interval_s: seconds_short(record.interval.length().seconds()),
        first_seen: micros(record.first_seen_us),
        last_seen: micros(record.last_seen_us),

        node: batch.node.to_string(),
        agent: batch.agent.to_string(),
        interface: record.interface.name.clone(),
        interface_kind: record.interface.kind.number(),
        reporter: record.reporter.number(),
        local_primary: record.local_primary,
        primary,
        detail: record.detail.number(),

        connection_id: record.connection_id,
        id_kind: record.id_kind.number(),
        handshake_seen: record.handshake_seen,
        one_sided: record.one_sided,
        direction_inferred: record.direction_inferred,
        age_us: record.age_us,

        client_ip: mapped(record.client.ip),
        client_port: record.client.port,
        client_kind: client.identity.kind.number(),
        client_namespace: client.identity.namespace.to_string(),
        client_name: client.identity.name.to_string(),
        client_workload: client.identity.workload.to_string(),
        client_workload_kind: client.identity.workload_kind.to_string(),
        client_node: client.identity.node.to_string(),
        client_uncertain: client.identity.uncertain,
        client_real_ip: mapped(client.real.ip),
        client_real_port: client.real.port,

        server_ip: mapped(record.server.ip),
        server_port: record.server.port,
        server_kind: server.identity.kind.number(),
        server_namespace: server.identity.namespace.to_string(),
        server_name: server.identity.name.to_string(),
        server_workload: server.identity.workload.to_string(),
        server_workload_kind: server.identity.workload_kind.to_string(),
        server_node: server.identity.node.to_string(),
        server_uncertain: server.identity.uncertain,
        server_real_ip: mapped(server.real.ip),
        server_real_port: server.real.port,
        service_namespace,
        service_name,

        sent_bytes: record.sent.bytes,
        sent_payload_bytes: record.sent.payload_bytes,
        sent_packets: record.sent.packets,
        sent_retransmitted_packets: record.sent.retransmitted_packets,
        sent_zero_window_packets: record.sent.zero_window_packets,
        received_bytes: record.received.bytes,
        received_payload_bytes: record.received.payload_bytes,
        received_packets: record.received.packets,
        received_retransmitted_packets: record.received.retransmitted_packets,
        received_zero_window_packets: record.received.zero_window_packets,

        opened: record.opened,
        joined: record.joined,
        open_at_start: record.open_at_start,
        closed_fin: record.closed.fin,
        closed_reset_by_client: record.closed.reset_by_client,
        closed_reset_by_server: record.closed.reset_by_server,
        closed_refused: record.closed.refused,
        closed_unanswered: record.closed.unanswered,
        closed_idle: record.closed.idle,
        closed_superseded: record.closed.superseded,
        closed_evicted: record.closed.evicted,

        syn_to_synack_us: record.syn_to_synack.sum_us,
        syn_to_synack_count: record.syn_to_synack.count,
        syn_to_synack_max_us: record.syn_to_synack.max_us,
        synack_to_ack_us: record.synack_to_ack.sum_us,
        synack_to_ack_count: record.synack_to_ack.count,
        synack_to_ack_max_us: record.synack_to_ack.max_us,
        first_response_us: record.first_response.sum_us,
        first_response_count: record.first_response.count,
        first_response_max_us: record.first_response.max_us,
        duration_us: record.duration.sum_us,
        duration_count: record.duration.count,
        duration_max_us: record.duration.max_us,

        topic_id: topic.id.clone(),
        partition: chunk.partition,
        chunk_start: chunk.start,
    }
}

/// The row of an agent's report on one interval.
pub(crate) fn coverage_row(
    report: &Coverage,
    batch: &Accepted,
    topic: &Topic,
    chunk: ChunkId,
) -> CoverageRow {
    CoverageRow {
        interval_start: seconds(report.interval.start_s()),
        interval_s: seconds_short(report.interval.length().seconds()),
        node: batch.node.to_string(),
        agent: batch.agent.to_string(),
        agent_start: micros(batch.agent_start_us),
        interfaces: report.interfaces,
        packets_seen: report.packets_seen,
        packets_dropped: report.packets_dropped,
        flows_evicted: report.flows_evicted,
        records_emitted: report.records_emitted,
        records_dropped: report.records_dropped,
        announced_addresses: batch.announced_addresses.iter().copied().map(mapped).collect(),
        topic_id: topic.id.clone(),
        partition: chunk.partition,
        chunk_start: chunk.start,
    }
}

/// IPv4 as `::ffff:a.b.c.d`, as the table has it.
pub(crate) fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Seconds since the epoch; the wire has 32 bits for them as well.
pub(crate) fn seconds(seconds: u64) -> u32 {
    seconds.try_into().unwrap_or(u32::MAX)
}

/// At most 60.
fn seconds_short(seconds: u32) -> u8 {
    seconds.try_into().unwrap_or(u8::MAX)
}

/// Microseconds since the epoch, as `DateTime64(6)` has them.
pub(crate) fn micros(us: u64) -> i64 {
    us.try_into().unwrap_or(i64::MAX)
}
