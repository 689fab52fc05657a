//! What goes wrong between a service and its store, in words that say what to do.

use clickhouse::error::Error;
use flowtrail_schema::sql::{RetentionError, UnknownForm};

/// What goes wrong between a service and its store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer, or an answer that is no ClickHouse's.
    #[error(
        "cannot reach ClickHouse at {url}: check that it runs and --clickhouse-url is its HTTP interface"
    )]
    Unreachable {
        /// The configured address.
        url: String,
        /// What the client says.
        source: Error,
    },
    /// No secure connection, or none to a server that can be trusted.
    #[error(
        "cannot connect to ClickHouse at {url} securely ({reason}): check that the URL is of its HTTPS interface, and --clickhouse-ca-file"
    )]
    Tls {
        /// The configured address.
        url: String,
        /// What is wrong, in TLS's words.
        reason: String,
    },
    /// ClickHouse does not let this user in.
    #[error(
        "ClickHouse at {url} does not let {user} in: check --clickhouse-user and --clickhouse-password-file (or --clickhouse-password)"
    )]
    Refused {
        /// The configured address.
        url: String,
        /// Who asked.
        user: String,
        /// What ClickHouse says.
        source: Error,
    },
    /// The URL is none, or says too much. Not shown: there may be a password in it.
    #[error("--clickhouse-url is not usable: {0}")]
    Url(&'static str),
    /// An authority for a connection without TLS.
    #[error(
        "--clickhouse-ca-file is for an https URL, and --clickhouse-url is {0}: change one of them"
    )]
    NotTls(String),
    /// The tables are of a version that this program does not know.
    #[error(
        "the schema in ClickHouse has version {found}, this program knows up to {known}: use a newer flowtrail"
    )]
    Newer {
        /// Version in the database.
        found: u32,
        /// Newest version of this program.
        known: u32,
    },
    /// The tables were made by steps that are not this program's.
    #[error(
        "step {version} of the schema in ClickHouse is {found}, and {known} in this program: an unreleased flowtrail made these tables; use another database or data folder"
    )]
    Foreign {
        /// The first step that differs.
        version: u32,
        /// Its name in the database.
        found: String,
        /// Its name in this program.
        known: &'static str,
    },
    /// The tables are not there, or older than this program needs.
    #[error(
        "the schema in ClickHouse has version {found}, this program needs {needed}: run `flowtrail schema apply`"
    )]
    Older {
        /// Version in the database; 0 without tables.
        found: u32,
        /// Version of this program.
        needed: u32,
    },
    /// ClickHouse's configuration has no such cluster.
    #[error(
        "ClickHouse knows no cluster {name}: --cluster takes one of its configuration's remote_servers ({known})"
    )]
    NoCluster {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// Distributed tables would write to each replica of a shard by themselves.
    #[error(
        "a shard of the cluster {name} has no internal_replication: set it to true in ClickHouse's configuration, as the tables replicate"
    )]
    NoInternalReplication {
        /// The cluster.
        name: String,
    },
    /// The tables are of one server, or of another cluster.
    #[error(
        "the database {database} holds tables of {}, not of {}: change --cluster, or take another database with --clickhouse-database",
        form(.found), form(.asked)
    )]
    OtherForm {
        /// The database.
        database: String,
        /// Their cluster.
        found: Option<String>,
        /// The one asked for.
        asked: Option<String>,
    },
    /// Rows would be kept for a time that makes no sense.
    #[error(transparent)]
    Retention(#[from] RetentionError),
    /// The schema cannot be laid out for a cluster.
    #[error(transparent)]
    Form(#[from] UnknownForm),
    /// A statement failed.
    #[error("cannot {what}")]
    Statement {
        /// What was being done.
        what: String,
        /// What ClickHouse says.
        source: Error,
    },
}

fn form(cluster: &Option<String>) -> String {
    cluster.as_ref().map_or("one server".to_owned(), |name| format!("the cluster {name}"))
}
