//! The engine that rows go to, with a new database for each round.

use std::path::Path;

use anyhow::Result;
use clickhouse::sql::Identifier;
use clickhouse::{Client, Row};
use flowtrail_service::store::ClickHouseArgs;
use serde::Deserialize;
use tokio::runtime::Runtime;

use crate::store::Store;

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    store: Store,
    runtime: Runtime,
}

/// What `deliveries` tells of a run.
#[derive(Clone, Copy, Debug, Row, Deserialize)]
pub struct Delivered {
    /// Records in the tables.
    pub records: u64,
    /// Of these, those after the first chunk, which sets the clock going.
    pub timed: u64,
    /// Milliseconds from the first chunk's being there to the last's.
    pub elapsed_ms: u64,
    /// Chunks.
    pub chunks: u64,
}

impl Engine {
    /// Starts it on a folder.
    ///
    /// # Errors
    /// Without the engine's library (`make engine`).
    pub fn start(directory: &Path) -> Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build()?;
        Ok(Self { store: Store::start(directory)?, runtime })
    }

    /// Its HTTP interface.
    pub fn url(&self) -> String {
        self.store.url()
    }

    /// A database with empty tables, also where a run before this one left its own.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn create(&self, name: &str) -> Result<Client> {
        self.drop_database(name)?;
        let args = ClickHouseArgs {
            clickhouse_database: name.to_owned(),
            ..ClickHouseArgs::at(self.url())
        };
        self.runtime.block_on(args.migrate())?;
        Ok(args.client())
    }

    /// A database whose `flows` throws away what it takes, and from which nothing is derived.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn create_without_table(&self, name: &str) -> Result<Client> {
        let client = self.create(name)?;
        let views = "SELECT name FROM system.tables \
             WHERE database = currentDatabase() AND engine = 'MaterializedView'";
        self.runtime.block_on(async {
            for view in client.query(views).fetch_all::<String>().await? {
                client.query("DROP TABLE ?").bind(Identifier(&view)).execute().await?;
            }
            client.query("RENAME TABLE flows TO flows_kept").execute().await?;
            client.query("CREATE TABLE flows AS flows_kept ENGINE = Null").execute().await
        })?;
        Ok(client)
    }

    /// Removes a database and all that is in it.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn drop_database(&self, name: &str) -> Result<()> {
        let client = Client::default().with_url(self.url());
        let dropped = client.query("DROP DATABASE IF EXISTS ? SYNC").bind(Identifier(name));
        Ok(self.runtime.block_on(dropped.execute())?)
    }

    /// Rows in a table, as everyone would count them now.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn count(&self, client: &Client, table: &str) -> Result<u64> {
        let query = client.query("SELECT count() FROM ?").bind(Identifier(table));
        Ok(self.runtime.block_on(query.fetch_one())?)
    }

    /// What has been delivered so far.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn delivered(&self, client: &Client) -> Result<Delivered> {
        let query = client.query(
            "SELECT sum(d.records) AS records, \
             toUInt64(sum(d.records) - argMin(d.records, d.inserted_at)) AS timed, \
             toUInt64(dateDiff('ms', min(d.inserted_at), max(d.inserted_at))) AS elapsed_ms, \
             count() AS chunks FROM deliveries AS d",
        );
        Ok(self.runtime.block_on(query.fetch_one())?)
    }

    /// Runs something that waits for the engine.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}
