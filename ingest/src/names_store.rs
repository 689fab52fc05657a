//! Names across restarts: ownerships are read from ClickHouse before the first record is named, and written
//! there as they change. Records never wait for the writing: what could not be written stays changed.

use std::time::Duration;

use clickhouse::error::Error;
use clickhouse::{Client, RowOwned, RowWrite};
use flowtrail_schema::row::{IdentitiesSeenRow, IdentityRow};
use flowtrail_service::telemetry::Seldom;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::identity::Changes;
use crate::names::Names;

/// How far back owners are read at start: records may be read as late as Kafka keeps them, seven days by
/// default, and what is held still is written anew every day.
const RELOADED_DAYS: u32 = 8;

/// Rows read at start, at most, the latest first: as many as objects are known at once. About 200 MB
/// while they are taken in.
const MAX_RELOADED: u64 = crate::identity::MAX_OBJECTS as u64;

/// Attempts to read at start, and the pause between them. Without an answer ingest goes on: records are
/// then named by what is known now.
const READ_ATTEMPTS: u32 = 5;
const READ_PAUSE: Duration = Duration::from_secs(2);

/// How long reading, or one insert, may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How often what has changed is written, and the longest pause after failures.
const WRITE_EVERY: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Rows in one insert, about: taking them out holds up lookups for some milliseconds.
const ROWS_PER_INSERT: usize = 5_000;

/// How often it is written when kinds were last seen: so long may be uncertain after a crash.
const SEEN_EVERY: Duration = Duration::from_secs(10);

/// How often what is held still is written anew: well within the table's retention, and once in what is
/// read at start.
const REFRESH_EVERY: Duration = Duration::from_secs(86_400);

/// How long the last writing at shutdown may take.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// The tables `identities` and `identities_seen`.
pub(crate) struct NamesStore {
    client: Client,
    names: Names,
    /// When it was last written what was last seen, and what.
    seen: Option<(Instant, Vec<IdentitiesSeenRow>)>,
    failure_log: Seldom,
}

impl NamesStore {
    /// The tables of a store whose schema was checked.
    pub(crate) fn new(client: Client, names: &Names) -> Self {
        Self { client, names: names.clone(), seen: None, failure_log: Seldom::default() }
    }

    /// Takes in what earlier runs and other replicas knew: before anything else feeds the index.
    pub(crate) async fn restore(&self) {
        for attempt in 1..=READ_ATTEMPTS {
            match timeout(TIMEOUT, self.read()).await.unwrap_or(Err(Error::TimedOut)) {
                Ok((rows, seen)) => {
                    info!(rows = rows.len(), "identities of earlier runs read");
                    if rows.len() as u64 >= MAX_RELOADED {
                        warn!(MAX_RELOADED, "there are more identities, the oldest are left out");
                    }
                    self.names.metrics.restored.inc_by(rows.len() as u64);
                    self.names.update(|index| index.restore(rows, &seen));
                    return;
                }
                Err(error) => {
                    self.names.metrics.store_failures.inc();
                    warn!(%error, attempt, READ_ATTEMPTS, "identities of earlier runs not read");
                }
            }
            if attempt < READ_ATTEMPTS {
                tokio::time::sleep(READ_PAUSE).await;
            }
        }
    }

    async fn read(&self) -> Result<(Vec<IdentityRow>, Vec<IdentitiesSeenRow>), Error> {
        let rows = "SELECT ?fields FROM identities FINAL \
             WHERE greatest(last_seen, released, deleted) > now() - toIntervalDay(?) \
             ORDER BY greatest(last_seen, released, deleted) DESC LIMIT ?";
        let rows = self.client.query(rows).bind(RELOADED_DAYS).bind(MAX_RELOADED);
        let seen = self.client.query("SELECT ?fields FROM identities_seen FINAL");
        Ok((rows.fetch_all().await?, seen.fetch_all().await?))
    }

    /// Writes what changes, until the token is cancelled; and once more then.
    pub(crate) async fn follow(mut self, shutdown: CancellationToken) {
        let mut write = interval(WRITE_EVERY);
        write.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refresh = interval_at(Instant::now() + REFRESH_EVERY, REFRESH_EVERY);
        let mut pause = WRITE_EVERY;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = refresh.tick() => self.names.update(|index| index.refresh()),
                _ = write.tick() => match shutdown.run_until_cancelled(self.write(false)).await {
                    None => break,
                    Some(Ok(())) => pause = WRITE_EVERY,
                    Some(Err(error)) => {
                        self.names.metrics.store_failures.inc();
                        if self.failure_log.is_due() {
                            warn!(%error, "identities not written, retrying; records do not wait");
                        }
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        write.reset_after(pause);
                    }
                },
            }
        }
        let last = timeout(FINISH_TIMEOUT, self.write(true)).await.unwrap_or(Err(Error::TimedOut));
        if let Err(error) = last {
            warn!(%error, "the last changes of identities are not written");
        }
    }

    /// Writes all that has changed.
    async fn write(&mut self, now: bool) -> Result<(), Error> {
        loop {
            let changes = self.names.update(|index| index.take_changes(ROWS_PER_INSERT));
            // A cancelled insert is one that failed: the guard puts back what is not written.
            let mut unwritten = PutBack { names: &self.names, changes: Some(changes) };
            let Some(changes) = &unwritten.changes else { return Ok(()) };
            self.insert("identities", &changes.rows).await?;
            self.names.metrics.stored.inc_by(changes.rows.len() as u64);
            let seen = changes.seen.clone();
            unwritten.changes = None;
            drop(unwritten);
            if seen.is_empty() {
                // There is more, or nothing was ever seen.
                if self.names.read().has_changes() {
                    continue;
                }
                return Ok(());
            }
            let written = self.seen.as_ref();
            let due = written
                .is_none_or(|(at, rows)| *rows != seen && (now || at.elapsed() >= SEEN_EVERY));
            if due {
                self.insert("identities_seen", &seen).await?;
                self.seen = Some((Instant::now(), seen));
            }
            return Ok(());
        }
    }

    async fn insert<R: RowOwned + RowWrite>(
        &self,
        table: &'static str,
        rows: &[R],
    ) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let all = async {
            let mut insert = self.client.insert::<R>(table).await?;
            for row in rows {
                insert.write(row).await?;
            }
            insert.end().await
        };
        timeout(TIMEOUT, all).await.unwrap_or(Err(Error::TimedOut))
    }
}

/// Changes that are put back unless they were written.
struct PutBack<'a> {
    names: &'a Names,
    changes: Option<Changes>,
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        if let Some(changes) = self.changes.take() {
            self.names.update(|index| index.put_back(changes));
        }
    }
}
