//! The service: configuration, start and end.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use flowtrail_service::admin::{self, Readiness, ReadinessPart, serve_router};
use flowtrail_service::config::duration;
use flowtrail_service::metrics::Metrics;
use flowtrail_service::net::{ListenError, listen};
use flowtrail_service::store::{ClickHouseArgs, StoreError};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::http::{self, App};
use crate::metrics::QueryMetrics;
use crate::store::Store;

/// How long requests under way may take once the end is asked for: within the half minute that
/// Kubernetes gives. A client that does not read or write must not keep the process from ending.
const DRAIN: Duration = Duration::from_secs(10);

/// How questions are answered.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Config {
    /// Address that the HTTP API listens on; port 0 takes any free one.
    #[arg(
        long,
        env = "FLOWTRAIL_LISTEN",
        default_value = "127.0.0.1:8480",
        value_name = "ADDRESS:PORT",
        help_heading = "Query"
    )]
    pub listen: SocketAddr,

    /// Longest time for one answer, at least 1s.
    #[arg(long, env = "FLOWTRAIL_QUERY_TIMEOUT", default_value = "30s", value_parser = duration, value_name = "DURATION", help_heading = "Query")]
    pub query_timeout: Duration,

    /// Graphs computed at the same time; further requests are told to come again (HTTP 429).
    #[arg(
        long,
        env = "FLOWTRAIL_MAX_CONCURRENT_QUERIES",
        default_value = "8",
        value_name = "COUNT",
        help_heading = "Query"
    )]
    pub max_concurrent_queries: u16,
}

/// Why the service cannot start.
#[derive(Debug, Error)]
pub enum QueryError {
    /// The timeout ends every query before it begins.
    #[error("--query-timeout is {0:?}: use 1s or more")]
    Timeout(Duration),
    /// No query would ever be answered.
    #[error("--max-concurrent-queries is 0: use 1 or more")]
    NoQueries,
    /// The port is taken or not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// ClickHouse is away, or its tables are of another version.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The query service, not yet started.
pub struct Query {
    config: Config,
    store: ClickHouseArgs,
    app: App,
    metrics: Metrics,
    readiness: Readiness,
    ready: ReadinessPart,
}

impl Query {
    /// Builds the service. Nothing is opened or asked yet.
    ///
    /// # Errors
    /// If the configuration makes no sense.
    pub fn new(
        config: Config,
        store: ClickHouseArgs,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Result<Self, QueryError> {
        if config.query_timeout < Duration::from_secs(1) {
            return Err(QueryError::Timeout(config.query_timeout));
        }
        if config.max_concurrent_queries == 0 {
            return Err(QueryError::NoQueries);
        }
        let app = App::new(
            Store::new(&store, config.query_timeout),
            QueryMetrics::new(&metrics),
            config.query_timeout,
            config.max_concurrent_queries,
        );
        let ready = readiness.part("query");
        Ok(Self { config, store, app, metrics, readiness, ready })
    }

    /// Takes the configured port. The listener tells the address when the port was 0.
    ///
    /// # Errors
    /// If the port cannot be had.
    pub async fn listen(&self) -> Result<TcpListener, QueryError> {
        Ok(listen(self.config.listen, "--listen").await?)
    }

    /// Checks the schema, then serves until the token is cancelled; requests under way are finished
    /// if they take no longer than ten seconds.
    ///
    /// # Errors
    /// If ClickHouse is away, or its tables are of another version than this program's.
    pub async fn run(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), QueryError> {
        self.store.check().await?;
        self.ready.set(true);
        if let Ok(address) = listener.local_addr() {
            info!(%address, "query is listening");
        }
        let router = http::router(self.app).merge(admin::router(self.metrics, self.readiness));
        if !drained(serve_router(listener, router, shutdown.clone()), shutdown, DRAIN).await {
            warn!("clients do not end, stopping without them");
        }
        self.ready.set(false);
        Ok(())
    }
}

/// Whether serving ended by itself: once a shutdown is asked for it has until the limit.
async fn drained(
    serving: impl Future<Output = ()>,
    shutdown: CancellationToken,
    limit: Duration,
) -> bool {
    let overdue = async {
        shutdown.cancelled().await;
        sleep(limit).await;
    };
    tokio::select! {
        () = serving => true,
        () = overdue => false,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_end_is_not_waited_for() {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        assert!(!drained(pending(), shutdown.clone(), Duration::from_millis(1)).await);
        assert!(drained(ready(()), shutdown, Duration::from_secs(60)).await);
    }
}
