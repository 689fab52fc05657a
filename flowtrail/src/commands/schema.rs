//! `flowtrail schema`: the tables in ClickHouse.

use clap::{Args, Subcommand};
use flowtrail_schema::sql::{MIGRATIONS, VERSION};
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
    if check {
        return super::configuration_is_valid();
    }
    match arguments.action {
        Action::Print => {
            for migration in MIGRATIONS {
                println!("-- {:04}_{}.sql", migration.version, migration.name);
                println!("{};\n", migration.statement.trim());
            }
        }
        Action::Apply(store) => {
            let applied = store.migrate().await?;
            println!(
                "schema version {VERSION}: {applied} of {} migrations applied now",
                MIGRATIONS.len()
            );
        }
        Action::Check(store) => {
            store.check().await?;
            println!("schema version {VERSION}: as this program needs it");
        }
    }
    Ok(())
}
