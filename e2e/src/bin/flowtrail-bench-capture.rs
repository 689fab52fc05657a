//! `make bench-capture`: how fast and how frugal capture is, beside softflowd and tcpdump, measured in
//! one run on packets that it makes itself.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use flowtrail_e2e::bench::measure::{Bench, Measure, cores, load};
use flowtrail_e2e::bench::{flood, live, memory, speed};
use flowtrail_e2e::program::{ended, until_told};
use flowtrail_e2e::scenario::flowtrail_beside;
use nix::unistd::geteuid;
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(about = "Measures capture beside softflowd and tcpdump (needs root)")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one program and prints what it used.
    #[command(hide = true)]
    Measure(Measure),
}

#[derive(clap::Args, Clone)]
struct Settings {
    /// Packets of the file that speed is measured with.
    #[arg(long, env = "BENCH_PACKETS", default_value_t = 2_000_000, value_name = "N",
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    packets: usize,

    /// Rounds that count, of each speed.
    #[arg(long, env = "BENCH_ROUNDS", default_value_t = 5, value_name = "N",
          value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,

    /// Connections that memory is measured with.
    #[arg(long, env = "BENCH_CONNECTIONS", default_value_t = 1_000_000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    connections: u32,

    /// Packets sent to each reader live, in each of two rounds.
    #[arg(long, env = "BENCH_LIVE_PACKETS", default_value_t = 4_000_000, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    live_packets: u64,

    /// Measure only these; commas separate.
    #[arg(long, env = "BENCH_ONLY", value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,

    /// Keep the files that it makes here; by default they are temporary.
    #[arg(long, env = "BENCH_DIR", value_name = "DIR")]
    directory: Option<PathBuf>,

    /// The program to measure; the one beside this by default.
    #[arg(long, value_name = "FILE")]
    flowtrail: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Speed,
    Memory,
    Flood,
    Live,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    ended(match arguments.command {
        Some(Command::Measure(measure)) => measure.run(),
        None => until_told(move |shutdown| measure_all(&arguments.settings, shutdown)),
    })
}

fn measure_all(settings: &Settings, shutdown: CancellationToken) -> Result<()> {
    let is_wanted = |part| settings.only.is_empty() || settings.only.contains(&part);
    if is_wanted(Part::Live) && !geteuid().is_root() {
        bail!("the live part makes network namespaces: run this as root, or with sudo");
    }
    let temporary = tempfile::Builder::new().prefix("flowtrail-bench-").tempdir()?;
    let (directory, keep_files) = match &settings.directory {
        Some(directory) => {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
            (directory.clone(), true)
        }
        None => (temporary.path().to_owned(), false),
    };
    let myself = std::env::current_exe()?;
    let flowtrail = match &settings.flowtrail {
        Some(program) => program.clone(),
        None => flowtrail_beside(&myself)?,
    };
    let cores = cores()?;
    let (core, other_core) = match cores.as_slice() {
        [] => bail!("no core to run on"),
        [only] => (*only, None),
        [first, .., last] => (*last, Some(*first)),
    };
    println!("Measured on {} cores; load average at the start {}", cores.len(), load());
    let bench = Bench { myself, flowtrail, directory, core, other_core, keep_files, shutdown };

    let mut verdicts = Vec::new();
    if is_wanted(Part::Speed) {
        verdicts.extend(speed::run(&bench, settings.packets, settings.rounds.into())?);
    }
    if is_wanted(Part::Memory) {
        verdicts.extend(memory::run(&bench, settings.connections as usize)?);
    }
    if is_wanted(Part::Flood) {
        verdicts.extend(flood::run(&bench)?);
    }
    if is_wanted(Part::Live) {
        verdicts.extend(live::run(&bench, settings.live_packets)?);
    }
    println!("\nGoals (load average at the end {})", load());
    for verdict in &verdicts {
        println!("{verdict}");
    }
    Ok(())
}
