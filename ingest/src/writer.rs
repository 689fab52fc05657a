//! A chunk into ClickHouse: flows, a block for each day, then coverage, then deliveries, each block under a
//! token of the chunk. Retried until it is done: ingest never drops, it lags.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clickhouse::error::Error;
use clickhouse::{Client, RowOwned, RowWrite};
use flowtrail_schema::row::{CoverageRow, DeliveryRow};
use flowtrail_service::admin::ReadinessPart;
use flowtrail_service::store::ClickHouseArgs;
use flowtrail_service::telemetry::Seldom;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::chunk::ChunkId;
use crate::cluster;
use crate::journal::Journal;
use crate::metrics::{IngestMetrics, Named};
use crate::native::{self, insert_native};

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
pub(crate) const MAX_BLOCK_ROWS: &str = "1048449";

/// Settings of every insert: what it holds is one block, so that its token tells all of it; and a repeated
/// token is told by each view's table too, so that a view which failed is completed and no other grows.
/// The time limit is below [`END_TIMEOUT`]: an attempt that was given up does not go on for long.
///
/// What a view sums is not summed once more before it is written: merges do that anyway, and it would take
/// as long as all else.
const SETTINGS: [(&str, &str); 10] = [
    ("async_insert", "0"),
    ("optimize_on_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("materialized_views_ignore_errors", "0"),
    ("max_insert_threads", "1"),
    ("max_insert_block_size", MAX_BLOCK_ROWS),
    ("min_insert_block_size_rows", MAX_BLOCK_ROWS),
    ("min_insert_block_size_bytes", "0"),
    ("max_execution_time", "240"),
];

/// The tables in the order they are written.
const TABLES: [&str; 3] = ["flows", "coverage", "deliveries"];

/// Everything that a chunk becomes.
#[derive(Debug)]
pub(crate) struct Rows {
    /// By days since the epoch: tables are partitioned by day, so each day's block is one part, written
    /// whole or not at all.
    pub(crate) flows: BTreeMap<u64, native::Rows>,
    pub(crate) coverage: Vec<CoverageRow>,
    pub(crate) delivery: DeliveryRow,
    /// What the names came to.
    pub(crate) named: Named,
}

/// What another process has written of a chunk into `flows`, names as it knew them: all rows of the days
/// (since the epoch) that are there.
pub(crate) type Written = BTreeMap<u64, native::Rows>;

/// The chunk was not inserted: shutdown came first. Nothing of it is committed.
#[derive(Debug)]
pub(crate) struct Abandoned;

/// Inserts chunks.
pub(crate) struct Writer {
    client: Client,
    journal: Journal,
    ready: ReadinessPart,
    metrics: IngestMetrics,
}

/// What failed, and how.
type Failure = (&'static str, Error);

impl Writer {
    /// A writer to a store whose schema was checked, and is that of a cluster or of one server.
    pub(crate) fn new(
        store: &ClickHouseArgs,
        cluster: Option<&str>,
        ready: ReadinessPart,
        metrics: IngestMetrics,
    ) -> Self {
        let client = cluster::client(store.client(), cluster);
        Self { journal: Journal::new(client.clone(), cluster), client, ready, metrics }
    }

    /// What the tables tell of the past.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Inserts a chunk, retrying for as long as it takes; gives up only when told so.
    pub(crate) async fn write(
        &self,
        rows: &Rows,
        give_up: &CancellationToken,
    ) -> Result<(), Abandoned> {
        let mut attempts = Attempts::new(self, give_up);
        while let Err(failure) = attempts.run(self.write_once(rows)).await? {
            attempts.failed(failure).await?;
        }
        self.metrics.insert_seconds.observe(attempts.begun.elapsed().as_secs_f64());
        attempts.succeeded();
        self.metrics.chunks.inc();
        self.metrics.inserted("flows", rows.delivery.records);
        self.metrics.inserted("coverage", rows.coverage.len() as u64);
        self.metrics.newest_interval.set(rows.delivery.max_interval_start.into());
        Ok(())
    }

    /// What is in the tables of a chunk that another process has begun, once nobody writes it any more:
    /// `None` if it is all there.
    pub(crate) async fn written(
        &self,
        delivery: &DeliveryRow,
        as_begun: bool,
        give_up: &CancellationToken,
    ) -> Result<Option<Written>, Abandoned> {
        let mut attempts = Attempts::new(self, give_up);
        let written = loop {
            match attempts.run(self.look(delivery, as_begun)).await? {
                Ok(written) => break written,
                Err(failure) => attempts.failed(failure).await?,
            }
        };
        attempts.succeeded();
        let DeliveryRow { partition, chunk_start, chunk_end, .. } = delivery;
        match &written {
            None => info!(partition, chunk_start, chunk_end, "chunk was in the tables already"),
            Some(written) => info!(
                partition,
                chunk_start,
                chunk_end,
                rows_written = written.values().map(|rows| rows.count).sum::<usize>(),
                "doing a chunk again that was begun and not finished"
            ),
        }
        Ok(written)
    }

    async fn look(
        &self,
        delivery: &DeliveryRow,
        as_begun: bool,
    ) -> Result<Option<Written>, Failure> {
        let DeliveryRow { token, topic_id, partition, chunk_start, .. } = delivery;
        for table in TABLES {
            let running = self.journal.is_running(&query_id(token, table)).await;
            if running.map_err(|error| (table, error))? {
                return Err((table, Error::Custom("an insert of the chunk still runs".to_owned())));
            }
        }
        let chunk = ChunkId { partition: *partition, start: *chunk_start };
        let delivered = self.journal.has(topic_id, chunk).await;
        if delivered.map_err(|error| ("deliveries", error))? {
            return Ok(None);
        }
        // Of messages that are gone no days are known.
        let span = (delivery.min_interval_start, delivery.max_interval_start);
        let span_s = if as_begun { span } else { (0, u32::MAX) };
        let written = self.journal.written(topic_id, chunk, span_s).await;
        written.map(Some).map_err(|error| ("flows", error))
    }

    /// One attempt at all three tables; what an earlier attempt inserted is told by the token.
    async fn write_once(&self, rows: &Rows) -> Result<(), Failure> {
        let token = &rows.delivery.token;
        let [flows, coverage, deliveries] = TABLES;
        for (day, rows) in &rows.flows {
            self.insert_native(flows, rows, token, *day).await?;
        }
        self.insert(coverage, &rows.coverage, token).await?;
        self.insert(deliveries, std::slice::from_ref(&rows.delivery), token).await
    }

    async fn insert_native(
        &self,
        table: &'static str,
        rows: &native::Rows,
        token: &str,
        day: u64,
    ) -> Result<(), Failure> {
        let client = settings(token, &format!("{token}/{day}"), table)
            .fold(self.client.clone(), |client, (name, value)| client.with_setting(name, value));
        let all = async {
            let mut insert =
                insert_native(&client, table).with_timeouts(Some(SEND_TIMEOUT), Some(END_TIMEOUT));
            rows.send(&mut insert).await?;
            insert.end().await
        };
        all.await.map_err(|error| (table, error))
    }

    async fn insert<R>(&self, table: &'static str, rows: &[R], token: &str) -> Result<(), Failure>
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
                .with_timeouts(Some(SEND_TIMEOUT), Some(END_TIMEOUT));
            for (name, value) in settings(token, token, table) {
                insert = insert.with_setting(name, value);
            }
            for row in rows {
                insert.write(row).await?;
            }
            insert.end().await
        };
        all.await.map_err(|error| (table, error))
    }
}

/// ClickHouse takes an id once at a time, so that two attempts at a chunk are never under way at once.
fn query_id(token: &str, table: &str) -> String {
    format!("flowtrail/{token}/{table}")
}

/// Of an insert of a chunk's rows, or of its part under a token of its own.
fn settings(chunk: &str, token: &str, table: &str) -> impl Iterator<Item = (&'static str, String)> {
    let own =
        [("query_id", query_id(chunk, table)), ("insert_deduplication_token", token.to_owned())];
    own.into_iter().chain(SETTINGS.map(|(name, value)| (name, value.to_owned())))
}

/// Attempts at one thing, until it is done or shutdown is overdue.
struct Attempts<'a> {
    writer: &'a Writer,
    give_up: &'a CancellationToken,
    begun: Instant,
    pause: Duration,
    retried: bool,
    failure_log: Seldom,
}

impl<'a> Attempts<'a> {
    fn new(writer: &'a Writer, give_up: &'a CancellationToken) -> Self {
        Self {
            writer,
            give_up,
            begun: Instant::now(),
            pause: FIRST_PAUSE,
            retried: false,
            failure_log: Seldom::default(),
        }
    }

    /// Runs an attempt; once shutdown has come, not for long.
    async fn run<T>(&self, attempt: impl Future<Output = T>) -> Result<T, Abandoned> {
        let too_long = async {
            self.give_up.cancelled().await;
            tokio::time::sleep(FINISH_TIMEOUT).await;
        };
        tokio::select! {
            biased;
            done = attempt => Ok(done),
            () = too_long => Err(Abandoned),
        }
    }

    /// Counts and tells a failure, and waits for the next attempt.
    async fn failed(&mut self, (table, error): Failure) -> Result<(), Abandoned> {
        self.writer.ready.set(false);
        self.writer.metrics.insert_failed(table);
        self.retried = true;
        if self.failure_log.is_due() {
            warn!(table, %error, "insert failed, retrying until it succeeds; reading waits");
        }
        let pause = tokio::time::sleep(self.pause);
        if self.give_up.run_until_cancelled(pause).await.is_none() {
            return Err(Abandoned);
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    fn succeeded(self) {
        if self.retried {
            info!(seconds = self.begun.elapsed().as_secs(), "insert succeeded after retries");
        }
        self.writer.ready.set(true);
    }
}

#[cfg(test)]
mod tests {
    use flowtrail_service::admin::Readiness;
    use flowtrail_service::metrics::Metrics;

    use super::*;
    use crate::chunk::Chunk;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_holds_up_neither_retries_nor_shutdown() {
        // Accepts connections and never answers.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let store = ClickHouseArgs::at(format!("http://{}", listener.local_addr().unwrap()));
        let metrics = Metrics::new();
        let counted = IngestMetrics::register(&metrics);
        let writer = Writer::new(&store, None, Readiness::default().part("ingest"), counted);
        let chunk = Chunk::begin(0, 0);
        let delivery = chunk.delivery("topic", "id");
        let rows =
            Rows { flows: BTreeMap::new(), coverage: vec![], delivery, named: Named::default() };

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
