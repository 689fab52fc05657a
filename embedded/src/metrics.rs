//! Counters of the embedded engine's HTTP interface.

use flowtrail_service::metrics::Metrics;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::exception::Exception;

/// What happened at the interface.
#[derive(Clone, Debug, Default)]
pub(crate) struct EmbeddedMetrics {
    pub(crate) requests: Family<KindLabel, Counter>,
    pub(crate) running: Gauge,
    exceptions: Counter,
    pub(crate) refused: Counter,
    pub(crate) cancelled: Counter,
    limited: Counter,
    pub(crate) reused: Counter,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(crate) struct KindLabel {
    pub(crate) kind: Kind,
}

/// What a statement does with rows.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub(crate) enum Kind {
    Query,
    Insert,
    Command,
}

impl EmbeddedMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let own = Self::default();
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("embedded");
            registry.register("requests", "Statements run, by kind", own.requests.clone());
            registry.register("requests_running", "Statements running now", own.running.clone());
            registry.register(
                "exceptions",
                "Requests answered with an error",
                own.exceptions.clone(),
            );
            registry.register(
                "requests_limited",
                "Statements that ended at their limit of time or memory",
                own.limited.clone(),
            );
            registry.register(
                "requests_refused",
                "Requests refused because too many were running",
                own.refused.clone(),
            );
            registry.register(
                "requests_cancelled",
                "Queries and inserts ended because their client went away or sent a broken body",
                own.cancelled.clone(),
            );
            registry.register(
                "connections_reused",
                "Queries that ran in a connection kept from one with the same settings",
                own.reused.clone(),
            );
        });
        own
    }

    /// Counts an error that a client is told.
    pub(crate) fn failed(&self, exception: &Exception) {
        self.exceptions.inc();
        // TIMEOUT_EXCEEDED and MEMORY_LIMIT_EXCEEDED.
        if matches!(exception.code, 159 | 241) {
            self.limited.inc();
        }
    }
}
