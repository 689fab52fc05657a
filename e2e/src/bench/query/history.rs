//! The history: a month of rows, made by the engine itself from their numbers (`flows.sql`), a block of
//! an ingest's size at a time; the materialized views make the rollups, as they do in production.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clickhouse::sql::Identifier;
use clickhouse::{Client, Row};
use flowtrail_schema::sql::{DATABASE, MIGRATIONS};
use flowtrail_service::store::ClickHouseArgs;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::bench::ingest::store::Engine;
use crate::bench::verdict::grouped;

const FLOWS: &str = include_str!("flows.sql");
const COVERAGE: &str = include_str!("coverage.sql");

/// Days: thirty before each instant of the last one.
const DAYS: u64 = 31;
/// Seconds of a day.
pub const DAY_S: u64 = 86_400;
const MINUTES_OF_A_DAY: u64 = 1_440;
/// Rows of a unit of `flows.sql`: two, or one where it leads outside.
const ROWS_OF_A_UNIT: f64 = 1.915;
/// Units of an insert at most: half a million rows, one block.
const BLOCK_UNITS: u64 = 260_000;
/// Agents' reports in a day: `coverage.sql`'s 50 every 10 s.
const REPORTS_OF_A_DAY: u64 = 50 * DAY_S / 10;
/// One unit in so many is of a connection that stays open.
const LONG_LIVED: u64 = 3;
/// How often is tried to merge a partition while the engine is about it itself.
const MERGE_ATTEMPTS: usize = 600;
const MERGE_POLL: Duration = Duration::from_secs(1);

/// What is in the tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The statements that made it, and how many rows were asked for.
    fingerprint: String,
    /// First second, since the epoch; a midnight.
    pub start_s: u64,
    /// Rows of `flows`.
    pub rows: u64,
}

impl History {
    /// The history that is kept in a folder, if it is of about so many rows and made by the same
    /// statements on the same schema; else a new one in its place. It ends with yesterday.
    ///
    /// # Errors
    /// If the engine refuses, or if asked to end meanwhile.
    pub fn prepare(
        engine: &Engine,
        directory: &Path,
        rows: u64,
        shutdown: &CancellationToken,
    ) -> Result<Self> {
        let record = directory.join("history.json");
        let fingerprint = fingerprint(rows);
        match Self::kept(engine, &record, &fingerprint)? {
            Ok(history) => {
                eprintln!(
                    "history: using the {} rows in {}",
                    grouped(history.rows),
                    directory.display()
                );
                return Ok(history);
            }
            Err(why) => eprintln!("history: {why}, making about {} rows …", grouped(rows)),
        }
        if record.exists() {
            std::fs::remove_file(&record)?;
        }
        let today = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / DAY_S;
        let mut history = Self { fingerprint, start_s: (today - DAYS) * DAY_S, rows: 0 };
        let client = engine.create(DATABASE)?;
        engine.block_on(ClickHouseArgs::at(engine.url()).keep_forever())?;
        history.fill(engine, &client, rows, shutdown)?;
        merge(engine, &client, shutdown)?;
        history.rows = engine.count(&client, "flows")?;
        serde_json::to_writer(File::create(&record)?, &history)
            .with_context(|| format!("cannot write {}", record.display()))?;
        Ok(history)
    }

    /// First second after it.
    pub fn end_s(&self) -> u64 {
        self.start_s + DAYS * DAY_S
    }

    /// What a folder holds, or why that is of no use.
    fn kept(
        engine: &Engine,
        record: &Path,
        fingerprint: &str,
    ) -> Result<Result<Self, &'static str>> {
        let Ok(file) = File::open(record) else { return Ok(Err("there is none")) };
        let Ok(history) = serde_json::from_reader::<_, Self>(file) else {
            return Ok(Err("its record cannot be read"));
        };
        if history.fingerprint != fingerprint {
            return Ok(Err("the one kept has other rows or another schema"));
        }
        let rows = engine.count(&client(engine), "flows")?;
        Ok(if rows == history.rows { Ok(history) } else { Err("the one kept is not whole") })
    }

    fn fill(
        &self,
        engine: &Engine,
        client: &Client,
        rows: u64,
        shutdown: &CancellationToken,
    ) -> Result<()> {
        let minutes = DAYS * MINUTES_OF_A_DAY;
        let per_minute = ((rows as f64 / ROWS_OF_A_UNIT / minutes as f64) as u64).max(LONG_LIVED);
        let insert = |statement, [first, count]: [u64; 2]| -> Result<()> {
            if shutdown.is_cancelled() {
                bail!("interrupted");
            }
            let query = client
                .query_raw(statement)
                .with_setting("parallel_view_processing", "1")
                .with_setting("optimize_on_insert", "0")
                .param("start", self.start_s)
                .param("per_minute", per_minute)
                .param("long_lived", per_minute / LONG_LIVED)
                .param("first", first)
                .param("count", count);
            Ok(engine.block_on(query.execute())?)
        };
        let units = per_minute * MINUTES_OF_A_DAY;
        let blocks = units.div_ceil(BLOCK_UNITS);
        for day in 0..DAYS {
            eprintln!("history: day {} of {DAYS}", day + 1);
            insert(COVERAGE, [day * REPORTS_OF_A_DAY, REPORTS_OF_A_DAY])?;
            for block in 0..blocks {
                let [first, end] = [block, block + 1].map(|block| units * block / blocks);
                insert(FLOWS, [day * units + first, end - first])?;
            }
        }
        Ok(())
    }
}

/// A client of the database that the history is in.
pub fn client(engine: &Engine) -> Client {
    ClickHouseArgs::at(engine.url()).client()
}

fn fingerprint(rows: u64) -> String {
    let mut hasher = DefaultHasher::new();
    (rows, DAYS, BLOCK_UNITS, LONG_LIVED, FLOWS, COVERAGE).hash(&mut hasher);
    MIGRATIONS.iter().for_each(|migration| migration.statement.hash(&mut hasher));
    format!("{:016x}", hasher.finish())
}

/// Merges each partition of each table into one part (OPTIMIZE … FINAL), as it becomes by itself when
/// it has not been written to for long: so that two runs measure the same.
fn merge(engine: &Engine, client: &Client, shutdown: &CancellationToken) -> Result<()> {
    #[derive(Row, Deserialize)]
    struct Partition {
        table: String,
        partition_id: String,
    }
    let unmerged = "SELECT table, partition_id FROM system.parts \
         WHERE database = currentDatabase() AND active GROUP BY table, partition_id HAVING count() > 1 \
         ORDER BY table, partition_id";
    for _ in 0..MERGE_ATTEMPTS {
        let partitions: Vec<Partition> = engine.block_on(client.query(unmerged).fetch_all())?;
        if partitions.is_empty() {
            return Ok(());
        }
        eprintln!("history: merging {} partitions", partitions.len());
        for Partition { table, partition_id } in &partitions {
            if shutdown.is_cancelled() {
                bail!("interrupted");
            }
            let statement = client.query("OPTIMIZE TABLE ? PARTITION ID ? FINAL");
            let statement = statement.bind(Identifier(table)).bind(partition_id);
            engine.block_on(statement.execute())?;
        }
        thread::sleep(MERGE_POLL);
    }
    bail!("the engine does not merge its parts")
}
