//! What the pipeline counts: each stage's outcome, and each cap that was met.

use std::sync::atomic::AtomicU64;

use flowtrail_schema::row::EntityKind;
use flowtrail_service::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::columns::NamedRecord;
use crate::edge_metrics::{EdgeMetrics, EdgeSums};

/// The pipeline's metrics. Clones share the values.
#[derive(Clone, Debug)]
pub(crate) struct IngestMetrics {
    pub(crate) messages: Family<Outcome, Counter>,
    pub(crate) records: Family<Outcome, Counter>,
    pub(crate) overflows: Family<Table, Counter>,
    pub(crate) rejected: Family<Reason, Counter>,
    pub(crate) dead_letters: Family<Outcome, Counter>,
    pub(crate) chunks: Counter,
    pub(crate) chunk_rows: Histogram,
    pub(crate) chunk_bytes: Histogram,
    pub(crate) rows: Family<Table, Counter>,
    pub(crate) insert_failures: Family<Table, Counter>,
    pub(crate) insert_seconds: Histogram,
    pub(crate) commit_failures: Counter,
    pub(crate) source_failures: Counter,
    pub(crate) newest_interval: Gauge,
    pub(crate) lag_messages: Family<PartitionLabel, Gauge>,
    pub(crate) lag_seconds: Family<PartitionLabel, Gauge<f64, AtomicU64>>,
    ends: Family<EndLabel, Counter>,
    joins: Family<Outcome, Counter>,
    /// If they are wanted.
    edges: Option<EdgeMetrics>,
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

/// Why something was rejected: one of the words of `admission`, which are of a bounded number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    reason: String,
}

/// A partition, or `other` for those of high numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(crate) struct PartitionLabel {
    pub(crate) partition: String,
}

/// A table, in ClickHouse or in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Table {
    table: &'static str,
}

impl IngestMetrics {
    /// Registers all but those of edges.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let ingest = Self {
            messages: Family::default(),
            records: Family::default(),
            overflows: Family::default(),
            rejected: Family::default(),
            dead_letters: Family::default(),
            chunks: Counter::default(),
            // 1 to 1,048,576: chunks are no larger.
            chunk_rows: Histogram::new(exponential_buckets(1.0, 4.0, 11)),
            // 1 KiB to 256 MiB.
            chunk_bytes: Histogram::new(exponential_buckets(1024.0, 4.0, 10)),
            rows: Family::default(),
            insert_failures: Family::default(),
            // 5 ms to 80 s.
            insert_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 15)),
            commit_failures: Counter::default(),
            source_failures: Counter::default(),
            newest_interval: Gauge::default(),
            lag_messages: Family::default(),
            lag_seconds: Family::default(),
            ends: Family::default(),
            joins: Family::default(),
            edges: None,
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
            registry.register(
                "ingest_rejected",
                "Messages, records and reports that were rejected, by reason",
                ingest.rejected.clone(),
            );
            registry.register(
                "ingest_dead_letters",
                "Letters to the dead-letter topic: delivered, or failed and lost",
                ingest.dead_letters.clone(),
            );
            registry.register(
                "ingest_chunk_rows",
                "Rows of flows in an inserted chunk",
                ingest.chunk_rows.clone(),
            );
            registry.register(
                "ingest_chunk_bytes",
                "Bytes of the messages of an inserted chunk",
                ingest.chunk_bytes.clone(),
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
                "ingest_lag_messages",
                "Messages in Kafka that are not in the tables yet",
                ingest.lag_messages.clone(),
            );
            registry.register(
                "ingest_lag_seconds",
                "Age of the newest message read; 0 if all messages are in the tables",
                ingest.lag_seconds.clone(),
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

    /// Counts edges too, if they are wanted.
    pub(crate) fn with_edges(self, edges: Option<EdgeMetrics>) -> Self {
        Self { edges, ..self }
    }

    /// Messages of an outcome.
    pub(crate) fn message(&self, outcome: &'static str) {
        self.messages.get_or_create(&Outcome { outcome }).inc();
    }

    /// Records of an outcome.
    pub(crate) fn record(&self, outcome: &'static str, count: u64) {
        self.records.get_or_create(&Outcome { outcome }).inc_by(count);
    }

    /// Something rejected.
    pub(crate) fn reject(&self, reason: &str) {
        self.rejected.get_or_create(&Reason { reason: reason.to_owned() }).inc();
    }

    /// A letter of an outcome.
    pub(crate) fn dead_letter(&self, outcome: &'static str) {
        self.dead_letters.get_or_create(&Outcome { outcome }).inc();
    }

    /// The counter of what a table in memory must forget or refuse.
    pub(crate) fn overflow(&self, table: &'static str) -> Counter {
        self.overflows.get_or_create_owned(&Table { table })
    }

    /// Rows inserted into a table.
    pub(crate) fn inserted(&self, table: &'static str, rows: u64) {
        self.rows.get_or_create(&Table { table }).inc_by(rows);
    }

    /// To count the names of a chunk's records.
    pub(crate) fn names(&self) -> Named {
        let edges = self.edges.as_ref().map(|_| EdgeSums::default());
        Named { edges, ..Named::default() }
    }

    /// What the ends of a chunk's records are, and of its primary ones the edges.
    pub(crate) fn named(&self, named: &Named) {
        let kinds = std::iter::once("cidr").chain(EntityKind::ALL.iter().map(|kind| kind.as_str()));
        for (kind, count) in kinds.zip(named.ends).filter(|(_, count)| *count > 0) {
            self.ends.get_or_create(&EndLabel { kind }).inc_by(count);
        }
        self.joins.get_or_create(&Outcome { outcome: "hit" }).inc_by(named.joined);
        let missed = named.records - named.joined;
        self.joins.get_or_create(&Outcome { outcome: "miss" }).inc_by(missed);
        if let (Some(edges), Some(sums)) = (&self.edges, &named.edges) {
            edges.add(sums);
        }
    }

    /// A failed insert into a table.
    pub(crate) fn insert_failed(&self, table: &'static str) {
        self.insert_failures.get_or_create(&Table { table }).inc();
    }
}

/// What the names of a chunk's records came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    records: u64,
    /// Ends by the number of their [`EntityKind`]; 0 for networks with a name.
    ends: [u64; 6],
    /// Records of which another observation told a better end.
    joined: u64,
    /// If they are wanted.
    edges: Option<EdgeSums>,
}

impl Named {
    /// Counts a record.
    pub(crate) fn count(&mut self, row: &NamedRecord<'_>) {
        let NamedRecord { record, names, primary, .. } = row;
        self.records += 1;
        for identity in [&names.client.identity, &names.server.identity] {
            let network = identity.kind == EntityKind::External && !identity.name.is_empty();
            let number =
                if network { 0 } else { usize::from(identity.kind.number().unsigned_abs()) };
            if let Some(ends) = self.ends.get_mut(number) {
                *ends += 1;
            }
        }
        let as_seen = (names.client.real, names.server.real) == (record.client, record.server);
        self.joined += u64::from(!as_seen);
        if let Some(edges) = self.edges.as_mut().filter(|_| *primary) {
            edges.add(record, names);
        }
    }
}
