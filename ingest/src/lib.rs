//! Ingest: flow records → named rows → ClickHouse.
//!
//! ```text
//! source ── pipeline ─┬─ admission  what keeps the contract
//!  (Kafka,            ├─ dedup      a batch once
//!   channel)          ├─ primary    one observation of a connection counts
//!                     ├─ naming     who its ends are ◄── identity ◄─┬─ names_file
//!                     └─ writer     a chunk into ClickHouse          ├─ watch
//!                                                                    ├─ containers
//!                                                                    └► names_store, over restarts
//! ```
//!
//! [`pipeline`](crate::pipeline) reads as that sentence. Admission, identity, dedup, primary and connections are pure:
//! time is an argument.

mod admission;
mod chunk;
mod cluster;
mod columns;
mod config;
mod connections;
pub mod containers;
mod dead_letters;
mod dedup;
mod edge_metrics;
mod error;
pub mod identity;
mod journal;
mod metrics;
pub mod names;
pub mod names_file;
mod names_store;
mod naming;
mod native;
pub mod objects;
mod partition;
mod pipeline;
mod points;
mod position;
mod primary;
mod row;
mod source;
pub mod watch;
mod writer;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use flowtrail_service::admin::ReadinessPart;
use flowtrail_service::metrics::Metrics;
use flowtrail_service::store::{ClickHouseArgs, StoreError};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

pub use config::Config;
use containers::EngineAddress;
use edge_metrics::EdgeMetrics;
pub use error::IngestError;
use identity::cidr::CidrNames;
use metrics::IngestMetrics;
use names::Names;
use names_file::NamesFile;
use names_store::NamesStore;
use pipeline::Pipeline;
pub use pipeline::Summary;
pub use source::{KafkaSourceArgs, Source};
use writer::Writer;

/// How long the first names from the cluster or the engine are waited for: records named before are unknown for good.
const FIRST_NAMES_TIMEOUT: Duration = Duration::from_secs(30);

/// How long ClickHouse may take to tell its schema's version before that is said and it is asked again.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between attempts to reach ClickHouse at start.
const STORE_RETRY: Duration = Duration::from_secs(2);

/// Ingest, ready to run.
pub struct Ingest {
    config: Config,
    source: Source,
    store: ClickHouseArgs,
    names: Names,
    names_file: Option<NamesFile>,
    kubernetes: Option<kube::Client>,
    metrics: IngestMetrics,
}

impl Ingest {
    /// Puts ingest together and reads the names file; starts nothing yet.
    ///
    /// # Errors
    /// If the names file cannot be read (there are no good names yet that could stay), the socket of
    /// containers is not there, or names of networks contradict each other.
    pub fn new(
        config: Config,
        source: Source,
        store: ClickHouseArgs,
        metrics: &Metrics,
    ) -> Result<Self, IngestError> {
        let names = Names::new(metrics);
        let cidr_names = CidrNames::new(&config.cidr_names)?;
        names.update(|index| index.set_cidr_names(cidr_names));
        let path = config.names.clone();
        let names_file = path.map(|path| NamesFile::open(path, names.clone())).transpose()?;
        config.containers.as_ref().map_or(Ok(()), EngineAddress::check)?;
        let edges = EdgeMetrics::register(metrics, config.edge_metrics_max);
        let metrics = IngestMetrics::register(metrics).with_edges(edges);
        Ok(Self { config, source, store, names, names_file, kubernetes: None, metrics })
    }

    /// Takes names from this cluster, instead of the one that --kubernetes finds.
    pub fn with_kubernetes(mut self, client: kube::Client) -> Self {
        self.kubernetes = Some(client);
        self
    }

    /// Runs until shutdown (what is in hand is inserted and committed first), or, with a channel, until
    /// all senders are gone and everything is inserted: shutdown does not cut that short.
    ///
    /// Waits for ClickHouse and Kafka to be there; ready once they are.
    ///
    /// # Errors
    /// If there is no cluster to get names from, the schema is not this program's, or Kafka fails for good.
    pub async fn run(
        self,
        ready: ReadinessPart,
        shutdown: CancellationToken,
    ) -> Result<Summary, IngestError> {
        let Some(tables) = wait_for_store(&self.store, &shutdown).await? else {
            return Ok(Summary::default());
        };
        let on_cluster = tables.as_deref();
        // A source that nobody could read again is drained instead of stopped.
        let stop = match self.source {
            Source::Channel { .. } => CancellationToken::new(),
            Source::Kafka { .. } => shutdown,
        };
        let names_store =
            NamesStore::new(cluster::client(self.store.client(), on_cluster), &self.names);
        let kubernetes = match (self.kubernetes, self.config.kubernetes) {
            (None, true) => Some(kubernetes_cluster().await?),
            (given, _) => given,
        };
        let sources = Sources {
            file: self.names_file,
            kubernetes,
            containers: self.config.containers.clone(),
        };
        let feeding = feed_names(names_store, sources, &self.names);
        let Some(feeding) = stop.run_until_cancelled(feeding).await else {
            return Ok(Summary::default());
        };
        let dead_letters = self.source.dead_letters(&self.metrics)?;
        let Some(feed) = self.source.open(&self.metrics, &stop).await? else {
            return Ok(Summary::default());
        };
        ready.set(true);
        let pipeline = Pipeline {
            writer: Arc::new(Writer::new(&self.store, on_cluster, ready, self.metrics.clone())),
            config: self.config,
            names: self.names,
            metrics: self.metrics,
            feed,
            dead_letters,
            stop,
            partitions: BTreeMap::new(),
            writes: JoinSet::new(),
            writing: HashSet::new(),
            epochs: 0,
            summary: Summary::default(),
        };
        let summary = pipeline.run().await;
        feeding.end().await;
        summary
    }
}

/// Waits until ClickHouse answers and its schema is this program's. The cluster that its tables are of, if
/// they are; nothing if shutdown came first.
async fn wait_for_store(
    store: &ClickHouseArgs,
    stop: &CancellationToken,
) -> Result<Option<Option<String>>, IngestError> {
    let checked = async {
        loop {
            let found = async {
                store.check().await?;
                store.cluster().await
            };
            match tokio::time::timeout(STORE_TIMEOUT, found).await {
                Ok(Ok(cluster)) => {
                    if let Some(name) = &cluster {
                        info!(name, "the tables are a cluster's");
                    }
                    return Ok(cluster);
                }
                Ok(Err(error @ StoreError::Unreachable { .. })) => {
                    warn!(%error, "waiting for clickhouse");
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {
                    warn!(url = store.clickhouse_url, "waiting for clickhouse, it does not answer");
                }
            }
            tokio::time::sleep(STORE_RETRY).await;
        }
    };
    stop.run_until_cancelled(checked).await.transpose()
}

/// The cluster that this pod runs in, or KUBECONFIG's.
async fn kubernetes_cluster() -> Result<kube::Client, IngestError> {
    let unreachable = |error| IngestError::Kubernetes(Box::new(error));
    let config = kube::Config::infer().await.map_err(kube::Error::InferConfig);
    let mut config = config.map_err(unreachable)?;
    watch::prepare(&mut config);
    kube::Client::try_from(config).map_err(unreachable)
}

/// What feeds the index, and what writes down what becomes of it. Ends when it is dropped.
struct Feeding {
    end: DropGuard,
    writing: JoinHandle<()>,
}

impl Feeding {
    /// Ends it when the last changes are written.
    async fn end(self) {
        drop(self.end);
        // If it broke off, it has said so.
        let _ = self.writing.await;
    }
}

/// Where names come from.
struct Sources {
    file: Option<NamesFile>,
    kubernetes: Option<kube::Client>,
    containers: Option<EngineAddress>,
}

/// Restores names and starts what feeds the index: first what is known, then what is there now.
async fn feed_names(store: NamesStore, sources: Sources, names: &Names) -> Feeding {
    let Sources { file, kubernetes, containers } = sources;
    let token = CancellationToken::new();
    let end = token.clone().drop_guard();
    store.restore().await;
    if let Some(mut file) = file {
        file.apply();
        tokio::spawn(file.follow(token.clone()));
    }
    if let Some(client) = kubernetes {
        let missing = watch::start(&client, names, &token).wait(FIRST_NAMES_TIMEOUT).await;
        if !missing.is_empty() {
            warn!(
                ?missing,
                "starting without all names, as the kubernetes api has not listed these kinds"
            );
        }
    }
    if let Some(address) = containers {
        let listed = containers::start(&address, names, &token);
        if tokio::time::timeout(FIRST_NAMES_TIMEOUT, listed).await.is_err() {
            warn!(%address, "starting without names, as the container engine has not listed its containers");
        }
    }
    Feeding { end, writing: tokio::spawn(store.follow(token)) }
}
