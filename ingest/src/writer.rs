//! A chunk into ClickHouse: flows, then coverage, then deliveries, each as one block under the chunk's
//! token. Retried until it is done: ingest never drops, it lags.

use std::time::{Duration, Instant};

use clickhouse::error::Error;
use clickhouse::{Client, RowOwned, RowWrite};
use flowtrail_schema::row::{CoverageRow, DeliveryRow, FlowRow};
use flowtrail_service::admin::ReadinessPart;
use flowtrail_service::store::ClickHouseArgs;
use flowtrail_service::telemetry::Seldom;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::metrics::IngestMetrics;

/// Pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause between attempts: how long after ClickHouse is back ingest may still wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long a piece of an insert may take to be sent, and the insert to be done, before the attempt
/// is given up: far beyond what a healthy server takes.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
const END_TIMEOUT: Duration = Duration::from_secs(300);

/// How long an attempt that is under way may go on after shutdown: less than the 30 s after which
/// Kubernetes kills.
const FINISH_TIMEOUT: Duration = Duration::from_secs(20);

/// Largest block that an insert is made of, in rows: above every chunk, so that each is one block.
const MAX_BLOCK_ROWS: &str = "1048449";

/// Everything that a chunk becomes.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) flows: Vec<FlowRow>,
    pub(crate) coverage: Vec<CoverageRow>,
    pub(crate) delivery: DeliveryRow,
}

/// The chunk was not inserted: shutdown came first. Nothing of it is committed.
#[derive(Debug)]
pub(crate) struct Abandoned;

/// Inserts chunks.
pub(crate) struct Writer {
    client: Client,
    ready: ReadinessPart,
    metrics: IngestMetrics,
}

impl Writer {
    /// A writer to a store whose schema was checked.
    pub(crate) fn new(
        store: &ClickHouseArgs,
        ready: ReadinessPart,
        metrics: IngestMetrics,
    ) -> Self {
        Self { client: store.client(), ready, metrics }
    }

    /// Inserts a chunk, retrying for as long as it takes; gives up only when told so.
    pub(crate) async fn write(
        &self,
        rows: &Rows,
        give_up: &CancellationToken,
    ) -> Result<(), Abandoned> {
        let begun = Instant::now();
        let (mut pause, mut retried, failure_log) = (FIRST_PAUSE, false, Seldom::default());
        let too_long = async {
            give_up.cancelled().await;
            tokio::time::sleep(FINISH_TIMEOUT).await;
        };
        tokio::pin!(too_long);
        loop {
            let attempt = tokio::select! {
                biased;
                attempt = self.write_once(rows) => attempt,
                () = &mut too_long => return Err(Abandoned),
            };
            let Err((table, error)) = attempt else { break };
            self.ready.set(false);
            self.metrics.insert_failed(table);
            retried = true;
            if failure_log.is_due() {
                warn!(table, %error, "insert failed, retrying until it succeeds; reading waits");
            }
            if give_up.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Err(Abandoned);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        if retried {
            info!(seconds = begun.elapsed().as_secs(), "insert succeeded after retries");
        }
        self.ready.set(true);
        self.metrics.insert_seconds.observe(begun.elapsed().as_secs_f64());
        self.metrics.chunks.inc();
        self.metrics.inserted("flows", rows.flows.len() as u64);
        self.metrics.inserted("coverage", rows.coverage.len() as u64);
        self.metrics.newest_interval.set(rows.delivery.max_interval_start.into());
        Ok(())
    }

    /// One attempt at all three tables; what an earlier attempt inserted is told by the token.
    async fn write_once(&self, rows: &Rows) -> Result<(), (&'static str, Error)> {
        let token = &rows.delivery.token;
        self.insert("flows", &rows.flows, token).await?;
        self.insert("coverage", &rows.coverage, token).await?;
        self.insert("deliveries", std::slice::from_ref(&rows.delivery), token).await
    }

    async fn insert<R>(
        &self,
        table: &'static str,
        rows: &[R],
        token: &str,
    ) -> Result<(), (&'static str, Error)>
    where
        R: RowOwned + RowWrite + Sync,
    {
        if rows.is_empty() {
            return Ok(());
        }
        let all = async {
            // Asks for the table's columns the first time.
            let begun = tokio::time::timeout(SEND_TIMEOUT, self.client.insert::<R>(table)).await;
            let mut insert = begun
                .unwrap_or(Err(Error::TimedOut))?
                .with_timeouts(Some(SEND_TIMEOUT), Some(END_TIMEOUT))
                .with_setting("insert_deduplicate", "1")
                .with_setting("insert_deduplication_token", token)
                .with_setting("async_insert", "0")
                .with_setting("max_insert_threads", "1")
                .with_setting("max_insert_block_size", MAX_BLOCK_ROWS)
                .with_setting("min_insert_block_size_rows", MAX_BLOCK_ROWS)
                .with_setting("min_insert_block_size_bytes", "0");
            for row in rows {
                insert.write(row).await?;
            }
            insert.end().await
        };
        all.await.map_err(|error| (table, error))
    }
}

#[cfg(test)]
mod tests {
    use flowtrail_service::admin::Readiness;
    use flowtrail_service::metrics::Metrics;

    use super::*;
    use crate::chunk::Chunk;
    use crate::source::Envelope;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_holds_up_neither_retries_nor_shutdown() {
        // Accepts connections and never answers.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let store = ClickHouseArgs::at(format!("http://{}", listener.local_addr().unwrap()));
        let metrics = Metrics::new();
        let counted = IngestMetrics::register(&metrics);
        let writer = Writer::new(&store, Readiness::default().part("ingest"), counted);
        let chunk =
            Chunk::begin(&Envelope { partition: 0, offset: 0, time_ms: None, payload: "".into() });
        let delivery = chunk.delivery("topic", "id");
        let rows = Rows { flows: vec![], coverage: vec![], delivery };

        let shutdown = CancellationToken::new();
        let hour = Duration::from_secs(3_600);
        assert!(tokio::time::timeout(hour, writer.write(&rows, &shutdown)).await.is_err());
        let encoded = metrics.encode();
        assert!(encoded.contains("insert_failures_total{table=\"deliveries\"}"), "{encoded}");

        shutdown.cancel();
        let begun = tokio::time::Instant::now();
        let written = tokio::time::timeout(hour, writer.write(&rows, &shutdown)).await;
        assert!(matches!(written, Ok(Err(Abandoned))));
        assert_eq!(begun.elapsed().as_secs(), FINISH_TIMEOUT.as_secs());
    }
}
