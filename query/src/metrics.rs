//! The service's own metrics.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::shared::Origin;

/// Requests by route and outcome. Routes are ours, so labels are few.
#[derive(Clone, Debug)]
pub(crate) struct QueryMetrics {
    requests: Family<RequestLabels, Counter>,
    duration: Family<RouteLabel, Histogram>,
    running: Gauge,
    answers: Family<SourceLabel, Counter>,
}

/// A graph being computed, until dropped: also when its caller has gone.
pub(crate) struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

impl QueryMetrics {
    pub(crate) fn new(metrics: &flowtrail_service::metrics::Metrics) -> Self {
        // From an empty store's answer to the default timeout.
        let seconds = || Histogram::new([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]);
        let new = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(seconds),
            running: Gauge::default(),
            answers: Family::default(),
        };
        metrics.register(|registry| {
            let Self { requests, duration, running, answers } = new.clone();
            registry.register("query_requests", "Requests answered, by route and status", requests);
            registry.register(
                "query_request_duration_seconds",
                "Time from a request to its answer",
                duration,
            );
            registry.register("query_running", "Graphs being computed now", running);
            registry.register(
                "query_answers",
                "Answers that may be shared, by whether they were computed or were there already",
                answers,
            );
        });
        new
    }

    /// Counts a graph as being computed.
    pub(crate) fn running(&self) -> Running {
        self.running.inc();
        Running(self.running.clone())
    }

    /// Counts where an answer came from.
    pub(crate) fn came_from(&self, origin: Origin) {
        let source = match origin {
            Origin::Computed => "computed",
            Origin::Shared => "shared",
        };
        self.answers.get_or_create(&SourceLabel { source }).inc();
    }

    /// Counts an answer. `route` is the route's pattern, none for a path that is not ours.
    pub(crate) fn answered(&self, route: Option<&str>, status: u16, took: Duration) {
        let route = route.unwrap_or("unknown").to_owned();
        self.requests.get_or_create(&RequestLabels { route: route.clone(), status }).inc();
        self.duration.get_or_create(&RouteLabel { route }).observe(took.as_secs_f64());
    }
}
