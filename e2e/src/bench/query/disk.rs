//! Where the bytes go: what each table and each column of it takes on the disk.

use anyhow::Result;
use clickhouse::query::Query;
use clickhouse::sql::Identifier;
use clickhouse::{Client, Row};
use serde::Deserialize;

use crate::bench::ingest::store::Engine;
use crate::bench::verdict::{grouped, mebibytes};

/// The least that a column takes of its table to have a line of its own.
const LEAST_SHARE: f64 = 0.005;

/// A table's active parts.
#[derive(Clone, Debug, Row, Deserialize)]
pub struct Table {
    /// Its name.
    pub table: String,
    /// Its rows.
    pub rows: u64,
    /// Its files, bytes.
    pub bytes: u64,
    /// Whether its columns share a file, as in small parts (ClickHouse's compact ones).
    shared: bool,
}

/// What a column takes.
#[derive(Clone, Debug, Row, Deserialize)]
struct Column {
    column: String,
    /// Its data and marks.
    bytes: u64,
}

impl Table {
    /// All tables that hold rows, the largest first.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn all(engine: &Engine, client: &Client) -> Result<Vec<Self>> {
        let query = client.query(
            "SELECT table, sum(p.rows) AS rows, sum(p.bytes_on_disk) AS bytes, \
             toBool(max(p.part_type = 'Compact')) AS shared FROM system.parts AS p \
             WHERE database = currentDatabase() AND active \
             GROUP BY table HAVING rows > 0 ORDER BY bytes DESC",
        );
        Ok(engine.block_on(query.fetch_all())?)
    }

    /// Its columns, the largest first. Where they share a file they are told from a copy in which they
    /// do not, made for that and dropped.
    fn columns(&self, engine: &Engine, client: &Client) -> Result<Vec<Column>> {
        if !self.shared {
            return columns(engine, client, &self.table);
        }
        let copy = format!("{}_by_column", self.table);
        let run = |statement: &str, names: &[&str]| {
            let query = names
                .iter()
                .map(|name| Identifier(name))
                .fold(client.query(statement), Query::bind);
            engine.block_on(query.execute())
        };
        run("DROP TABLE IF EXISTS ? SYNC", &[&copy])?;
        run("CREATE TABLE ? AS ?", &[&copy, &self.table])?;
        run(
            "ALTER TABLE ? MODIFY SETTING min_bytes_for_wide_part = 0, min_rows_for_wide_part = 0",
            &[&copy],
        )?;
        run("INSERT INTO ? SELECT * FROM ?", &[&copy, &self.table])?;
        let columns = columns(engine, client, &copy);
        run("DROP TABLE ? SYNC", &[&copy])?;
        columns
    }

    /// Bytes of a row.
    pub fn row(&self) -> f64 {
        self.bytes as f64 / self.rows as f64
    }

    /// Whether it is a rollup of `flows`: edges of a minute, an hour, a day.
    pub fn is_rollup(&self) -> bool {
        self.table.contains("edges_")
    }

    /// Prints the table and its columns.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn print(&self, engine: &Engine, client: &Client) -> Result<()> {
        println!(
            "\n{}: {} rows, {:.1} MiB, {:.2} bytes a row{}",
            self.table,
            grouped(self.rows),
            mebibytes(self.bytes),
            self.row(),
            if self.shared {
                " (some parts are compact: columns are those of a wide copy)"
            } else {
                ""
            },
        );
        let columns = self.columns(engine, client)?;
        let all: u64 = columns.iter().map(|column| column.bytes).sum();
        let line = |name: &str, bytes: u64| {
            let share = 100.0 * bytes as f64 / all as f64;
            println!("  {:8.2}  {share:4.1} %  {name}", bytes as f64 / self.rows as f64);
        };
        let least = (all as f64 * LEAST_SHARE) as u64;
        let (large, small): (Vec<_>, Vec<_>) =
            columns.iter().partition(|column| column.bytes > least);
        large.iter().for_each(|column| line(&column.column, column.bytes));
        let rest = small.iter().map(|column| column.bytes).sum();
        if !small.is_empty() {
            line(&format!("the other {} columns", small.len()), rest);
        }
        Ok(())
    }
}

fn columns(engine: &Engine, client: &Client, table: &str) -> Result<Vec<Column>> {
    let query = client.query(
        "SELECT column, sum(column_bytes_on_disk) AS bytes FROM system.parts_columns \
         WHERE database = currentDatabase() AND active AND table = ? \
         GROUP BY column ORDER BY bytes DESC, column",
    );
    Ok(engine.block_on(query.bind(table).fetch_all())?)
}
