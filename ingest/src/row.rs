//! An agent's report as a row of `coverage`, and how rows spell addresses and times.

use std::net::{IpAddr, Ipv6Addr};

use flowtrail_schema::Coverage;
use flowtrail_schema::row::CoverageRow;

use crate::chunk::{Accepted, ChunkId};

/// The row of an agent's report on one interval.
pub(crate) fn coverage_row(report: &Coverage, batch: &Accepted, chunk: ChunkId) -> CoverageRow {
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
pub(crate) fn seconds_short(seconds: u32) -> u8 {
    seconds.try_into().unwrap_or(u8::MAX)
}

/// Microseconds since the epoch, as `DateTime64(6)` has them.
pub(crate) fn micros(us: u64) -> i64 {
    us.try_into().unwrap_or(i64::MAX)
}
