//! What an agent counts, for Prometheus.

use std::sync::atomic::Ordering;

use flowtrail_service::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::batcher::BatcherStats;
use crate::flow_table::FlowTableStats;

/// The agent's metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct CaptureMetrics {
    pub(crate) packets: Counter,
    pub(crate) packets_skipped: Family<SkippedLabels, Counter>,
    pub(crate) packets_dropped: Counter,
    pub(crate) records: Counter,
    pub(crate) records_dropped: Counter,
    pub(crate) records_folded: Counter,
    pub(crate) summaries_folded: Counter,
    pub(crate) records_waiting: Gauge,
    pub(crate) summaries_waiting: Gauge,
    pub(crate) flows_evicted: Counter,
    pub(crate) flows: Gauge,
    pub(crate) flows_forgotten: Counter,
    pub(crate) id_conflicts: Counter,
    pub(crate) tombstones: Gauge,
    pub(crate) tombstones_forgotten: Counter,
    pub(crate) records_undecided: Counter,
    pub(crate) addresses_refused: Counter,
    pub(crate) interfaces: Gauge,
    pub(crate) batches: Counter,
}

/// Why a packet is in no record: one of a few words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SkippedLabels {
    pub(crate) reason: &'static str,
}

impl CaptureMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let these = Self::default();
        metrics.register(|registry| {
            let Self {
                packets,
                packets_skipped,
                packets_dropped,
                records,
                records_dropped,
                records_folded,
                summaries_folded,
                records_waiting,
                summaries_waiting,
                flows_evicted,
                flows,
                flows_forgotten,
                id_conflicts,
                tombstones,
                tombstones_forgotten,
                records_undecided,
                addresses_refused,
                interfaces,
                batches,
            } = these.clone();
            registry.register("capture_packets", "Packets of the watched interfaces", packets);
            registry.register(
                "capture_packets_skipped",
                "Packets that are in no record, by reason",
                packets_skipped,
            );
            registry.register(
                "capture_packets_dropped",
                "Packets that the kernel dropped because the ring was full",
                packets_dropped,
            );
            registry.register("capture_records", "Records made", records);
            registry.register(
                "capture_records_dropped",
                "Records given up because too much waited for the output, or the agent ended",
                records_dropped,
            );
            registry.register(
                "capture_records_folded",
                "Records folded into summaries of an interval because too many waited",
                records_folded,
            );
            registry.register(
                "capture_summaries_folded",
                "Summaries folded into summaries of a minute because too many waited",
                summaries_folded,
            );
            registry.register(
                "capture_records_waiting",
                "Records that wait for the output",
                records_waiting,
            );
            registry.register(
                "capture_summaries_waiting",
                "Summaries, of an interval or a minute, that wait for the output",
                summaries_waiting,
            );
            registry.register(
                "capture_flows_evicted",
                "Flows evicted because the table was full",
                flows_evicted,
            );
            registry.register("capture_flows", "Flows in the table", flows);
            registry.register(
                "capture_flows_forgotten",
                "Closed flows forgotten early because the table was full",
                flows_forgotten,
            );
            registry.register(
                "capture_id_conflicts",
                "Connections whose id another one on the same interface had",
                id_conflicts,
            );
            registry.register(
                "capture_tombstones",
                "Connections kept in mind in case they come back",
                tombstones,
            );
            registry.register(
                "capture_tombstones_forgotten",
                "Tombstones forgotten because there were too many",
                tombstones_forgotten,
            );
            registry.register(
                "capture_records_undecided",
                "Records that left before all observations of their connection were known",
                records_undecided,
            );
            registry.register(
                "capture_addresses_refused",
                "Client addresses not announced because their interface has too many",
                addresses_refused,
            );
            registry.register("capture_interfaces", "Interfaces watched", interfaces);
            registry.register("capture_batches", "Batches handed to the output", batches);
        });
        these
    }

    /// Takes over what the batcher counts itself.
    pub(crate) fn set_batcher(&self, stats: &BatcherStats) {
        self.records_waiting.set(stats.records as i64);
        self.summaries_waiting.set((stats.summaries + stats.minute_summaries) as i64);
        self.records_folded.inner().store(stats.records_folded, Ordering::Relaxed);
        self.summaries_folded.inner().store(stats.summaries_folded, Ordering::Relaxed);
    }

    /// Takes over what the workers' flow tables count themselves, and what they share: id conflicts, and
    /// addresses refused.
    pub(crate) fn set_tables(
        &self,
        tables: &[FlowTableStats],
        (id_conflicts, addresses_refused): (u64, u64),
    ) {
        let sum = |of: fn(&FlowTableStats) -> u64| tables.iter().map(of).sum::<u64>();
        self.flows.set(sum(|table| table.flows as u64) as i64);
        self.tombstones.set(sum(|table| table.tombstones as u64) as i64);
        for (counter, count) in [
            (&self.flows_evicted, sum(|table| table.evicted)),
            (&self.flows_forgotten, sum(|table| table.forgotten)),
            (&self.tombstones_forgotten, sum(|table| table.tombstones_forgotten)),
            (&self.records_undecided, sum(|table| table.undecided_early)),
            (&self.id_conflicts, id_conflicts),
            (&self.addresses_refused, addresses_refused),
        ] {
            counter.inner().store(count, Ordering::Relaxed);
        }
    }
}
