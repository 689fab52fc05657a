//! What the pipeline counts: each stage's outcome, and each cap that was met.

use std::collections::BTreeMap;

use flowtrail_schema::row::{EntityKind, FlowRow};
use flowtrail_service::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// The pipeline's metrics. Clones share the values.
#[derive(Clone, Debug)]
pub(crate) struct IngestMetrics {
    pub(crate) messages: Family<Outcome, Counter>,
    pub(crate) records: Family<Outcome, Counter>,
    pub(crate) overflows: Family<Table, Counter>,
    pub(crate) chunks: Counter,
    pub(crate) rows: Family<Table, Counter>,
    pub(crate) insert_failures: Family<Table, Counter>,
    pub(crate) insert_seconds: Histogram,
    pub(crate) commit_failures: Counter,
    pub(crate) source_failures: Counter,
    pub(crate) newest_interval: Gauge,
    ends: Family<EndLabel, Counter>,
    joins: Family<Outcome, Counter>,
}

/// What an end of a record is: an [`EntityKind`], or `cidr` for an external one with a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabel {
    kind: &'static str,
}

/// What became of a message or a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    outcome: &'static str,
}

/// A table, in ClickHouse or in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Table {
    table: &'static str,
}

impl IngestMetrics {
    /// Registers all.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let ingest = Self {
            messages: Family::default(),
            records: Family::default(),
            overflows: Family::default(),
            chunks: Counter::default(),
            rows: Family::default(),
            insert_failures: Family::default(),
            // 5 ms to 80 s.
            insert_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 15)),
            commit_failures: Counter::default(),
            source_failures: Counter::default(),
            newest_interval: Gauge::default(),
            ends: Family::default(),
            joins: Family::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "ingest_messages",
                "Messages read: accepted, duplicate or rejected",
                ingest.messages.clone(),
            );
            registry.register(
                "ingest_records",
                "Records read: primary, evidence or rejected",
                ingest.records.clone(),
            );
            registry.register(
                "ingest_overflows",
                "Things forgotten or refused because a table in memory was full",
                ingest.overflows.clone(),
            );
            registry.register("ingest_chunks", "Chunks inserted", ingest.chunks.clone());
            registry.register("ingest_rows", "Rows inserted", ingest.rows.clone());
            registry.register(
                "ingest_insert_failures",
                "Inserts that failed and were retried",
                ingest.insert_failures.clone(),
            );
            registry.register(
                "ingest_insert_seconds",
                "Time to insert a chunk into all tables, retries among it",
                ingest.insert_seconds.clone(),
            );
            registry.register(
                "ingest_commit_failures",
                "Offsets that Kafka did not take",
                ingest.commit_failures.clone(),
            );
            registry.register(
                "ingest_source_failures",
                "Failures of Kafka, retried",
                ingest.source_failures.clone(),
            );
            registry.register(
                "ingest_newest_interval_seconds",
                "Start of the newest interval inserted, seconds since the epoch",
                ingest.newest_interval.clone(),
            );
            registry.register(
                "ingest_names_ends",
                "Ends of records by what they are: pod, service, node, cidr, external or unknown",
                ingest.ends.clone(),
            );
            registry.register(
                "ingest_names_joins",
                "Records by whether another observation told a better end: hit or miss",
                ingest.joins.clone(),
            );
        });
        ingest
    }

    /// Messages of an outcome.
    pub(crate) fn message(&self, outcome: &'static str) {
        self.messages.get_or_create(&Outcome { outcome }).inc();
    }

    /// Records of an outcome.
    pub(crate) fn record(&self, outcome: &'static str, count: u64) {
        self.records.get_or_create(&Outcome { outcome }).inc_by(count);
    }

    /// The counter of what a table in memory must forget or refuse.
    pub(crate) fn overflow(&self, table: &'static str) -> Counter {
        self.overflows.get_or_create_owned(&Table { table })
    }

    /// Rows inserted into a table.
    pub(crate) fn inserted(&self, table: &'static str, rows: u64) {
        self.rows.get_or_create(&Table { table }).inc_by(rows);
    }

    /// What the ends of named records are.
    pub(crate) fn named(&self, rows: &[FlowRow]) {
        let mut ends = BTreeMap::<&str, u64>::new();
        let mut improved = 0;
        for row in rows {
            *ends.entry(end(row.client_kind, &row.client_name)).or_default() += 1;
            *ends.entry(end(row.server_kind, &row.server_name)).or_default() += 1;
            let as_seen =
                row.client_real_ip == row.client_ip && row.server_real_ip == row.server_ip;
            improved += u64::from(!as_seen);
        }
        for (kind, count) in ends {
            self.ends.get_or_create(&EndLabel { kind }).inc_by(count);
        }
        self.joins.get_or_create(&Outcome { outcome: "hit" }).inc_by(improved);
        let missed = rows.len() as u64 - improved;
        self.joins.get_or_create(&Outcome { outcome: "miss" }).inc_by(missed);
    }

    /// A failed insert into a table.
    pub(crate) fn insert_failed(&self, table: &'static str) {
        self.insert_failures.get_or_create(&Table { table }).inc();
    }
}

fn end(kind: i8, name: &str) -> &'static str {
    match EntityKind::from_number(kind.into()) {
        Some(EntityKind::External) if !name.is_empty() => "cidr",
        Some(kind) => kind.as_str(),
        None => EntityKind::Unknown.as_str(),
    }
}
