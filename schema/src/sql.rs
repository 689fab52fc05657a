//! The DDL: `sql/NNNN_name.sql`, one statement each, applied in order.

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

/// All steps, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "flows", statement: include_str!("../sql/0001_flows.sql") },
    Migration { version: 2, name: "coverage", statement: include_str!("../sql/0002_coverage.sql") },
    Migration {
        version: 3,
        name: "deliveries",
        statement: include_str!("../sql/0003_deliveries.sql"),
    },
    Migration {
        version: 4,
        name: "identities",
        statement: include_str!("../sql/0004_identities.sql"),
    },
    Migration {
        version: 5,
        name: "identities_seen",
        statement: include_str!("../sql/0005_identities_seen.sql"),
    },
];

/// The version this program works with: the last step's.
pub const VERSION: u32 = MIGRATIONS.len() as u32;

/// Where applied steps are recorded; made before the first one.
pub const SCHEMA_MIGRATIONS: &str = "CREATE TABLE IF NOT EXISTS schema_migrations \
     (version UInt32, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) \
     ENGINE = MergeTree ORDER BY version";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_like_their_files() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/sql");
        let mut files: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let named: Vec<_> =
            MIGRATIONS.iter().map(|m| format!("{:04}_{}.sql", m.version, m.name)).collect();
        assert_eq!(files, named);
        assert!(MIGRATIONS.iter().zip(1..).all(|(m, version)| m.version == version));
    }
}
