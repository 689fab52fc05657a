//! `flowtrail schema`: the tables in ClickHouse.

use anyhow::{anyhow, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use flowtrail_schema::sql::{Cluster, DATABASE, Form, MIGRATIONS, Retention, VERSION};
use flowtrail_service::audit::Report;
use flowtrail_service::instant;
use flowtrail_service::store::{ClickHouseArgs, RetentionArgs};

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the DDL, in the order it is applied to a new database.
    Print(PrintArguments),
    /// Make the database, apply the migrations that are missing, and set how long rows are kept.
    Apply(ApplyArguments),
    /// Check that ClickHouse holds the schema this program works with.
    Check(ClickHouseArgs),
    /// Prove that a window is whole: print what was lost, delivered twice or summed wrongly, and fail
    /// if there is anything.
    Audit(AuditArguments),
}

/// What the tables are to be like.
#[derive(Args, Debug)]
struct FormArguments {
    /// Cluster of ClickHouse's configuration to lay the tables out for: replicated ones on all its nodes,
    /// and Distributed ones over them.
    #[arg(long, env = "FLOWTRAIL_CLUSTER", value_name = "NAME")]
    cluster: Option<String>,

    #[command(flatten)]
    retention: RetentionArgs,
}

#[derive(Args, Debug)]
struct PrintArguments {
    /// Database that is to hold the tables.
    #[arg(long, env = "FLOWTRAIL_CLICKHOUSE_DATABASE", default_value = DATABASE, value_name = "NAME")]
    clickhouse_database: String,

    #[command(flatten)]
    form: FormArguments,
}

#[derive(Args, Debug)]
struct ApplyArguments {
    #[command(flatten)]
    form: FormArguments,

    #[command(flatten)]
    clickhouse: ClickHouseArgs,
}

impl FormArguments {
    fn form(&self, database: &str) -> anyhow::Result<Form> {
        let cluster = self.cluster.as_ref().map(|name| {
            Cluster::new(name, database).map_err(|error| anyhow!("--cluster {name}: {error}"))
        });
        Ok(Form { cluster: cluster.transpose()?, retention: self.retention.retention()? })
    }
}

#[derive(Args, Debug)]
struct AuditArguments {
    /// Start of the window: epoch milliseconds, RFC 3339, now, or now-6h.
    #[arg(long, env = "FLOWTRAIL_AUDIT_FROM", default_value = "now-1h", value_name = "TIME", value_parser = instant_ms)]
    from: i64,

    /// End of the window.
    #[arg(long, env = "FLOWTRAIL_AUDIT_TO", default_value = "now", value_name = "TIME", value_parser = instant_ms)]
    to: i64,

    #[command(flatten)]
    clickhouse: ClickHouseArgs,
}

fn instant_ms(text: &str) -> Result<i64, String> {
    instant::parse(text, Utc::now().timestamp_millis()).map_err(str::to_owned)
}

pub(crate) async fn run(arguments: Arguments, check: bool) -> anyhow::Result<()> {
    match &arguments.action {
        Action::Check(store) => store.validate()?,
        Action::Apply(ApplyArguments { form, clickhouse }) => {
            clickhouse.validate()?;
            form.form(&clickhouse.clickhouse_database)?;
        }
        Action::Print(_) | Action::Audit(_) => {}
    }
    if check {
        return super::configuration_is_valid();
    }
    match arguments.action {
        Action::Print(PrintArguments { clickhouse_database, form }) => {
            let form = form.form(&clickhouse_database)?;
            form.retention.or(&Retention::of_schema()).validate()?;
            super::print(&form.print()?)
        }
        Action::Apply(ApplyArguments { form, clickhouse }) => {
            let form = form.form(&clickhouse.clickhouse_database)?;
            let applied = clickhouse.apply(&form).await?;
            let all = MIGRATIONS.len();
            super::print(&format!(
                "schema version {VERSION}: {applied} of {all} migrations applied now"
            ))
        }
        Action::Audit(AuditArguments { from, to, clickhouse }) => {
            if from >= to {
                bail!("--from must be before --to");
            }
            audit(&clickhouse, from, to).await
        }
        Action::Check(store) => {
            store.check().await?;
            super::print(&format!("schema version {VERSION}: as this program needs it"))
        }
    }
}

/// Prints what an audit of `[from, to)`, milliseconds since the epoch, finds.
async fn audit(store: &ClickHouseArgs, from: i64, to: i64) -> anyhow::Result<()> {
    store.check().await?;
    let Report { partitions, chunks, records, checks } = store.audit(from, to).await?;
    let time = |ms: i64| {
        let time = DateTime::from_timestamp_millis(ms).unwrap_or_default();
        time.to_rfc3339_opts(SecondsFormat::Millis, true)
    };
    super::print(&format!(
        "{} to {}: {records} rows in {chunks} chunks of {partitions} partitions",
        time(from),
        time(to)
    ))?;
    let mut found = 0;
    for check in &checks {
        let count = check.findings.len();
        found += count;
        let more = if check.more { " or more" } else { "" };
        match count {
            0 => super::print(&format!("{}: nothing wrong", check.name))?,
            _ => super::print(&format!("{}: {count}{more} wrong", check.name))?,
        }
        for finding in &check.findings {
            super::print(&format!("  {}: {}: {}", finding.problem, finding.place, finding.detail))?;
        }
    }
    if found > 0 {
        bail!(
            "the window is not whole: {found} findings; chunks under way may be among them, ask again in a minute"
        );
    }
    Ok(())
}
