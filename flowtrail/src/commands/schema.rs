//! `flowtrail schema`: the tables in ClickHouse.

use anyhow::bail;
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use flowtrail_schema::sql::{MIGRATIONS, Migration, VERSION};
use flowtrail_service::audit::Report;
use flowtrail_service::instant;
use flowtrail_service::store::ClickHouseArgs;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the DDL, in the order it is applied.
    Print,
    /// Make the database and apply the migrations that are missing.
    Apply(ClickHouseArgs),
    /// Check that ClickHouse holds the schema this program works with.
    Check(ClickHouseArgs),
    /// Prove that a window is whole: print what was lost, delivered twice or summed wrongly, and fail
    /// if there is anything.
    Audit(AuditArguments),
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
    if let Action::Apply(store) | Action::Check(store) = &arguments.action {
        store.validate()?;
    }
    if check {
        return super::configuration_is_valid();
    }
    match arguments.action {
        Action::Print => {
            let numbered = MIGRATIONS.iter().map(|migration| {
                let Migration { version, name, statement } = migration;
                format!("-- {version:04}_{name}.sql\n{};\n", statement.trim())
            });
            super::print(&numbered.collect::<Vec<_>>().join("\n"))
        }
        Action::Apply(store) => {
            let applied = store.migrate().await?;
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
