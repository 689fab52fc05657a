//! Raw rows → edges, straightforwardly: what the planned answer is held against.

use std::net::Ipv6Addr;

use flowtrail_schema::row::{EntityKind, FlowRow};

/// What a straightforward sum has of an edge.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) connections: u64,
    pub(super) opened: u64,
    pub(super) refused: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_packets: u64,
    pub(super) received_bytes: u64,
    pub(super) retransmits: u64,
    pub(super) inferred: u64,
    pub(super) duration: (u64, u64, u64),
    /// Microseconds, one for each sample.
    pub(super) latencies: Vec<u64>,
}

impl Totals {
    pub(super) fn add(&mut self, row: &FlowRow, from: u32) {
        let open = if row.interval_start == from { row.open_at_start } else { 0 };
        let connections = u64::from(row.opened + row.joined + open);
        self.connections += connections;
        self.opened += u64::from(row.opened);
        self.refused += u64::from(row.closed_refused);
        self.sent_bytes += row.sent_bytes;
        self.received_packets += row.received_packets;
        self.received_bytes += row.received_bytes;
        self.retransmits += row.sent_retransmitted_packets + row.received_retransmitted_packets;
        self.inferred += if row.direction_inferred { connections } else { 0 };
        let (sum, count, max) = self.duration;
        self.duration = (
            sum + row.duration_us,
            count + u64::from(row.duration_count),
            max.max(row.duration_max_us),
        );
        if row.syn_to_synack_count > 0 {
            let mean_us = row.syn_to_synack_us / u64::from(row.syn_to_synack_count);
            self.latencies.extend(vec![mean_us; row.syn_to_synack_count as usize]);
        }
    }

    /// The middle of the bucket that the sample is in, but no more than the largest.
    pub(super) fn latency_p95_ms(&self) -> Option<f64> {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        let rank = (latencies.len() as f64 * 0.95).ceil() as usize;
        let sample = *latencies.get(rank.checked_sub(1)?)?;
        let bucket = ((sample.max(1) as f64).ln() / 1.1_f64.ln()).floor();
        Some(1.1_f64.powf(bucket + 0.5).min(*latencies.last()? as f64) / 1_000.0)
    }
}

/// The node of a row's end: its kind, namespace, workload and the kind of that, name and address.
fn node(
    group_by: &str,
    (kind, [namespace, owner_kind, owner, name], ip): (i8, [&str; 4], Ipv6Addr),
) -> String {
    let kind = EntityKind::from_number(kind.into()).unwrap().as_str();
    let address = ip.to_canonical().to_string();
    let within = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    match group_by {
        "ip" => format!("ip:{address}"),
        "namespace" if namespace.is_empty() => kind.to_owned(),
        "namespace" => format!("namespace:{namespace}"),
        "workload" if !owner.is_empty() => format!("workload:{within}{owner_kind}/{owner}"),
        _ if name.is_empty() => format!("{kind}:{within}{address}"),
        _ => format!("{kind}:{within}{name}"),
    }
}

pub(super) fn edge_id(group_by: &str, row: &FlowRow) -> String {
    let client =
        [&row.client_namespace, &row.client_workload_kind, &row.client_workload, &row.client_name];
    let server =
        [&row.server_namespace, &row.server_workload_kind, &row.server_workload, &row.server_name];
    let client = node(group_by, (row.client_kind, client.map(String::as_str), row.client_real_ip));
    let server = node(group_by, (row.server_kind, server.map(String::as_str), row.server_real_ip));
    format!("{client}>{server}")
}
