//! A flood of SYNs: what it costs in memory against the cap on flows, and whether connections that
//! were there before survive it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::measure::{Bench, Group};
use super::pcap;
use super::trace::Trace;
use super::verdict::{Verdict, grouped, mebibytes};

const ESTABLISHED: usize = 1_000;
const ATTACKERS: u32 = 1_000_000;
const MAX_FLOWS: &str = "100000";
const CAP: u64 = 100_000;
const SNAP: u32 = 96;
const TIMEOUT: Duration = Duration::from_mins(1);
/// How a line of JSON names a client among the established ones (see [`Trace::flood`]); the
/// attackers' addresses are elsewhere.
const ESTABLISHED_CLIENT: &str = r#""client":{"ip":"10.64."#;

/// What a record says of its connection's life.
#[derive(Deserialize)]
struct Record {
    opened: u64,
    joined: u64,
    #[serde(default)]
    closed: Closed,
}

#[derive(Default, Deserialize)]
struct Closed {
    #[serde(default)]
    evicted: u64,
    #[serde(default)]
    fin: u64,
}

/// The established connections' lives, summed.
#[derive(Debug, Default)]
struct Lives {
    opened: u64,
    joined: u64,
    evicted: u64,
    fin: u64,
}

/// Floods that the server answers, and floods that it does not.
///
/// # Errors
/// If flowtrail cannot be run, or its records do not make sense.
pub fn run(bench: &Bench) -> Result<Vec<Verdict>> {
    println!(
        "\nSYN flood: {} sources within 20 s, {} established connections (half of them silent \
         during it), --max-flows {MAX_FLOWS}",
        grouped(ATTACKERS.into()),
        grouped(ESTABLISHED as u64)
    );
    println!(
        "{:<22} {:>10} {:>13} {:>20} {:>8} {:>8} {:>8} {:>8}",
        "SYNs are",
        "peak, MiB",
        "baseline, MiB",
        "beyond/flow of cap",
        "opened",
        "evicted",
        "joined",
        "fin"
    );
    let mut verdicts = Vec::new();
    for (name, answered) in [("not answered", false), ("answered", true)] {
        let file = bench.file("flood.pcap");
        eprintln!("SYN flood, {name}: writing {} …", file.display());
        pcap::write(&Trace::flood(ESTABLISHED, ATTACKERS, answered), &file, SNAP)?;
        let tiny = bench.file("tiny.pcap");
        pcap::write(&Trace::everyday(1), &tiny, SNAP)?;
        let (baseline, peak) = (peak(bench, &tiny)?, peak(bench, &file)?);
        let lives = lives(bench, &file)?;
        println!(
            "{name:<22} {:>10.0} {:>13.1} {:>20.0} {:>8} {:>8} {:>8} {:>8}",
            mebibytes(peak),
            mebibytes(baseline),
            peak.saturating_sub(baseline) as f64 / CAP as f64,
            lives.opened,
            lives.evicted,
            lives.joined,
            lives.fin
        );
        if lives.opened != ESTABLISHED as u64 {
            bail!("{} of {ESTABLISHED} connections were opened: {lives:?}", lives.opened);
        }
        bench.done_with(&file)?;
        verdicts.push(Verdict {
            goal: format!("established connections evicted by a flood of SYNs {name}: none"),
            figure: format!("{} of {ESTABLISHED}", lives.evicted),
            met: lives.evicted == 0 && lives.joined == 0,
        });
    }
    Ok(verdicts)
}

fn peak(bench: &Bench, file: &Path) -> Result<u64> {
    let file = file.display().to_string();
    let words = ["capture", "--max-flows", MAX_FLOWS, "--output", "null", "--read", &file];
    Ok(bench.measure(None, &bench.flowtrail, words)?.peak_bytes)
}

/// Reads the records of the established connections.
fn lives(bench: &Bench, file: &Path) -> Result<Lives> {
    let mut command = Command::new(&bench.flowtrail);
    command.args(["capture", "--max-flows", MAX_FLOWS, "--output", "json", "--read"]).arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut group = Group::start(command)?;
    let mut lives = Lives::default();
    for line in BufReader::new(group.stdout()?).lines() {
        if bench.shutdown.is_cancelled() {
            bail!("interrupted");
        }
        let line = line?;
        if !line.contains(ESTABLISHED_CLIENT) {
            continue;
        }
        let record: Record =
            serde_json::from_str(&line).with_context(|| format!("not a record: {line}"))?;
        lives.opened += record.opened;
        lives.joined += record.joined;
        lives.evicted += record.closed.evicted;
        lives.fin += record.closed.fin;
    }
    group.wait(&bench.shutdown, TIMEOUT)?;
    Ok(lives)
}
