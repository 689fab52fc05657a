//! The fields that an expression may name: one table, for reading, compiling and computing.

use std::fmt;

use super::number::Unit;
use crate::graph::{Measure, Sums};

/// Something with a name and a value, of a row or of an edge.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) source: Source,
}

/// Where a field's value comes from, and so what may be compared with it.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    /// Columns of each row, before rows are folded into edges.
    Row(Row),
    /// The sums of an edge.
    Sum(Sum),
}

/// Columns that all tables have which [`Row::reads_pods`] allows.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) kind: RowKind,
    /// One, or the two that tell one thing: as it was seen, and as it is behind NAT.
    pub(crate) columns: &'static [&'static str],
    /// Whether only tables of pods and addresses have them as they are.
    pub(crate) reads_pods: bool,
}

/// What a row's columns hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowKind {
    Text,
    EntityKind,
    Port,
    Address,
}

/// How an edge's value is computed.
#[derive(Clone, Copy)]
pub(crate) enum Sum {
    /// A counter.
    Whole(Unit, fn(&Sums<'_>) -> u64),
    /// An average, a quantile, a share: none without a sample.
    Real(Unit, fn(&Sums<'_>) -> Option<f64>),
}

impl PartialEq for Field {
    /// Names are unique.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Field {}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Field {
    /// The field of a name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|field| field.name == name)
    }

    /// What it holds, in words.
    pub(crate) fn holds(&self) -> &'static str {
        match self.source {
            Source::Row(row) => match row.kind {
                RowKind::Text => "a text",
                RowKind::EntityKind => "a kind",
                RowKind::Port => "a port",
                RowKind::Address => "an address",
            },
            Source::Sum(sum) => sum.unit().holds(),
        }
    }

    /// Whether two fields can be held against each other.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        match (self.source, other.source) {
            (Source::Row(a), Source::Row(b)) => a.kind == b.kind,
            (Source::Sum(a), Source::Sum(b)) => a.unit() == b.unit(),
            _ => false,
        }
    }

    /// Those whose names are most like what was written, the nearest first.
    pub(crate) fn nearest(written: &str) -> Vec<&'static str> {
        const SHOWN: usize = 4;
        let likeness = |field: &Self| strsim::jaro_winkler(&written.to_lowercase(), field.name);
        let mut names: Vec<_> = FIELDS.iter().map(|field| (likeness(field), field.name)).collect();
        names.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        names.into_iter().take(SHOWN).map(|(_, name)| name).collect()
    }
}

impl Sum {
    pub(crate) fn unit(self) -> Unit {
        match self {
            Self::Whole(unit, _) | Self::Real(unit, _) => unit,
        }
    }
}

/// A text that workloads' tables have.
const fn text(name: &'static str, columns: &'static [&'static str]) -> Field {
    row(name, RowKind::Text, columns, false)
}

/// What only tables of pods and addresses have.
const fn of_pods(name: &'static str, kind: RowKind, columns: &'static [&'static str]) -> Field {
    row(name, kind, columns, true)
}

const fn row(
    name: &'static str,
    kind: RowKind,
    columns: &'static [&'static str],
    reads_pods: bool,
) -> Field {
    Field { name, source: Source::Row(Row { kind, columns, reads_pods }) }
}

const fn bytes(name: &'static str, of: fn(&Sums<'_>) -> u64) -> Field {
    Field { name, source: Source::Sum(Sum::Whole(Unit::Bytes, of)) }
}

const fn count(name: &'static str, of: fn(&Sums<'_>) -> u64) -> Field {
    Field { name, source: Source::Sum(Sum::Whole(Unit::Count, of)) }
}

const fn time(name: &'static str, of: fn(&Sums<'_>) -> Option<f64>) -> Field {
    Field { name, source: Source::Sum(Sum::Real(Unit::Milliseconds, of)) }
}

/// All fields. A name means what the answer has under it; that of two words joined by a dot is of an end, a
/// direction or a reason. `docs/filters.md` explains each.
pub(crate) const FIELDS: &[Field] = &[
    row("client.kind", RowKind::EntityKind, &["client_kind"], false),
    text("client.namespace", &["client_namespace"]),
    text("client.workload", &["client_workload"]),
    text("client.workload_kind", &["client_workload_kind"]),
    of_pods("client.name", RowKind::Text, &["client_name"]),
    of_pods("client.node", RowKind::Text, &["client_node"]),
    of_pods("client.ip", RowKind::Address, &["client_ip", "client_real_ip"]),
    of_pods("client.real_ip", RowKind::Address, &["client_real_ip"]),
    row("server.kind", RowKind::EntityKind, &["server_kind"], false),
    text("server.namespace", &["server_namespace"]),
    text("server.workload", &["server_workload"]),
    text("server.workload_kind", &["server_workload_kind"]),
    of_pods("server.name", RowKind::Text, &["server_name"]),
    of_pods("server.node", RowKind::Text, &["server_node"]),
    of_pods("server.ip", RowKind::Address, &["server_ip", "server_real_ip"]),
    of_pods("server.real_ip", RowKind::Address, &["server_real_ip"]),
    row("server.port", RowKind::Port, &["server_port", "server_real_port"], false),
    row("server.real_port", RowKind::Port, &["server_real_port"], false),
    text("service.namespace", &["service_namespace"]),
    text("service.name", &["service_name"]),
    count("connections", |sums| sums.connections),
    count("opened", |sums| sums.opened),
    count("joined", |sums| sums.joined),
    count("open", |sums| sums.open),
    count("failed", |sums| sums.failed()),
    count("closed", |sums| sums.closed()),
    count("closed.fin", |sums| sums.closed.fin),
    count("closed.reset_by_client", |sums| sums.closed.reset_by_client),
    count("closed.reset_by_server", |sums| sums.closed.reset_by_server),
    count("closed.refused", |sums| sums.closed.refused),
    count("closed.unanswered", |sums| sums.closed.unanswered),
    count("closed.idle", |sums| sums.closed.idle),
    count("closed.superseded", |sums| sums.closed.superseded),
    count("closed.evicted", |sums| sums.closed.evicted),
    bytes("bytes", |sums| sums.sent.bytes + sums.received.bytes),
    bytes("payload_bytes", |sums| sums.sent.payload_bytes + sums.received.payload_bytes),
    count("packets", |sums| sums.sent.packets + sums.received.packets),
    count("retransmits", |sums| sums.retransmits()),
    count("zero_window_packets", |sums| {
        sums.sent.zero_window_packets + sums.received.zero_window_packets
    }),
    bytes("sent.bytes", |sums| sums.sent.bytes),
    bytes("sent.payload_bytes", |sums| sums.sent.payload_bytes),
    count("sent.packets", |sums| sums.sent.packets),
    count("sent.retransmitted_packets", |sums| sums.sent.retransmitted_packets),
    count("sent.zero_window_packets", |sums| sums.sent.zero_window_packets),
    bytes("received.bytes", |sums| sums.received.bytes),
    bytes("received.payload_bytes", |sums| sums.received.payload_bytes),
    count("received.packets", |sums| sums.received.packets),
    count("received.retransmitted_packets", |sums| sums.received.retransmitted_packets),
    count("received.zero_window_packets", |sums| sums.received.zero_window_packets),
    count("duration_count", |sums| sums.duration.count()),
    time("duration_avg_ms", |sums| sums.duration.avg_ms()),
    time("duration_max_ms", |sums| sums.duration.max_ms()),
    count("latency_count", |sums| sums.latency.count()),
    time("latency_avg_ms", |sums| sums.latency.avg_ms()),
    time("latency_p50_ms", |sums| p50_ms(&sums.latency)),
    time("latency_p95_ms", |sums| p95_ms(&sums.latency)),
    time("latency_max_ms", |sums| sums.latency.max_ms()),
    count("first_response_count", |sums| sums.first_response.count()),
    time("first_response_avg_ms", |sums| sums.first_response.avg_ms()),
    time("first_response_p50_ms", |sums| p50_ms(&sums.first_response)),
    time("first_response_p95_ms", |sums| p95_ms(&sums.first_response)),
    time("first_response_max_ms", |sums| sums.first_response.max_ms()),
    Field {
        name: "direction_inferred",
        source: Source::Sum(Sum::Real(Unit::Share, |sums| Some(sums.direction_inferred()))),
    },
];

fn p50_ms(measure: &Measure<'_>) -> Option<f64> {
    measure.quantile_ms(0.5)
}

fn p95_ms(measure: &Measure<'_>) -> Option<f64> {
    measure.quantile_ms(0.95)
}
