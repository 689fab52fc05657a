//! The whole: `flowtrail ingest` between a broker with a full topic and the engine.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clickhouse::Client;

use super::store::{Delivered, Engine};
use crate::bench::measure::Bench;
use crate::flowtrail::Process;

/// How often is looked how far it is: seldom enough to cost nothing.
const POLL: Duration = Duration::from_millis(250);
/// How long it may go without getting any further.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What a run needs beside the tables that it fills.
#[derive(Debug)]
pub struct Run<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// Where the topic is.
    pub broker: SocketAddr,
    /// Names for it.
    pub names: &'a Path,
    /// Records in the topic.
    pub records: u64,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Records a second, from the first chunk's being in the table to the last's.
    pub records_per_s: f64,
    /// Resident memory of ingest in bytes, with the share of the records that were there then.
    pub memory: Vec<(f64, u64)>,
    /// User and system time of ingest over all, seconds.
    pub cpu_s: f64,
    /// Chunks that it took.
    pub chunks: u64,
}

impl Run<'_> {
    /// Ingests the topic into a new database, which is left for the caller to look at and drop.
    ///
    /// # Errors
    /// If ingest fails, stalls or loses anything; or if asked to end meanwhile.
    pub fn run(&self, bench: &Bench, database: &str, client: &Client) -> Result<Ran> {
        let process = self.start(bench, database)?;
        let mut memory = Vec::new();
        let (mut before, mut moved) = (0, Instant::now());
        let delivered = loop {
            thread::sleep(POLL);
            if bench.shutdown.is_cancelled() {
                bail!("interrupted");
            }
            let delivered = self.engine.delivered(client)?;
            let share = delivered.records as f64 / self.records as f64;
            memory.push((share, resident(process.id())?));
            if delivered.records >= self.records {
                break delivered;
            }
            if delivered.records > before {
                (before, moved) = (delivered.records, Instant::now());
            } else if moved.elapsed() > STALL_TIMEOUT {
                bail!("ingest stands still at {before} records:\n{}", process.output());
            }
        };
        let cpu_s = cpu_s(process.id())?;
        process.stop()?;
        let rows = self.engine.count(client, "flows")?;
        ensure!(rows == self.records, "{rows} rows of {} records", self.records);
        Ok(Ran { records_per_s: rate(delivered), memory, cpu_s, chunks: delivered.chunks })
    }

    fn start(&self, bench: &Bench, database: &str) -> Result<Process> {
        let arguments = [
            "ingest".to_owned(),
            format!("--kafka-brokers={}", self.broker),
            format!("--group={database}"),
            format!("--clickhouse-url={}", self.engine.url()),
            format!("--clickhouse-database={database}"),
            format!("--names={}", self.names.display()),
        ];
        let log = bench.file(&format!("{database}.log"));
        Process::start(&bench.flowtrail, arguments, None, log)
    }
}

fn rate(delivered: Delivered) -> f64 {
    delivered.timed as f64 * 1_000.0 / delivered.elapsed_ms as f64
}

/// Resident memory of a process in bytes (proc(5): `VmRSS`, in KiB).
fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse()?;
    Ok(kib * 1_024)
}

/// User and system time of a process in seconds (proc(5): `utime` and `stime`, in 1/100 s).
fn cpu_s(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Its name, in brackets, may hold anything; what follows is numbers.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(str::parse::<u64>).sum::<Result<_, _>>()?;
    Ok(ticks as f64 / 100.0)
}
