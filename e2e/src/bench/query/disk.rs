//! Where the bytes go: what each table and each column of it takes on the disk.

use anyhow::Result;
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
    /// Its columns with their bytes, marks included, the largest first. What the columns do not have is
    /// primary keys, checksums and the like; all of it, where parts are so small that columns share a file.
    pub columns: Vec<(String, u64)>,
}

impl Table {
    /// All tables that hold rows, the largest first.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn all(engine: &Engine, client: &Client) -> Result<Vec<Self>> {
        let query = client.query(
            "SELECT p.table AS table, p.rows AS rows, p.bytes AS bytes, c.columns AS columns
             FROM (
                 SELECT table, sum(rows) AS rows, sum(bytes_on_disk) AS bytes FROM system.parts
                 WHERE database = currentDatabase() AND active GROUP BY table
             ) AS p
             INNER JOIN (
                 SELECT table, arraySort(c -> -c.2, groupArray((column, bytes))) AS columns
                 FROM (
                     SELECT table, column, sum(column_bytes_on_disk) AS bytes FROM system.parts_columns
                     WHERE database = currentDatabase() AND active GROUP BY table, column
                 )
                 GROUP BY table
             ) AS c ON p.table = c.table
             WHERE p.rows > 0 ORDER BY bytes DESC",
        );
        Ok(engine.block_on(query.fetch_all())?)
    }

    /// Bytes of a row.
    pub fn row(&self) -> f64 {
        self.bytes as f64 / self.rows as f64
    }

    /// Whether it is a rollup of `flows`.
    pub fn is_rollup(&self) -> bool {
        self.table.starts_with("edges_")
    }

    /// Prints the table and its columns.
    pub fn print(&self) {
        println!(
            "\n{}: {} rows, {:.1} MiB, {:.2} bytes a row",
            self.table,
            grouped(self.rows),
            mebibytes(self.bytes),
            self.row()
        );
        let line = |name: &str, bytes: u64| {
            let share = 100.0 * bytes as f64 / self.bytes as f64;
            println!("  {:8.2}  {share:4.1} %  {name}", bytes as f64 / self.rows as f64);
        };
        let least = (self.bytes as f64 * LEAST_SHARE) as u64;
        let shown = self.columns.iter().take_while(|(_, bytes)| *bytes > least);
        let (mut count, mut rest) = (0, self.bytes);
        for (name, bytes) in shown {
            line(name, *bytes);
            count += 1;
            rest = rest.saturating_sub(*bytes);
        }
        line(&format!("{} other columns, keys and checksums", self.columns.len() - count), rest);
    }
}
