//! `flowtrail`: who talked to whom in this Kubernetes cluster, when, how much, and did it work.
//!
//! One binary; each subcommand is one service, put together in its own file under `commands`.

mod commands;
#[cfg(test)]
mod flags;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use flowtrail_service::telemetry::{self, LogArgs};

/// Who talked to whom in this Kubernetes cluster, when, how much, and did it work: for any window in
/// the past.
///
/// Every flag can be given as an environment variable too; `flowtrail COMMAND --help` names it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    log: LogArgs,

    /// Check the configuration and stop before starting anything.
    #[arg(long, env = "FLOWTRAIL_CHECK_CONFIG", global = true, help_heading = "Operations")]
    check_config: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything in one process on this machine: capture, names, store and graph, without Kafka.
    Up(commands::up::Arguments),
    /// The agent: TCP packets of this node (or of a file) to flow records.
    Capture(commands::capture::Arguments),
    /// Flow records from Kafka to named rows in ClickHouse.
    Ingest(commands::ingest::Arguments),
    /// The graph over HTTP, for Grafana and for people.
    Query(commands::query::Arguments),
    /// The graph in this terminal.
    Graph(commands::graph::Arguments),
    /// The tables in ClickHouse.
    Schema(commands::schema::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    telemetry::init(&cli.log).map_err(anyhow::Error::msg)?;
    let check = cli.check_config;
    // While this is the only thread: those that the runtime and others start inherit what is left.
    let sockets = match &cli.command {
        _ if check => None,
        Command::Up(arguments) => arguments.open_sockets()?,
        Command::Capture(arguments) => arguments.open_sockets()?,
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match cli.command {
            Command::Up(arguments) => commands::up::run(arguments, sockets, check).await,
            Command::Capture(arguments) => commands::capture::run(arguments, sockets, check).await,
            Command::Ingest(arguments) => commands::ingest::run(arguments, check).await,
            Command::Query(arguments) => commands::query::run(arguments, check).await,
            Command::Graph(arguments) => commands::graph::run(arguments, check).await,
            Command::Schema(arguments) => commands::schema::run(arguments, check).await,
        }
    });
    // A blocking read of standard input, say, must not keep a finished process.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_is_an_environment_variable_and_explained() {
        fn check(command: &Command) {
            for flag in command.get_arguments().filter(|flag| flag.get_long().is_some()) {
                let name = format!("{} --{}", command.get_name(), flag.get_id());
                let variable = flag.get_env().unwrap_or_default().to_string_lossy();
                assert!(variable.starts_with("FLOWTRAIL_"), "{name}: {variable:?}");
                assert!(flag.get_help().is_some(), "{name} has no help");
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
