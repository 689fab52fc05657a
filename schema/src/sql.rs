//! The DDL: `sql/NNNN_name.sql`, one statement each, applied in order; and what else it can look like: on a
//! cluster, and with rows kept for other times.

use std::fmt::Write;

mod cluster;
mod retention;
mod tokens;

pub use cluster::{Cluster, UnknownForm};
pub use retention::{Retention, RetentionError, keep, kept};

/// The database that everything lives in, unless configured otherwise.
pub const DATABASE: &str = "flowtrail";

/// One numbered step of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its number; they are contiguous from 1.
    pub version: u32,
    /// Its name, for people.
    pub name: &'static str,
    /// One statement, for the database [`DATABASE`] as the current one.
    pub statement: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal $file:literal,)*) => {
        &[$(Migration {
            version: $version,
            name: $name,
            statement: include_str!(concat!("../sql/", $file)),
        }),*]
    };
}

/// All steps, in order.
pub const MIGRATIONS: &[Migration] = migrations![
    1 "flows" "0001_flows.sql",
    2 "coverage" "0002_coverage.sql",
    3 "deliveries" "0003_deliveries.sql",
    4 "edges_1m" "0004_edges_1m.sql",
    5 "edges_1h" "0005_edges_1h.sql",
    6 "edges_1d" "0006_edges_1d.sql",
    7 "edges_1w" "0007_edges_1w.sql",
    8 "workload_edges_1h" "0008_workload_edges_1h.sql",
    9 "workload_edges_1d" "0009_workload_edges_1d.sql",
    10 "workload_edges_1w" "0010_workload_edges_1w.sql",
    11 "coverage_1h" "0011_coverage_1h.sql",
    12 "edges_1m_view" "0012_edges_1m_view.sql",
    13 "edges_1h_view" "0013_edges_1h_view.sql",
    14 "edges_1d_view" "0014_edges_1d_view.sql",
    15 "edges_1w_view" "0015_edges_1w_view.sql",
    16 "workload_edges_1h_view" "0016_workload_edges_1h_view.sql",
    17 "workload_edges_1d_view" "0017_workload_edges_1d_view.sql",
    18 "workload_edges_1w_view" "0018_workload_edges_1w_view.sql",
    19 "coverage_1h_view" "0019_coverage_1h_view.sql",
    20 "identities" "0020_identities.sql",
    21 "identities_seen" "0021_identities_seen.sql",
    22 "flows_named" "0022_flows_named.sql",
    23 "edges" "0023_edges.sql",
];

/// What the schema is to look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// Replicated and sharded there; else plain tables of one server.
    pub cluster: Option<Cluster>,
    /// How long rows are kept.
    pub retention: Retention,
}

impl Form {
    /// The statements of each of [`MIGRATIONS`].
    ///
    /// # Errors
    /// If a step has no form for a cluster.
    pub fn steps(&self) -> Result<Vec<Vec<String>>, UnknownForm> {
        let statements =
            MIGRATIONS.iter().map(|migration| self.retention.applied(migration.statement));
        self.forms(statements.collect())
    }

    /// The statements that make a table keep its rows so long: see [`keep`].
    ///
    /// # Errors
    /// As [`Form::steps`].
    pub fn keep(&self, table: &str, kept: std::time::Duration) -> Result<Vec<String>, UnknownForm> {
        let statements = keep(table, kept).map(Vec::from).unwrap_or_default();
        Ok(self.forms(statements)?.concat())
    }

    /// The name of the table that holds a table's rows.
    pub fn stored(&self, table: &str) -> String {
        format!("{table}{}", if self.cluster.is_some() { "_local" } else { "" })
    }

    /// Makes the table where applied steps are recorded; before the first one.
    pub fn schema_migrations(&self) -> String {
        let cluster = self.cluster.as_ref();
        cluster.map_or_else(|| SCHEMA_MIGRATIONS.to_owned(), Cluster::schema_migrations)
    }

    /// All of it, for people: in the order it is applied.
    ///
    /// # Errors
    /// As [`Form::steps`].
    pub fn print(&self) -> Result<String, UnknownForm> {
        let mut text = String::new();
        for (Migration { version, name, .. }, statements) in MIGRATIONS.iter().zip(self.steps()?) {
            let separator = if text.is_empty() { "" } else { "\n" };
            // Writing to a String does not fail.
            let _ = writeln!(text, "{separator}-- {version:04}_{name}.sql");
            for statement in statements {
                let _ = writeln!(text, "{};", statement.trim());
            }
        }
        Ok(text)
    }

    fn forms(&self, statements: Vec<String>) -> Result<Vec<Vec<String>>, UnknownForm> {
        match &self.cluster {
            Some(cluster) => {
                cluster.forms(&statements, MIGRATIONS.iter().map(|step| step.statement))
            }
            None => Ok(statements.into_iter().map(|statement| vec![statement]).collect()),
        }
    }
}

/// The version this program works with: the last step's.
pub const VERSION: u32 = MIGRATIONS.len() as u32;

const SCHEMA_MIGRATIONS: &str = "CREATE TABLE IF NOT EXISTS schema_migrations \
     (version UInt32, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) \
     ENGINE = MergeTree ORDER BY version";

/// A question to the tables whose answer is what is wrong with a window's delivery: columns `problem`,
/// `place` and `detail`, one row each; parameters `from` and `to`, seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// What is looked at.
    pub name: &'static str,
    /// One SELECT.
    pub statement: &'static str,
    /// Further parameters.
    pub parameters: &'static [(&'static str, &'static str)],
}

/// The question whether a rollup holds what it sums.
const fn rollup(name: &'static str, parameters: &'static [(&'static str, &'static str)]) -> Audit {
    Audit { name, statement: include_str!("../sql/audit/rollups.sql"), parameters }
}

/// The question whether weeks hold what days add up to.
const fn weeks(name: &'static str, parameters: &'static [(&'static str, &'static str)]) -> Audit {
    Audit { name, statement: include_str!("../sql/audit/weeks.sql"), parameters }
}

/// All questions, the cheapest first.
pub const AUDITS: &[Audit] = &[
    Audit {
        name: "offset ranges",
        statement: include_str!("../sql/audit/offsets.sql"),
        parameters: &[],
    },
    Audit {
        name: "agents' sequence numbers",
        statement: include_str!("../sql/audit/sequences.sql"),
        parameters: &[],
    },
    Audit {
        name: "rows of each chunk",
        statement: include_str!("../sql/audit/rows.sql"),
        parameters: &[],
    },
    rollup("edges_1m against flows", &[("table", "edges_1m"), ("seconds", "60")]),
    rollup("edges_1h against flows", &[("table", "edges_1h"), ("seconds", "3600")]),
    rollup("edges_1d against flows", &[("table", "edges_1d"), ("seconds", "86400")]),
    rollup(
        "workload_edges_1h against flows",
        &[("table", "workload_edges_1h"), ("seconds", "3600")],
    ),
    rollup(
        "workload_edges_1d against flows",
        &[("table", "workload_edges_1d"), ("seconds", "86400")],
    ),
    weeks("edges_1w against edges_1d", &[("table", "edges_1w"), ("days", "edges_1d")]),
    weeks(
        "workload_edges_1w against workload_edges_1d",
        &[("table", "workload_edges_1w"), ("days", "workload_edges_1d")],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_like_their_files() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/sql");
        let mut files: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".sql"))
            .collect();
        files.sort();
        let named: Vec<_> =
            MIGRATIONS.iter().map(|m| format!("{:04}_{}.sql", m.version, m.name)).collect();
        assert_eq!(files, named);
        assert!(MIGRATIONS.iter().zip(1..).all(|(m, version)| m.version == version));
    }
}
