//! The service: configuration, start and end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use flowtrail_service::admin::{self, Readiness, ReadinessPart};
use flowtrail_service::config::duration;
use flowtrail_service::metrics::Metrics;
use flowtrail_service::net::{ListenError, listen};
use flowtrail_service::serve::serve_router;
use flowtrail_service::store::{ClickHouseArgs, StoreError};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::access::{Access, TokenFileError, warn_if_world_readable};
use crate::http::{self, App};
use crate::metrics::QueryMetrics;
use crate::store::{Limits, Store};

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

    /// Answers computed at the same time; further ones wait their turn, 200 of them and 10s at most, else they are told
    /// to come again (HTTP 429). What is asked by several at once is computed once.
    #[arg(
        long,
        env = "FLOWTRAIL_MAX_CONCURRENT_QUERIES",
        default_value = "8",
        value_name = "COUNT",
        help_heading = "Query"
    )]
    pub max_concurrent_queries: u16,

    /// Most memory that ClickHouse may take for one statement of an answer, in MiB, at least 16.
    #[arg(
        long,
        env = "FLOWTRAIL_QUERY_MAX_MEMORY_MIB",
        // Aggregates some million groups.
        default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(16..),
        value_name = "MIB",
        help_heading = "Query"
    )]
    pub query_max_memory_mib: u32,

    /// Most rows that ClickHouse may read for one statement of an answer.
    #[arg(
        long,
        env = "FLOWTRAIL_QUERY_MAX_ROWS",
        // What two cores read in half a minute, the default timeout.
        default_value_t = 1_000_000_000,
        value_parser = clap::value_parser!(u64).range(1..),
        value_name = "COUNT",
        help_heading = "Query"
    )]
    pub query_max_rows: u64,

    /// File of tokens, one of which callers then send as a bearer's, or as the password of HTTP's Basic scheme.
    ///
    /// A line is NAME TOKEN NAMESPACES, separated by blanks. NAME is for people. TOKEN has at least 32
    /// letters, digits or -._~+/= (`openssl rand -hex 32` makes one). NAMESPACES is * for everything, or names
    /// separated by commas: such a caller sees the edges with an end in one of them, and of the other
    /// end the namespace, workload and Service, but not its pod, node and addresses. Empty lines and such as begin
    /// with # do not count. The file is reread when it changes.
    #[arg(long, env = "FLOWTRAIL_TOKEN_FILE", value_name = "FILE", help_heading = "Query")]
    pub token_file: Option<PathBuf>,

    /// Let everybody who reaches --listen see everything, also from other machines: for where something in front
    /// asks who they are.
    #[arg(
        long,
        env = "FLOWTRAIL_NO_TOKENS",
        conflicts_with = "token_file",
        help_heading = "Query"
    )]
    pub no_tokens: bool,

    /// Another name that this service is called by where it listens on loopback and takes no tokens: repeated, or
    /// separated by commas.
    ///
    /// Requests must then name localhost, an address, or one of these in their Host header. This keeps pages of other
    /// sites, open in a browser on this machine, from reading what is here (DNS rebinding). A proxy in front that
    /// passes its own name on needs it.
    #[arg(
        long,
        env = "FLOWTRAIL_ALLOWED_HOST",
        value_delimiter = ',',
        value_name = "NAME",
        help_heading = "Query"
    )]
    pub allowed_host: Vec<String>,
}

impl Default for Config {
    /// The flags' defaults.
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 8480).into(),
            query_timeout: Duration::from_secs(30),
            max_concurrent_queries: 8,
            query_max_memory_mib: 1_024,
            query_max_rows: 1_000_000_000,
            token_file: None,
            no_tokens: false,
            allowed_host: Vec::new(),
        }
    }
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
    /// Other machines could read everything.
    #[error(
        "--listen {0} is reached from other machines, and whoever reaches it would see everything: \
         give --token-file, or --no-tokens if something in front of it asks who they are"
    )]
    Open(SocketAddr),
    /// Nobody could be told from anybody.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
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
    access: Access,
    metrics: Metrics,
    readiness: Readiness,
    ready: ReadinessPart,
}

impl Query {
    /// Builds the service. Nothing is opened or asked yet, but the file of tokens is read.
    ///
    /// # Errors
    /// If the configuration makes no sense, or the file of tokens cannot be used.
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
        let access = match &config.token_file {
            Some(path) => Access::of_file(path.clone())?,
            None if config.no_tokens => Access::Open,
            None if config.listen.ip().is_loopback() => {
                Access::Local(config.allowed_host.clone().into())
            }
            None => return Err(QueryError::Open(config.listen)),
        };
        let limits = Limits {
            time: config.query_timeout,
            memory_bytes: u64::from(config.query_max_memory_mib) << 20,
            rows_read: config.query_max_rows,
        };
        let app = App::new(
            Store::new(&store, limits),
            QueryMetrics::new(&metrics),
            config.query_timeout,
            config.max_concurrent_queries,
        );
        let ready = readiness.part("query");
        Ok(Self { config, store, app, access, metrics, readiness, ready })
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
        if let Some(path) = &self.config.token_file {
            warn_if_world_readable(path);
        }
        tokio::spawn(self.access.clone().follow(shutdown.clone()));
        let operations = admin::router(self.metrics, self.readiness);
        let router = http::router(self.app, self.access, operations);
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

    use clap::Parser;

    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_flags() {
        #[derive(Debug, Parser)]
        struct Flags {
            #[command(flatten)]
            config: Config,
        }
        let flags = Flags::parse_from(["flowtrail"]).config;
        assert_eq!(format!("{flags:?}"), format!("{:?}", Config::default()));
    }

    #[tokio::test]
    async fn a_client_that_does_not_end_is_not_waited_for() {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        assert!(!drained(pending(), shutdown.clone(), Duration::from_millis(1)).await);
        assert!(drained(ready(()), shutdown, Duration::from_secs(60)).await);
    }
}
