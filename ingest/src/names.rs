//! The identity index as its feeders (names file, live watch, containers) and its reader (the pipeline) share it.

mod settle;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use flowtrail_service::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

use crate::identity::IdentityIndex;
use crate::objects::Kind;
use settle::Missed;

/// A handle on the index. Clones share it.
#[derive(Clone, Debug)]
pub struct Names {
    index: Arc<RwLock<IdentityIndex>>,
    /// Told of every update.
    updates: Arc<watch::Sender<()>>,
    /// Whether names come while records do.
    live: Arc<AtomicBool>,
    missed: Arc<Mutex<Missed>>,
    pub(crate) metrics: NamesMetrics,
}

impl Names {
    /// An empty index, with its metrics.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            index: Arc::default(),
            updates: Arc::new(watch::Sender::new(())),
            live: Arc::default(),
            missed: Arc::default(),
            metrics: NamesMetrics::register(metrics),
        }
    }

    /// For looking names up: the same answers until the guard is dropped.
    pub fn read(&self) -> RwLockReadGuard<'_, IdentityIndex> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For feeding the index.
    pub fn update<T>(&self, change: impl FnOnce(&mut IdentityIndex) -> T) -> T {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let before = index.counts();
        let changed = change(&mut index);
        let after = index.counts();
        drop(index);
        self.metrics.objects.set(after.objects.try_into().unwrap_or(i64::MAX));
        self.metrics.refused.inc_by(after.refused - before.refused);
        self.metrics.forgotten.inc_by(
            after.forgotten - before.forgotten + after.ownerships_forgotten
                - before.ownerships_forgotten,
        );
        self.updates.send_replace(());
        changed
    }

    /// Says that names come live: a record's may be on its way.
    pub(crate) fn come_live(&self) {
        self.live.store(true, Ordering::Relaxed);
    }
}

/// What becomes of the objects that names come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamesMetrics {
    pub(crate) objects: Gauge,
    pub(crate) refused: Counter,
    pub(crate) forgotten: Counter,
    pub(crate) undecodable: Counter,
    pub(crate) file_failures: Counter,
    pub(crate) watch_failures: Family<KindLabel, Counter>,
    pub(crate) watch_lists: Family<KindLabel, Counter>,
    pub(crate) container_failures: Counter,
    pub(crate) container_lists: Counter,
    pub(crate) containers_missed: Counter,
    pub(crate) waits: Family<WaitLabel, Counter>,
    pub(crate) stored: Counter,
    pub(crate) restored: Counter,
    pub(crate) store_failures: Counter,
}

/// The six kinds: a bounded label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct KindLabel {
    kind: &'static str,
}

/// What a wait for names ended with: `known` or `timeout`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct WaitLabel {
    pub(crate) outcome: &'static str,
}

impl From<Kind> for KindLabel {
    fn from(kind: Kind) -> Self {
        Self { kind: kind.as_str() }
    }
}

impl NamesMetrics {
    fn register(metrics: &Metrics) -> Self {
        let names = Self::default();
        metrics.register(|registry| {
            let NamesMetrics {
                objects,
                refused,
                forgotten,
                undecodable,
                file_failures,
                watch_failures,
                watch_lists,
                container_failures,
                container_lists,
                containers_missed,
                waits,
                stored,
                restored,
                store_failures,
            } = &names;
            registry.register(
                "ingest_names_objects",
                "Kubernetes objects, or containers and networks, known, vanished ones among them",
                objects.clone(),
            );
            registry.register(
                "ingest_names_refused",
                "Objects refused: too many, or without a name",
                refused.clone(),
            );
            registry.register(
                "ingest_names_forgotten",
                "Vanished objects and old owners forgotten to bound memory",
                forgotten.clone(),
            );
            registry.register(
                "ingest_names_undecodable",
                "Objects that could not be decoded; what was known of them stayed",
                undecodable.clone(),
            );
            registry.register(
                "ingest_names_file_failures",
                "Times the names file could not be read; the last good names stayed",
                file_failures.clone(),
            );
            registry.register(
                "ingest_names_watch_failures",
                "Failures of the watch on the Kubernetes API, retried with backoff",
                watch_failures.clone(),
            );
            registry.register(
                "ingest_names_watch_lists",
                "Whole lists taken from the Kubernetes API",
                watch_lists.clone(),
            );
            registry.register(
                "ingest_names_container_failures",
                "Failures to follow the container engine, retried with backoff",
                container_failures.clone(),
            );
            registry.register(
                "ingest_names_container_lists",
                "Whole lists taken from the container engine",
                container_lists.clone(),
            );
            registry.register(
                "ingest_names_containers_missed",
                "Containers that were gone before the engine could be asked for their addresses",
                containers_missed.clone(),
            );
            registry.register(
                "ingest_names_waits",
                "Waits of records for the names of new pods: known, or timeout",
                waits.clone(),
            );
            registry.register(
                "ingest_names_stored",
                "Rows written to the table identities",
                stored.clone(),
            );
            registry.register(
                "ingest_names_restored",
                "Rows read from the table identities at start",
                restored.clone(),
            );
            registry.register(
                "ingest_names_store_failures",
                "Failures to read or write the table identities, retried",
                store_failures.clone(),
            );
        });
        names
    }
}

/// The wall clock, microseconds since the epoch: read only where objects come in.
pub(crate) fn now_us() -> u64 {
    since_epoch_us(SystemTime::now())
}

pub(crate) fn since_epoch_us(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros().try_into().unwrap_or(u64::MAX))
}
