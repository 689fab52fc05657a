//! `make bench-ingest`: how fast ingest is from Kafka to rows in ClickHouse, beside how fast the engine
//! takes the same rows by itself, measured in one run on traffic that it makes itself.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use chrono::{SecondsFormat, TimeDelta, Utc};
use clap::{Parser, Subcommand, ValueEnum};
use flowtrail_e2e::bench::ingest::encode::{self, Encode};
use flowtrail_e2e::bench::ingest::limit;
use flowtrail_e2e::bench::ingest::pipeline::Run;
use flowtrail_e2e::bench::ingest::store::Engine;
use flowtrail_e2e::bench::ingest::topic::Topic;
use flowtrail_e2e::bench::ingest::traffic::Traffic;
use flowtrail_e2e::bench::ingest::world::World;
use flowtrail_e2e::bench::measure::{Bench, cores, load};
use flowtrail_e2e::bench::verdict::{Spread, Verdict, grouped, mebibytes};
use flowtrail_e2e::broker::Broker;
use flowtrail_e2e::program::{ended, until_told};
use flowtrail_e2e::scenario::flowtrail_beside;
use flowtrail_ingest::Config;
use tokio_util::sync::CancellationToken;

/// What the whole is to reach of the limit.
const GOAL_RATIO: f64 = 0.6;
/// Records a second of one core that ingest is to decode, name and encode.
const GOAL_ENCODED: f64 = 1e6;
/// What memory at the end of a long run may be, of that at 60 % of it.
const GOAL_MEMORY: f64 = 1.1;

#[derive(Parser)]
#[command(about = "Measures ingest beside the engine's own rate")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Helper>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Subcommand)]
enum Helper {
    /// Ingests a file of messages and prints what that took.
    #[command(hide = true)]
    Encode(Encode),
}

#[derive(clap::Args, Clone)]
struct Settings {
    /// Records that speed is measured with, about.
    #[arg(long, env = "BENCH_RECORDS", default_value_t = 2_000_000, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,

    /// Records of the long run, about.
    #[arg(long, env = "BENCH_LONG_RECORDS", default_value_t = 12_000_000, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..))]
    long_records: u64,

    /// Rounds that count.
    #[arg(long, env = "BENCH_ROUNDS", default_value_t = 3, value_name = "N",
          value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,

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
    /// Kafka to rows, beside the limit.
    Speed,
    /// Decode, name and encode, on one core.
    Encode,
    /// Memory over a long run.
    Memory,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    ended(match arguments.command {
        Some(Helper::Encode(encode)) => encode.run(),
        None => until_told(move |shutdown| measure_all(&arguments.settings, shutdown)),
    })
}

fn measure_all(settings: &Settings, shutdown: CancellationToken) -> Result<()> {
    let is_wanted = |part| settings.only.is_empty() || settings.only.contains(&part);
    let temporary = tempfile::Builder::new().prefix("flowtrail-bench-").tempdir()?;
    let (directory, keep_files) = match &settings.directory {
        Some(directory) => (directory.clone(), true),
        None => (temporary.path().to_owned(), false),
    };
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let myself = std::env::current_exe()?;
    let flowtrail = match &settings.flowtrail {
        Some(program) => program.clone(),
        None => flowtrail_beside(&myself)?,
    };
    let cores = cores()?;
    let (Some(first), Some(last)) = (cores.first(), cores.last()) else {
        bail!("no core to run on")
    };
    println!("Measured on {} cores; load average at the start {}", cores.len(), load());
    let (core, other_core) = (*last, (first != last).then_some(*first));
    let bench = Bench { myself, flowtrail, directory, core, other_core, keep_files, shutdown };
    let measured = Measured::prepare(&bench, settings)?;

    let mut verdicts = Vec::new();
    if is_wanted(Part::Encode) {
        verdicts.push(measured.encode()?);
    }
    if is_wanted(Part::Speed) || is_wanted(Part::Memory) {
        let broker = Broker::start(&bench.directory)?;
        let topic = Topic::create(&broker)?;
        let mut traffic = Traffic::from(measured.start_us);
        let mut records = 0;
        let mut fill = |up_to: u64| -> Result<u64> {
            eprintln!("filling the topic with {} records …", grouped(up_to));
            while records < up_to {
                let messages = traffic.next_interval();
                records += count(&messages);
                topic.send(&messages)?;
            }
            topic.flush()?;
            Ok(records)
        };
        if is_wanted(Part::Speed) {
            let records = fill(settings.records)?;
            verdicts.push(measured.speed(&broker, records)?);
        }
        if is_wanted(Part::Memory) {
            let records = fill(settings.long_records)?;
            verdicts.push(measured.memory(&broker, records)?);
        }
    }
    println!("\nGoals (load average at the end {})", load());
    verdicts.iter().for_each(|verdict| println!("{verdict}"));
    Ok(())
}

/// What all parts have in common.
struct Measured<'a> {
    bench: &'a Bench,
    rounds: usize,
    records: u64,
    engine: Engine,
    names: PathBuf,
    /// When the traffic begins, microseconds since the epoch.
    start_us: u64,
}

impl<'a> Measured<'a> {
    fn prepare(bench: &'a Bench, settings: &Settings) -> Result<Self> {
        let names = bench.file("names.json");
        let created = (Utc::now() - TimeDelta::days(1)).to_rfc3339_opts(SecondsFormat::Secs, true);
        let file = BufWriter::new(File::create(&names)?);
        serde_json::to_writer(file, &World::new().names(&created))?;
        // Some hours ago: no row is past its retention, and none is of tomorrow.
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let start_us = (now.as_micros() as u64).saturating_sub(6 * 3_600_000_000);
        let engine = Engine::start(&bench.directory)?;
        let (rounds, records) = (settings.rounds.into(), settings.records);
        Ok(Self { bench, rounds, records, engine, names, start_us })
    }

    fn encode(&self) -> Result<Verdict> {
        let messages = self.bench.file("messages");
        write_messages(&messages, self.start_us, self.records)?;
        self.engine.create_without_table("thrown_away")?;
        let helper = Encode {
            messages: messages.clone(),
            names: self.names.clone(),
            clickhouse_url: self.engine.url(),
            database: "thrown_away".to_owned(),
            core: self.bench.core,
        };
        let mut runs = Vec::new();
        for round in 0..=self.rounds {
            say_round("encode", round, self.rounds);
            let took = helper.measure(self.bench)?;
            if round > 0 {
                runs.push(took);
            }
        }
        self.bench.done_with(&messages)?;
        let cpu = Spread::of(runs.iter().map(|took| took.records as f64 / took.cpu_s));
        let wall = Spread::of(runs.iter().map(|took| took.records as f64 / took.wall_s));
        println!("\nDecode, name, encode and send, one core, the table taken out");
        println!("  {} records/s of CPU time, {} of wall clock", show(cpu), show(wall));
        Ok(Verdict {
            goal: format!(
                "decode + enrich + encode ≥ {} records/s of a core",
                grouped(GOAL_ENCODED as u64)
            ),
            figure: format!("{} records/s", show(cpu)),
            met: cpu.median >= GOAL_ENCODED,
        })
    }

    fn speed(&self, broker: &Broker, records: u64) -> Result<Verdict> {
        let rows = self.bench.file("rows.native");
        let run = self.pipeline(broker, records);
        let (mut limits, mut runs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=self.rounds {
            say_round("speed", round, self.rounds);
            let name = format!("round_{round}");
            let client = self.engine.create(&name)?;
            let ran = run.run(self.bench, &name, &client)?;
            if round == 0 {
                let block_rows = Config::default().chunk_rows.get() as u64;
                let size = limit::write(&self.engine, &client, &rows, block_rows)?;
                println!(
                    "\nSpeed, {} records, {:.0} bytes a row in Native",
                    grouped(records),
                    size as f64 / records as f64
                );
            }
            self.engine.drop_database(&name)?;
            let client = self.engine.create("limit")?;
            let took = limit::insert(&self.engine, &client, &rows)?;
            self.engine.drop_database("limit")?;
            let limit = records as f64 / took.as_secs_f64();
            println!(
                "  round {round}: the engine alone {:>9} rows/s; from Kafka {:>9} records/s ({:.0} %), \
                 ingest's CPU {:.2} µs a record, {} chunks",
                grouped(limit as u64),
                grouped(ran.records_per_s as u64),
                100.0 * ran.records_per_s / limit,
                ran.cpu_s * 1e6 / records as f64,
                ran.chunks,
            );
            if round > 0 {
                ratios.push(ran.records_per_s / limit);
                limits.push(limit);
                runs.push(ran.records_per_s);
            }
        }
        self.bench.done_with(&rows)?;
        let ratio = Spread::of(ratios);
        println!(
            "  engine alone {} rows/s, from Kafka {} records/s",
            show(Spread::of(limits)),
            show(Spread::of(runs))
        );
        Ok(Verdict {
            goal: format!("Kafka to rows ≥ {:.0} % of what the engine takes", GOAL_RATIO * 100.0),
            figure: format!(
                "{:.0} % ({:.0}–{:.0})",
                ratio.median * 100.0,
                ratio.min * 100.0,
                ratio.max * 100.0
            ),
            met: ratio.median >= GOAL_RATIO,
        })
    }

    fn memory(&self, broker: &Broker, records: u64) -> Result<Verdict> {
        eprintln!("memory: one long run …");
        let client = self.engine.create("long")?;
        let ran = self.pipeline(broker, records).run(self.bench, "long", &client)?;
        let at = |share: f64| {
            ran.memory
                .iter()
                .find(|(at, _)| *at >= share)
                .map_or(f64::NAN, |(_, bytes)| mebibytes(*bytes))
        };
        let [early, middle, end] = [0.2, 0.6, 1.0].map(at);
        println!(
            "\nMemory of ingest over {} records: {early:.0} MiB at 20 %, {middle:.0} at 60 %, {end:.0} at the end; {} records/s",
            grouped(records),
            grouped(ran.records_per_s as u64)
        );
        Ok(Verdict {
            goal: format!("memory at the end ≤ {GOAL_MEMORY} × at 60 % of a long run"),
            figure: format!("{:.2} ×", end / middle),
            met: end <= GOAL_MEMORY * middle,
        })
    }

    fn pipeline(&self, broker: &Broker, records: u64) -> Run<'_> {
        Run { engine: &self.engine, broker: broker.address(), names: &self.names, records }
    }
}

fn write_messages(file: &Path, start_us: u64, up_to: u64) -> Result<()> {
    let mut file = BufWriter::new(File::create(file)?);
    let mut traffic = Traffic::from(start_us);
    let mut records = 0;
    while records < up_to {
        let messages = traffic.next_interval();
        records += count(&messages);
        encode::write(&mut file, &messages)?;
    }
    Ok(())
}

fn count(messages: &[flowtrail_schema::topic::Message]) -> u64 {
    messages.iter().map(|message| u64::from(message.records)).sum()
}

fn say_round(part: &str, round: usize, rounds: usize) {
    let counted = if round == 0 { " (not counted)" } else { "" };
    eprintln!("{part}: round {round} of {rounds}{counted}");
}

fn show(rates: Spread) -> String {
    let [median, min, max] = [rates.median, rates.min, rates.max].map(|rate| grouped(rate as u64));
    format!("{median} ({min}–{max})")
}
