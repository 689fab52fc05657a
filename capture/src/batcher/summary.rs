//! Folding: records to summaries, by adding. What is lost is which connection did what; sums and counts
//! stay exact. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use flowtrail_schema::connection_id::from_tuple;
use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::{Detail, Endpoint, FlowRecord, IdKind, Interface, Measure, Reporter};

/// What the records of one summary have in common, beside their interval.
///
/// `direction_inferred` is one of these, since answers give the share of connections that it is true
/// of. What ingest decides by is here too: who observed, from which side, and whether it counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    interface: Arc<Interface>,
    reporter: Reporter,
    local_primary: bool,
    direction_inferred: bool,
    client: IpAddr,
    server: Endpoint,
}

impl Key {
    pub(super) fn of(record: &FlowRecord) -> Self {
        Self {
            interface: Arc::clone(&record.interface),
            reporter: record.reporter,
            local_primary: record.local_primary,
            direction_inferred: record.direction_inferred,
            client: record.client.ip,
            server: record.server,
        }
    }
}

/// Records of one [`Key`] and interval, added up.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Summary {
    /// The sum, itself a record.
    pub(super) record: FlowRecord,
    /// Flow records in it.
    pub(super) records: u64,
}

impl Summary {
    /// The summary of one flow's record.
    pub(super) fn of(mut record: FlowRecord) -> Self {
        record.client.port = 0;
        // By the key alone, and thus the same for all intervals: they go to one partition.
        record.connection_id = from_tuple(record.client, record.server);
        record.id_kind = IdKind::TupleHash;
        record.detail = Detail::Summary;
        Self { record, records: 1 }
    }

    /// The same as part of its minute.
    pub(super) fn of_minute(mut self) -> Self {
        let record = &mut self.record;
        let minute = IntervalLength::MINUTE.interval_at(record.interval.start_us());
        // A connection is open when the minute begins, or it is not: only the first interval knows.
        if record.interval.start_us() != minute.start_us() {
            record.open_at_start = 0;
        }
        if !has_packets(record) {
            record.first_seen_us = minute.start_us();
            record.last_seen_us = minute.start_us();
        }
        record.interval = minute;
        record.detail = Detail::MinuteSummary;
        self
    }

    /// Adds another one of the same key and interval.
    pub(super) fn add(&mut self, other: Self) {
        self.records += other.records;
        add(&mut self.record, other.record);
    }
}

/// Adds a record of the same key, interval and detail. Every field is named, so that none is forgotten.
fn add(to: &mut FlowRecord, other: FlowRecord) {
    // Without packets there is no time of one.
    match (has_packets(to), has_packets(&other)) {
        (true, true) => {
            to.first_seen_us = to.first_seen_us.min(other.first_seen_us);
            to.last_seen_us = to.last_seen_us.max(other.last_seen_us);
        }
        (false, true) => {
            to.first_seen_us = other.first_seen_us;
            to.last_seen_us = other.last_seen_us;
        }
        (_, false) => {}
    }
    let FlowRecord {
        // The same in both.
        interval: _,
        interface: _,
        reporter: _,
        local_primary: _,
        connection_id: _,
        id_kind: _,
        direction_inferred: _,
        detail: _,
        client: _,
        server: _,
        // Above.
        first_seen_us: _,
        last_seen_us: _,
        handshake_seen,
        one_sided,
        age_us,
        sent,
        received,
        opened,
        joined,
        open_at_start,
        closed,
        syn_to_synack,
        synack_to_ack,
        first_response,
        duration,
    } = other;
    // What may be relied on for all of them, and what must be feared for some.
    to.handshake_seen &= handshake_seen;
    to.one_sided |= one_sided;
    to.age_us = to.age_us.max(age_us);
    to.sent += sent;
    to.received += received;
    to.opened += opened;
    to.joined += joined;
    to.open_at_start += open_at_start;
    to.closed += closed;
    let measures: [(&mut Measure, Measure); 4] = [
        (&mut to.syn_to_synack, syn_to_synack),
        (&mut to.synack_to_ack, synack_to_ack),
        (&mut to.first_response, first_response),
        (&mut to.duration, duration),
    ];
    for (sum, more) in measures {
        *sum += more;
    }
}

fn has_packets(record: &FlowRecord) -> bool {
    record.sent.packets + record.received.packets > 0
}
