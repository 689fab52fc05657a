//! ClickHouse for tests of the distributed shape: the embedded engine behind its HTTP interface, as a
//! server would be.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Result, bail};
use flowtrail_embedded::{Config, Engine};
use flowtrail_service::metrics::Metrics;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running store. Dropping it stops the engine, for good: one a process.
#[derive(Debug)]
pub struct Store {
    url: String,
    runtime: Runtime,
    shutdown: CancellationToken,
    served: Option<JoinHandle<()>>,
}

impl Store {
    /// Starts the engine on a data directory and a free port.
    ///
    /// # Errors
    /// Without the engine's library (`make engine`).
    pub fn start(directory: &Path) -> Result<Self> {
        let config = Config {
            engine: None,
            data: Some(directory.join("store")),
            clickhouse_listen: (Ipv4Addr::LOCALHOST, 0).into(),
        };
        let engine = Engine::open(&config)?;
        let runtime = Runtime::new()?;
        let listener = runtime
            .block_on(flowtrail_service::net::listen(config.clickhouse_listen, "a free port"))?;
        let url = format!("http://{}", listener.local_addr()?);
        let shutdown = CancellationToken::new();
        let ended = shutdown.clone();
        let served = runtime.spawn(async move {
            flowtrail_embedded::serve(engine, listener, &Metrics::new(), ended).await;
        });
        Ok(Self { url, runtime, shutdown, served: Some(served) })
    }

    /// Its HTTP interface.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// What the engine answers to a query, without the line's end.
    ///
    /// # Errors
    /// If it refuses it; with what it says.
    pub fn ask(&self, sql: &str) -> Result<String> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.post(format!("{}/?database=flowtrail", self.url)).send(sql)?;
        let text = answer.body_mut().read_to_string()?;
        if !answer.status().is_success() {
            bail!("{sql}: {text}");
        }
        Ok(text.trim_end().to_owned())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(served) = self.served.take() {
            let _ = self.runtime.block_on(served);
        }
    }
}
