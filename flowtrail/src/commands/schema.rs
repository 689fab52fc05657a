//! `flowtrail schema`: the tables in ClickHouse.

use clap::{Args, Subcommand};
use flowtrail_schema::sql::{MIGRATIONS, Migration, VERSION};
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
        Action::Check(store) => {
            store.check().await?;
            super::print(&format!("schema version {VERSION}: as this program needs it"))
        }
    }
}
