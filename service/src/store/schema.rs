//! The tables: made, altered, and kept for as long as was said; on one server or on a cluster.

use std::time::Duration;

use clap::Args;
use clickhouse::{Client, Row};
use flowtrail_schema::sql::{self, Cluster, Form, MIGRATIONS, Migration, Retention, VERSION};
use serde::Serialize;
use tracing::info;

use super::{ClickHouseArgs, StoreError};
use crate::config::duration;

/// How long rows are kept. What is not said stays as it is: 14 days of raw rows in new tables, 90 days of
/// edges of minutes and of all else, 2 years of edges of hours, days and weeks and of coverage by the hour.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
pub struct RetentionArgs {
    /// How long raw rows are kept.
    #[arg(long, env = "FLOWTRAIL_RETAIN_FLOWS", value_parser = duration, value_name = "DURATION", help_heading = "Retention")]
    pub retain_flows: Option<Duration>,

    /// How long edges of minutes are kept: as long as raw rows, or longer.
    #[arg(long, env = "FLOWTRAIL_RETAIN_MINUTES", value_parser = duration, value_name = "DURATION", help_heading = "Retention")]
    pub retain_minutes: Option<Duration>,

    /// How long edges of hours, days and weeks, and coverage by the hour, are kept: as long as edges of minutes, or longer.
    #[arg(long, env = "FLOWTRAIL_RETAIN_HOURS", value_parser = duration, value_name = "DURATION", help_heading = "Retention")]
    pub retain_hours: Option<Duration>,

    /// How long agents' reports are kept: as long as raw rows, or longer.
    #[arg(long, env = "FLOWTRAIL_RETAIN_COVERAGE", value_parser = duration, value_name = "DURATION", help_heading = "Retention")]
    pub retain_coverage: Option<Duration>,

    /// How long it is kept what was delivered: as long as raw rows, or longer.
    #[arg(long, env = "FLOWTRAIL_RETAIN_DELIVERIES", value_parser = duration, value_name = "DURATION", help_heading = "Retention")]
    pub retain_deliveries: Option<Duration>,

    /// How long it is kept who owned an address, since it was last known to be owned.
    #[arg(long, env = "FLOWTRAIL_RETAIN_IDENTITIES", value_parser = duration, value_name = "DURATION", help_heading = "Retention")]
    pub retain_identities: Option<Duration>,
}

impl RetentionArgs {
    /// What was said.
    ///
    /// # Errors
    /// If it contradicts itself.
    pub fn retention(&self) -> Result<Retention, StoreError> {
        let said = Retention {
            flows: self.retain_flows,
            minutes: self.retain_minutes,
            hours: self.retain_hours,
            coverage: self.retain_coverage,
            deliveries: self.retain_deliveries,
            identities: self.retain_identities,
        };
        said.validate()?;
        Ok(said)
    }
}

#[derive(Row, Serialize)]
struct Applied {
    version: u32,
    name: String,
}

impl ClickHouseArgs {
    /// Makes the database and applies the migrations that are missing, as plain tables. Returns how many were.
    ///
    /// # Errors
    /// As [`ClickHouseArgs::apply`].
    pub async fn migrate(&self) -> Result<u32, StoreError> {
        self.apply(&Form::default()).await
    }

    /// Makes the database, applies the migrations that are missing, and sets what is to be kept for another
    /// time than it is. Returns how many migrations there were.
    ///
    /// # Errors
    /// If ClickHouse is away or refuses a statement, holds a newer schema, or one of another form; if its
    /// configuration has no such cluster; if something would be kept shorter than what depends on it.
    pub async fn apply(&self, form: &Form) -> Result<u32, StoreError> {
        self.check_form(form).await?;
        let database = match &form.cluster {
            Some(cluster) => cluster.create_database(),
            None => format!("CREATE DATABASE IF NOT EXISTS `{}`", self.clickhouse_database),
        };
        self.client_without_database()
            .query_raw(&database)
            .execute()
            .await
            .map_err(|source| self.failed("create the database", source))?;
        let client = self.client();
        execute(&client, &form.schema_migrations(), "create schema_migrations").await?;
        let found = self.version().await?;
        if found > VERSION {
            return Err(StoreError::Newer { found, known: VERSION });
        }
        // Before anything is changed.
        let current = self.retention().await?;
        form.retention.or(&current).or(&Retention::of_schema()).validate()?;
        let steps = MIGRATIONS.iter().zip(form.steps()?);
        let mut applied = 0;
        for (migration, statements) in steps.filter(|(migration, _)| migration.version > found) {
            let Migration { version, name, .. } = migration;
            for statement in statements {
                let what = format!("apply migration {version:04}_{name}");
                execute(&client, &statement, &what).await?;
            }
            record(&client, migration, form).await.map_err(|source| StoreError::Statement {
                what: format!("record migration {version:04}"),
                source,
            })?;
            info!(version, name, "migration applied");
            applied += 1;
        }
        self.retain(form).await?;
        Ok(applied)
    }

    /// The cluster that the tables are laid out for, if they are.
    ///
    /// # Errors
    /// If ClickHouse is away.
    pub async fn cluster(&self) -> Result<Option<String>, StoreError> {
        let engines = self.tables("engine = 'Distributed'", "engine_full").await?;
        // Distributed('cluster', 'database', …
        let name = engines.first().and_then(|(_, engine)| engine.split('\'').nth(1));
        Ok(name.map(str::to_owned))
    }

    /// Keeps rows for ever: for a store of old captures, whose rows would be past any retention.
    ///
    /// # Errors
    /// If ClickHouse is away or refuses the statement.
    pub async fn keep_forever(&self) -> Result<(), StoreError> {
        let client = self.client();
        for (table, ddl) in self.tables("engine != 'Distributed'", "create_table_query").await? {
            // Delivered now, so not past it; and without an end they would only become more.
            if sql::kept(&ddl).is_some() && table != "deliveries" {
                let what = format!("remove the retention of {table}");
                execute(&client, &format!("ALTER TABLE {table} REMOVE TTL"), &what).await?;
            }
        }
        Ok(())
    }

    /// Sets what is to be kept for another time than it is.
    async fn retain(&self, form: &Form) -> Result<(), StoreError> {
        // Of each table by itself: an earlier change may have been cut short.
        let current = self.kept().await?;
        let client = self.client();
        for (table, wanted) in form.retention.tables() {
            let Some(wanted) = wanted.filter(|_| wanted != current(table)) else { continue };
            for statement in form.keep(table, wanted)? {
                execute(&client, &statement, &format!("set the retention of {table}")).await?;
            }
            info!(table, seconds = wanted.as_secs(), "retention set");
        }
        Ok(())
    }

    /// How long rows are kept now; `None` of tables that keep theirs for ever.
    ///
    /// # Errors
    /// If ClickHouse is away.
    pub async fn retention(&self) -> Result<Retention, StoreError> {
        Ok(Retention::of_tables(self.kept().await?))
    }

    /// How long each table keeps rows now.
    async fn kept(&self) -> Result<impl Fn(&str) -> Option<Duration> + use<>, StoreError> {
        let tables = self.tables("engine != 'Distributed'", "create_table_query").await?;
        Ok(move |table: &str| {
            let stored = |name: &str| name == table || name.strip_suffix("_local") == Some(table);
            tables.iter().find(|(name, _)| stored(name)).and_then(|(_, ddl)| sql::kept(ddl))
        })
    }

    /// Checks that what is there is of that form, and that there is such a cluster.
    async fn check_form(&self, form: &Form) -> Result<(), StoreError> {
        let asked = form.cluster.as_ref().map(Cluster::name);
        if let Some(asked) = asked {
            let sql = "SELECT DISTINCT cluster, internal_replication FROM system.clusters";
            let clusters: Vec<(String, u8)> = self
                .client_without_database()
                .query(sql)
                .fetch_all()
                .await
                .map_err(|source| self.failed("list clusters", source))?;
            let mut shards = clusters.iter().filter(|(name, _)| name == asked).peekable();
            if shards.peek().is_none() {
                let mut known: Vec<_> = clusters.iter().map(|(name, _)| name.as_str()).collect();
                known.dedup();
                let (name, known) = (asked.to_owned(), known.join(", "));
                return Err(StoreError::NoCluster { name, known });
            }
            if shards.any(|(_, internal_replication)| *internal_replication == 0) {
                return Err(StoreError::NoInternalReplication { name: asked.to_owned() });
            }
        }
        let migrations = self.tables("name = 'schema_migrations'", "engine").await?;
        let is_replicated = |(_, engine): &(String, String)| engine.starts_with("Replicated");
        let found = match migrations.first().map(is_replicated) {
            None => return Ok(()),
            Some(false) => None,
            Some(true) => match self.cluster().await? {
                // Made, and no step applied yet.
                None if asked.is_some() => return Ok(()),
                found => Some(found.unwrap_or_else(|| "that it was begun for".to_owned())),
            },
        };
        if found.as_deref() == asked {
            return Ok(());
        }
        let database = self.clickhouse_database.clone();
        Err(StoreError::OtherForm { database, found, asked: asked.map(str::to_owned) })
    }

    /// The tables that a condition holds for, and something of each.
    async fn tables(
        &self,
        condition: &str,
        what: &str,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let sql = format!(
            "SELECT name, {what} FROM system.tables WHERE database = ? AND {condition} ORDER BY name"
        );
        self.client_without_database()
            .query(&sql)
            .bind(&self.clickhouse_database)
            .fetch_all()
            .await
            .map_err(|source| self.failed("list tables", source))
    }
}

async fn execute(client: &Client, statement: &str, what: &str) -> Result<(), StoreError> {
    // A `?` in DDL (a comment, say) is text, not a placeholder.
    client
        .query_raw(statement)
        .execute()
        .await
        .map_err(|source| StoreError::Statement { what: what.to_owned(), source })
}

async fn record(
    client: &Client,
    migration: &Migration,
    form: &Form,
) -> clickhouse::error::Result<()> {
    let mut insert = client.insert::<Applied>("schema_migrations").await?;
    if form.cluster.is_some() {
        insert = insert.with_setting("insert_quorum", "auto");
    }
    insert.write(&Applied { version: migration.version, name: migration.name.to_owned() }).await?;
    insert.end().await
}
