//! Edge traffic for Prometheus: what the primary rows that this process has inserted sum to, by the
//! workloads of both ends. A chunk's rows are folded by their names as they are made ([`EdgeSums`]), and
//! are added to the series when the chunk is in the tables ([`EdgeMetrics`]): one done again counts once.

use std::collections::HashMap;
use std::fmt;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, PoisonError};

use flowtrail_schema::FlowRecord;
use flowtrail_schema::batch::MAX_NAME_BYTES;
use flowtrail_service::metrics::Metrics;
use foldhash::fast::RandomState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;

use crate::identity::Identity;
use crate::naming::ConnectionNames;

/// Edges with series of their own that may be asked for, at most: 140,000 series and a scrape of some
/// 25 MB, about what a Prometheus takes from one target. Graphs of more are what query is for.
pub(crate) const MAX_EDGES: u32 = 20_000;

/// All labels of the series that sums what has no series of its own.
const OTHER: &str = "other";

/// The two ends of an edge. What differs only in the workloads' kinds is one edge here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Edge {
    client_namespace: Arc<str>,
    client_workload: Arc<str>,
    server_namespace: Arc<str>,
    server_workload: Arc<str>,
}

/// What rows sum to. Sums wrap as ClickHouse's do, which to Prometheus is a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    sent_bytes: u64,
    received_bytes: u64,
    /// Opened or joined.
    connections: u64,
    /// Refused or unanswered.
    failed: u64,
    /// Of connections that have closed, microseconds.
    duration_us: u64,
    durations: u64,
}

/// What the primary rows of a chunk sum to.
#[derive(Clone, Debug, Default)]
pub(crate) struct EdgeSums {
    /// By the addresses of both identities, which mean the same throughout as these are held.
    edges: HashMap<(usize, usize), (Arc<ConnectionNames>, Sums), RandomState>,
}

impl EdgeSums {
    /// Adds a primary row.
    pub(crate) fn add(&mut self, record: &FlowRecord, names: &Arc<ConnectionNames>) {
        let address = |identity: &Arc<Identity>| Arc::as_ptr(identity).addr();
        let key = (address(&names.client.identity), address(&names.server.identity));
        let sums = self.edges.entry(key).or_insert_with(|| (Arc::clone(names), Sums::default()));
        sums.1 += Sums::of(record);
    }
}

/// The series. Clones share them.
///
/// An edge that has its series keeps them while the process runs, and all of its traffic is in them; once
/// the cap is reached all other edges are in `other`, for good. So no series ever goes back, and the sum
/// over all is the sum of the rows.
///
/// The duration is a histogram of one bucket: its sum and count are exact, also of summaries, of which
/// nobody knows how the single connections were distributed. Quantiles are in the tables.
#[derive(Clone, Debug)]
pub(crate) struct EdgeMetrics {
    series: Arc<Mutex<Series>>,
}

#[derive(Debug)]
struct Series {
    /// `other` and [`Self::max`] more.
    edges: HashMap<Edge, Sums, RandomState>,
    max: usize,
}

impl EdgeMetrics {
    /// Registers series of so many edges at most; none, not even `other`, if that is 0.
    pub(crate) fn register(metrics: &Metrics, max: u32) -> Option<Self> {
        if max == 0 {
            return None;
        }
        let edges = HashMap::from_iter([(Edge::other(), Sums::default())]);
        let series = Series { edges, max: usize::try_from(max).unwrap_or(usize::MAX) };
        let edges = Self { series: Arc::new(Mutex::new(series)) };
        metrics.register(|registry| registry.register_collector(Box::new(edges.clone())));
        Some(edges)
    }

    /// Adds what a chunk's rows sum to, once it is in the tables.
    pub(crate) fn add(&self, chunk: &EdgeSums) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        for (names, sums) in chunk.edges.values() {
            *series.of(Edge::of(names)) += *sums;
        }
    }

    /// All of it. A copy, so that whoever adds does not wait for a scrape.
    fn read(&self) -> Vec<(Edge, Sums)> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.edges.iter().map(|(edge, sums)| (edge.clone(), *sums)).collect()
    }
}

impl Series {
    fn of(&mut self, edge: Edge) -> &mut Sums {
        let is_known = self.edges.contains_key(&edge);
        let has_room = self.edges.len() <= self.max && edge.fits();
        self.edges.entry(if is_known || has_room { edge } else { Edge::other() }).or_default()
    }
}

impl Edge {
    fn of(names: &ConnectionNames) -> Self {
        let ConnectionNames { client, server, .. } = names;
        Self {
            client_namespace: Arc::clone(&client.identity.namespace),
            client_workload: workload(&client.identity),
            server_namespace: Arc::clone(&server.identity.namespace),
            server_workload: workload(&server.identity),
        }
    }

    /// Whether its names are no longer than Kubernetes' own are: that of an owner may be anything.
    fn fits(&self) -> bool {
        let Self { client_namespace, client_workload, server_namespace, server_workload } = self;
        [client_namespace, client_workload, server_namespace, server_workload]
            .iter()
            .all(|name| name.len() <= MAX_NAME_BYTES)
    }

    fn other() -> Self {
        let other: Arc<str> = OTHER.into();
        Self {
            client_namespace: Arc::clone(&other),
            client_workload: Arc::clone(&other),
            server_namespace: Arc::clone(&other),
            server_workload: other,
        }
    }
}

/// The workload, or what stands for it in a graph: the name (of a node, a network, a Service without
/// pods), or the kind. Never an address: there is no end of these.
fn workload(identity: &Identity) -> Arc<str> {
    let mut told = [&identity.workload, &identity.name].into_iter().filter(|name| !name.is_empty());
    told.next().map_or_else(|| identity.kind.as_str().into(), Arc::clone)
}

impl Sums {
    fn of(record: &FlowRecord) -> Self {
        Self {
            sent_bytes: record.sent.bytes,
            received_bytes: record.received.bytes,
            connections: u64::from(record.opened) + u64::from(record.joined),
            failed: u64::from(record.closed.refused) + u64::from(record.closed.unanswered),
            duration_us: record.duration.sum_us,
            durations: record.duration.count.into(),
        }
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        let Self { sent_bytes, received_bytes, connections, failed, duration_us, durations } = self;
        for (sum, value) in [
            (sent_bytes, other.sent_bytes),
            (received_bytes, other.received_bytes),
            (connections, other.connections),
            (failed, other.failed),
            (duration_us, other.duration_us),
            (durations, other.durations),
        ] {
            *sum = sum.wrapping_add(value);
        }
    }
}

/// [`Edge`] and `sent` (by the client) or `received` (by it).
#[derive(Clone, Debug, EncodeLabelSet)]
struct Directed {
    #[prometheus(flatten)]
    edge: Edge,
    direction: &'static str,
}

impl Collector for EdgeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let edges = self.read();
        let bytes = edges.iter().flat_map(|(edge, sums)| {
            [("sent", sums.sent_bytes), ("received", sums.received_bytes)]
                .map(|(direction, bytes)| (Directed { edge: edge.clone(), direction }, bytes))
        });
        counter("edge_bytes", "Bytes of IP packets, by who called whom", bytes, &mut encoder)?;
        let connections = edges.iter().map(|(edge, sums)| (edge.clone(), sums.connections));
        let help = "Connections opened, or first seen midstream";
        counter("edge_connections", help, connections, &mut encoder)?;
        let failed = edges.iter().map(|(edge, sums)| (edge.clone(), sums.failed));
        let help = "Connections refused or never answered";
        counter("edge_connections_failed", help, failed, &mut encoder)?;
        let mut durations = encoder.encode_descriptor(
            "edge_duration_seconds",
            "First to last packet of connections that have closed: sum and count",
            None,
            MetricType::Histogram,
        )?;
        for (edge, Sums { duration_us, durations: count, .. }) in &edges {
            let seconds = *duration_us as f64 / 1e6;
            let all = [(f64::INFINITY, *count)];
            durations.encode_family(edge)?.encode_histogram::<Edge>(seconds, *count, &all, None)?;
        }
        Ok(())
    }
}

/// Encodes a counter, a series for each labels.
fn counter<L: EncodeLabelSet>(
    name: &str,
    help: &str,
    values: impl Iterator<Item = (L, u64)>,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        metric.encode_family(&labels)?.encode_counter::<L, u64, u64>(&value, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
