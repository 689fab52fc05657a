//! The way to ClickHouse: connection settings, and the schema's version.
//!
//! The embedded engine, a server and a cluster are all reached over HTTP by the same client.

use clap::Args;
use clickhouse::{Client, Row};
use flowtrail_schema::sql::{DATABASE, MIGRATIONS, SCHEMA_MIGRATIONS, VERSION};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::info;

/// Where ClickHouse is and who asks.
#[derive(Args, Clone, Debug)]
pub struct ClickHouseArgs {
    /// ClickHouse's HTTP interface.
    #[arg(
        long,
        env = "FLOWTRAIL_CLICKHOUSE_URL",
        default_value = "http://127.0.0.1:8123",
        value_name = "URL",
        help_heading = "ClickHouse"
    )]
    pub clickhouse_url: String,

    /// Database that holds Flowtrail's tables.
    #[arg(long, env = "FLOWTRAIL_CLICKHOUSE_DATABASE", default_value = DATABASE, value_name = "NAME", help_heading = "ClickHouse")]
    pub clickhouse_database: String,

    /// User to connect as; ClickHouse's default user without it.
    #[arg(
        long,
        env = "FLOWTRAIL_CLICKHOUSE_USER",
        value_name = "NAME",
        help_heading = "ClickHouse"
    )]
    pub clickhouse_user: Option<String>,

    /// Password of that user; better given in the environment than on the command line.
    #[arg(
        long,
        env = "FLOWTRAIL_CLICKHOUSE_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD",
        help_heading = "ClickHouse"
    )]
    pub clickhouse_password: Option<String>,
}

/// What goes wrong between a service and its store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// No answer, or an answer that is no ClickHouse's.
    #[error(
        "cannot reach ClickHouse at {url}: check that it runs and --clickhouse-url is its HTTP interface"
    )]
    Unreachable {
        /// The configured address.
        url: String,
        /// What the client says.
        source: clickhouse::error::Error,
    },
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
    /// A statement failed.
    #[error("cannot {what}")]
    Statement {
        /// What was being done.
        what: String,
        /// What ClickHouse says.
        source: clickhouse::error::Error,
    },
}

impl ClickHouseArgs {
    /// Settings for a store at a URL, all else by default.
    pub fn at(url: String) -> Self {
        Self {
            clickhouse_url: url,
            clickhouse_database: DATABASE.to_owned(),
            clickhouse_user: None,
            clickhouse_password: None,
        }
    }

    /// A client for the configured database. Connects when used.
    pub fn client(&self) -> Client {
        self.client_without_database().with_database(&self.clickhouse_database)
    }

    fn client_without_database(&self) -> Client {
        let mut client = Client::default().with_url(&self.clickhouse_url);
        if let Some(user) = &self.clickhouse_user {
            client = client.with_user(user);
        }
        if let Some(password) = &self.clickhouse_password {
            client = client.with_password(password);
        }
        client
    }

    /// Makes the database and applies the migrations that are missing. Returns how many were.
    ///
    /// # Errors
    /// If ClickHouse is away, refuses a statement, or holds a newer schema.
    pub async fn migrate(&self) -> Result<u32, StoreError> {
        let statement = format!("CREATE DATABASE IF NOT EXISTS `{}`", self.clickhouse_database);
        self.client_without_database()
            .query(&statement)
            .execute()
            .await
            .map_err(|source| self.unreachable_or("create the database", source))?;
        let client = self.client();
        execute(&client, SCHEMA_MIGRATIONS, "create schema_migrations").await?;
        let found = self.version().await?;
        if found > VERSION {
            return Err(StoreError::Newer { found, known: VERSION });
        }
        let missing = MIGRATIONS.iter().filter(|migration| migration.version > found);
        for migration in missing.clone() {
            let what = format!("apply migration {:04}_{}", migration.version, migration.name);
            execute(&client, migration.statement, &what).await?;
            let applied = Applied { version: migration.version, name: migration.name.to_owned() };
            record(&client, &applied).await.map_err(|source| StoreError::Statement {
                what: format!("record migration {:04}", migration.version),
                source,
            })?;
            info!(version = migration.version, name = migration.name, "migration applied");
        }
        Ok(missing.count() as u32)
    }

    /// Checks that the tables are of the version this program works with.
    ///
    /// # Errors
    /// If ClickHouse is away, or holds an older or a newer schema.
    pub async fn check(&self) -> Result<(), StoreError> {
        match self.version().await? {
            found if found > VERSION => Err(StoreError::Newer { found, known: VERSION }),
            found if found < VERSION => Err(StoreError::Older { found, needed: VERSION }),
            _ => Ok(()),
        }
    }

    /// Keeps rows for ever: for a store of old captures, whose rows would be past any retention.
    ///
    /// # Errors
    /// If ClickHouse is away or refuses the statement.
    pub async fn keep_forever(&self) -> Result<(), StoreError> {
        let client = self.client();
        for table in ["flows", "coverage", "identities"] {
            #[derive(Row, Deserialize)]
            struct Ddl {
                create_table_query: String,
            }
            let what = format!("remove the retention of {table}");
            let ddl: Ddl = client
                .query("SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = ?")
                .bind(table)
                .fetch_one()
                .await
                .map_err(|source| self.unreachable_or(&what, source))?;
            if ddl.create_table_query.contains(" TTL ") {
                execute(&client, &format!("ALTER TABLE {table} REMOVE TTL"), &what).await?;
            }
        }
        Ok(())
    }

    /// The applied version; 0 without tables.
    async fn version(&self) -> Result<u32, StoreError> {
        #[derive(Row, Deserialize)]
        struct Count {
            tables: u64,
        }
        #[derive(Row, Deserialize)]
        struct Version {
            version: u32,
        }
        let there: Count = self
            .client_without_database()
            .query("SELECT count() AS tables FROM system.tables WHERE database = ? AND name = 'schema_migrations'")
            .bind(&self.clickhouse_database)
            .fetch_one()
            .await
            .map_err(|source| self.unreachable_or("look for schema_migrations", source))?;
        if there.tables == 0 {
            return Ok(0);
        }
        let version: Version = self
            .client()
            .query("SELECT max(version) AS version FROM schema_migrations")
            .fetch_one()
            .await
            .map_err(|source| self.unreachable_or("read schema_migrations", source))?;
        Ok(version.version)
    }

    fn unreachable_or(&self, what: &str, source: clickhouse::error::Error) -> StoreError {
        match source {
            clickhouse::error::Error::Network(_) | clickhouse::error::Error::TimedOut => {
                StoreError::Unreachable { url: self.clickhouse_url.clone(), source }
            }
            source => StoreError::Statement { what: what.to_owned(), source },
        }
    }
}

#[derive(Row, Serialize)]
struct Applied {
    version: u32,
    name: String,
}

async fn execute(client: &Client, statement: &str, what: &str) -> Result<(), StoreError> {
    // A `?` in DDL (a comment, say) is text, not a placeholder.
    client
        .query_raw(statement)
        .execute()
        .await
        .map_err(|source| StoreError::Statement { what: what.to_owned(), source })
}

async fn record(client: &Client, applied: &Applied) -> clickhouse::error::Result<()> {
    let mut insert = client.insert::<Applied>("schema_migrations").await?;
    insert.write(applied).await?;
    insert.end().await
}
