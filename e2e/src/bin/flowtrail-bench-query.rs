//! `make bench-query`: how fast graphs are over any window of a month, from request to last byte, and
//! what the engine reads for them; on a history that it makes itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use fastrand::Rng;
use flowtrail_e2e::bench::ingest::store::Engine;
use flowtrail_e2e::bench::measure::{cores, load};
use flowtrail_e2e::bench::query::caches::Caches;
use flowtrail_e2e::bench::query::disk::Table;
use flowtrail_e2e::bench::query::history::{DAY_S, History, client};
use flowtrail_e2e::bench::query::law;
use flowtrail_e2e::bench::query::question::{Asker, FILTERS, Span};
use flowtrail_e2e::bench::query::rounds::{Measured, Rounds, Runs};
use flowtrail_e2e::bench::query::{dashboards, overhead};
use flowtrail_e2e::bench::verdict::{Verdict, grouped};
use flowtrail_e2e::flowtrail::{Process, free_address};
use flowtrail_e2e::program::{ended, until_told};
use flowtrail_e2e::scenario::flowtrail_beside;
use tokio_util::sync::CancellationToken;

/// What nine answers in ten are to take, milliseconds.
const GOAL_P90_MS: f64 = 200.0;
/// How much longer the longest window may take than an hour.
const GOAL_RATIO: f64 = 3.0;
/// Bytes that a row of `flows` and of a rollup may take on the disk.
const GOAL_RAW_BYTES: f64 = 25.0;
/// See [`GOAL_RAW_BYTES`].
const GOAL_ROLLUP_BYTES: f64 = 20.0;
/// How long the query service may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Parser)]
#[command(about = "Measures graphs over windows of up to a month")]
struct Settings {
    /// Rows of the history, about. The full size is 100000000.
    #[arg(long, env = "BENCH_ROWS", default_value_t = 10_000_000, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rows: u64,

    /// How often each graph is asked for, cold and warm.
    #[arg(long, env = "BENCH_ROUNDS", default_value_t = 20, value_name = "N",
          value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,

    /// Measure only graphs over these windows, or one of: overhead (what the service adds to ClickHouse's time),
    /// load (many dashboards at once). Commas separate.
    #[arg(long, env = "BENCH_ONLY", value_delimiter = ',', value_name = "WHAT", value_parser = part)]
    only: Vec<Part>,

    /// Keep the history here, and use the one that is there if it is the same; by default it is
    /// temporary.
    #[arg(long, env = "BENCH_DIR", value_name = "DIR")]
    directory: Option<PathBuf>,

    /// The program to measure; the one beside this by default.
    #[arg(long, value_name = "FILE")]
    flowtrail: Option<PathBuf>,
}

/// A part of what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Graphs over windows of a length.
    Graphs(Span),
    /// What the service adds to ClickHouse's time.
    Overhead,
    /// Many dashboards at once.
    Load,
}

fn part(word: &str) -> Result<Part, String> {
    match word {
        "overhead" => Ok(Part::Overhead),
        "load" => Ok(Part::Load),
        _ => Span::from_str(word, false).map(Part::Graphs),
    }
}

fn main() -> ExitCode {
    let settings = Settings::parse();
    ended(until_told(move |shutdown| measure_all(&settings, &shutdown)))
}

fn measure_all(settings: &Settings, shutdown: &CancellationToken) -> Result<()> {
    let temporary = tempfile::Builder::new().prefix("flowtrail-bench-").tempdir()?;
    let directory = settings.directory.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let flowtrail = match &settings.flowtrail {
        Some(program) => program.clone(),
        None => flowtrail_beside(&std::env::current_exe()?)?,
    };
    println!("Measured on {} cores; load average at the start {}", cores()?.len(), load());

    let engine = Engine::start(directory)?;
    let history = History::prepare(&engine, directory, settings.rows, shutdown)?;
    let client = client(&engine);
    let (process, asker) = serve(&flowtrail, &engine, directory)?;

    // The same windows every time, each ending at some second of the last day.
    let mut rng = Rng::with_seed(1);
    let mut end_s = || history.end_s() - rng.u64(..DAY_S);
    let checked = law::check(&engine, &client, &asker, &mut end_s)?;
    println!("{checked} graphs are what the {} raw rows add up to", grouped(history.rows));

    let wanted = |part: Part| settings.only.is_empty() || settings.only.contains(&part);
    let spans = Span::value_variants().iter().copied();
    let spans: Vec<_> = spans.filter(|span| wanted(Part::Graphs(*span))).collect();
    let mut verdicts = Vec::new();
    if !spans.is_empty() {
        let caches = Caches::of(&engine, &client, directory)?;
        let rounds = Rounds {
            engine: &engine,
            client: &client,
            caches: &caches,
            asker: &asker,
            rounds: settings.rounds.into(),
            spans: &spans,
            shutdown,
        };
        let measured = rounds.run(&mut end_s)?;
        verdicts.push(quick("cold", &measured, |measured| &measured.cold));
        verdicts.push(quick("warm", &measured, |measured| &measured.warm));
        verdicts.extend(flat(&measured));
    }
    if wanted(Part::Overhead) {
        verdicts.push(overhead::run(&asker, &mut end_s, shutdown)?);
    }
    if wanted(Part::Load) {
        verdicts.extend(dashboards::run(&asker, history.end_s(), shutdown)?);
    }
    process.stop()?;
    let tables = Table::all(&engine, &client)?;
    for table in &tables {
        table.print(&engine, &client)?;
    }

    println!("\nGoals, at {} raw rows (load average at the end {})", grouped(history.rows), load());
    verdicts.extend(tables.iter().filter_map(small));
    verdicts.iter().for_each(|verdict| println!("{verdict}"));
    Ok(())
}

/// Starts the query service on the engine.
fn serve(flowtrail: &Path, engine: &Engine, directory: &Path) -> Result<(Process, Asker)> {
    let address = free_address()?;
    let arguments = [
        "query".to_owned(),
        format!("--listen={address}"),
        format!("--clickhouse-url={}", engine.url()),
    ];
    let mut process = Process::start(flowtrail, arguments, None, directory.join("query.log"))?;
    process.wait_ready(address, START_TIMEOUT)?;
    Ok((process, Asker::new(format!("http://{address}"))))
}

fn quick(how: &str, measured: &[Measured], runs: fn(&Measured) -> &Runs) -> Verdict {
    let p90 = |measured: &Measured| runs(measured).ms(0.9);
    let within = measured.iter().filter(|measured| p90(measured) <= GOAL_P90_MS).count();
    let worst = measured.iter().max_by(|a, b| p90(a).total_cmp(&p90(b)));
    let worst = worst.map_or_else(String::new, |measured| {
        let words: Vec<_> =
            measured.question.to_string().split_whitespace().map(str::to_owned).collect();
        let words = words.join(" ");
        match p90(measured) {
            ms if ms.is_finite() => format!("at most {ms:.0} ms for {words}"),
            _ => format!("no answer to {words}"),
        }
    });
    Verdict {
        goal: format!("p90 of every graph, {how} ≤ {GOAL_P90_MS:.0} ms"),
        figure: format!("{within} of {} are; {worst}", measured.len()),
        met: within == measured.len(),
    }
}

/// How much longer the longest window takes than an hour, for each grouping, if both were measured.
fn flat(measured: &[Measured]) -> Option<Verdict> {
    let unfiltered = || measured.iter().filter(|measured| measured.question.filter == FILTERS[0]);
    let of = |span: Span| unfiltered().filter(move |measured| measured.question.span == span);
    let ratios: Vec<_> = of(Span::Month)
        .zip(of(Span::Hour))
        .map(|(month, hour)| (month.question.group_by, month.warm.ms(0.5) / hour.warm.ms(0.5)))
        .collect();
    let figures: Vec<_> =
        ratios.iter().map(|(group_by, ratio)| format!("{group_by} {ratio:.1} ×")).collect();
    (!ratios.is_empty()).then(|| Verdict {
        goal: format!("30 days ≤ {GOAL_RATIO:.0} × an hour, warm median"),
        figure: figures.join(", "),
        met: ratios.iter().all(|(_, ratio)| *ratio <= GOAL_RATIO),
    })
}

fn small(table: &Table) -> Option<Verdict> {
    let goal = match table.table.as_str() {
        "flows" => GOAL_RAW_BYTES,
        _ if table.is_rollup() => GOAL_ROLLUP_BYTES,
        _ => return None,
    };
    Some(Verdict {
        goal: format!("a row of {} ≤ {goal:.0} bytes on the disk", table.table),
        figure: format!("{:.1} bytes", table.row()),
        met: table.row() <= goal,
    })
}
