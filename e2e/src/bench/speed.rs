//! Speed: packets of a file through flowtrail, softflowd and tcpdump in turn, on one core, and their
//! times as ratios. The files are in the page cache; each program's start is part of its time.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use super::measure::{Bench, Usage};
use super::pcap::{self, Contents};
use super::trace::Trace;
use super::verdict::{Spread, Verdict, grouped, mebibytes};

/// What a production capture keeps of a packet: its headers, with room for options and tunnels.
const SHORT_SNAP: u32 = 128;
const WHOLE_SNAP: u32 = 65_535;
/// A file may take this share of what the kernel calls available, or reading it measures the disk.
const CACHE_SHARE: u64 = 3;

/// Packets a second, of softflowd's, that flowtrail is to have; and time, of the bare read's, that
/// it may take.
const SOFTFLOWD_RATIO: f64 = 2.0;
const TCPDUMP_RATIO: f64 = 1.5;

/// One program, and how it reads a file.
struct Contender {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    core: Option<usize>,
    runs: Vec<Usage>,
}

impl Contender {
    fn wall(&self) -> Spread {
        Spread::of(self.runs.iter().map(|run| run.wall_s))
    }

    fn cpu(&self) -> Spread {
        Spread::of(self.runs.iter().map(|run| run.cpu_s))
    }
}

/// Measures with whole packets, and with the same packets cut short; so many rounds.
///
/// # Errors
/// If a program cannot be run, or the file is too large for this machine's memory.
pub fn run(bench: &Bench, packets: usize, rounds: usize) -> Result<Vec<Verdict>> {
    let trace = Trace::everyday(packets);
    check_memory(&trace)?;
    let mut verdicts = Vec::new();
    for (name, snap_length) in [("whole", WHOLE_SNAP), ("short", SHORT_SNAP)] {
        let file = bench.file(&format!("{name}.pcap"));
        eprintln!("speed, {name} packets: writing {} …", file.display());
        let contents = pcap::write(&trace, &file, snap_length)?;
        describe(name, snap_length, &trace, &contents);
        let mut contenders = contenders(bench, &file);
        compare(bench, &mut contenders, rounds)?;
        print(&contenders, contents.packets);
        verdicts.extend(judge(name, &contenders));
        bench.done_with(&file)?;
    }
    Ok(verdicts)
}

fn check_memory(trace: &Trace) -> Result<()> {
    let bytes: u64 = trace.events.iter().map(|event| u64::from(event.payload) + 90).sum();
    let available = available_memory()?;
    if bytes > available / CACHE_SHARE {
        bail!(
            "a file of {:.0} MiB does not stay in this machine's page cache beside all else \
             ({:.0} MiB are available): choose fewer BENCH_PACKETS",
            mebibytes(bytes),
            mebibytes(available)
        );
    }
    Ok(())
}

fn available_memory() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()).unwrap_or_default();
    Ok(kibibytes.parse::<u64>()? * 1_024)
}

fn describe(name: &str, snap_length: u32, trace: &Trace, contents: &Contents) {
    let percent = |part: u64| 100.0 * part as f64 / contents.packets as f64;
    let seconds = trace.events.last().map_or(0, |event| event.time_us / 1_000_000);
    println!("\nSpeed, {name} packets (kept: at most {snap_length} bytes each)");
    println!(
        "{} packets of {} connections over {} s; {:.0} bytes on average, {:.0} % at most 66, \
         {:.0} % 1,514; {:.0} MiB",
        grouped(contents.packets),
        grouped(trace.connections.len() as u64),
        seconds,
        contents.wire_bytes as f64 / contents.packets as f64,
        percent(contents.small),
        percent(contents.full),
        mebibytes(contents.file_bytes)
    );
}

fn contenders(bench: &Bench, file: &Path) -> Vec<Contender> {
    let file = file.display().to_string();
    let contender = |name, program: &Path, words: &[&str], core| Contender {
        name,
        program: program.to_owned(),
        arguments: words.iter().map(|word| (*word).to_owned()).collect(),
        core,
        runs: Vec::new(),
    };
    let capture = ["capture", "--read", &file, "--output", "null"];
    // Room for all its flows, and IPv6 too, as flowtrail has; it exports nowhere, and does not fork.
    let softflowd = ["-d", "-6", "-m", "1000000", "-r", &file];
    // Started by root it would go on as another user.
    let as_root: &[&str] = if geteuid().is_root() { &["-Z", "root"] } else { &[] };
    let tcpdump = [&["-r", &file, "-w", "/dev/null"], as_root].concat();
    let one = Some(bench.core);
    vec![
        contender("flowtrail capture", &bench.flowtrail, &capture, one),
        contender("softflowd", Path::new("softflowd"), &softflowd, one),
        contender("tcpdump (bare read)", Path::new("tcpdump"), &tcpdump, one),
        contender("flowtrail, all cores", &bench.flowtrail, &capture, None),
    ]
}

/// Runs them in turn, so that whatever slows the machine for a while slows all of them. The first
/// round only warms up.
fn compare(bench: &Bench, contenders: &mut [Contender], rounds: usize) -> Result<()> {
    for round in 0..=rounds {
        eprintln!("  round {round} of {rounds}{}", if round == 0 { " (not counted)" } else { "" });
        for contender in contenders.iter_mut() {
            let arguments = &contender.arguments;
            let usage = bench.measure(contender.core, &contender.program, arguments)?;
            if round > 0 {
                contender.runs.push(usage);
            }
        }
    }
    Ok(())
}

fn print(contenders: &[Contender], packets: u64) {
    let softflowd = contenders[1].wall().median;
    let tcpdump = contenders[2].wall().median;
    println!(
        "{:<22} {:>19} {:>19} {:>12} {:>11} {:>9}",
        "", "wall, s (min–max)", "CPU, s (min–max)", "packets/s", "× softflowd", "× tcpdump"
    );
    for contender in contenders {
        let (wall, cpu) = (contender.wall(), contender.cpu());
        println!(
            "{:<22} {:>19} {:>19} {:>12} {:>11.2} {:>9.2}",
            contender.name,
            wall.to_string(),
            cpu.to_string(),
            grouped((packets as f64 / wall.median) as u64),
            softflowd / wall.median,
            wall.median / tcpdump
        );
    }
    println!("× softflowd: packets a second, against its; × tcpdump: time, against its");
}

fn judge(name: &str, contenders: &[Contender]) -> [Verdict; 2] {
    let [flowtrail, softflowd, tcpdump] = [0, 1, 2].map(|index| &contenders[index]);
    let ratio = |over: Spread, under: Spread| over.median / under.median;
    let faster = ratio(softflowd.wall(), flowtrail.wall());
    let slower = ratio(flowtrail.wall(), tcpdump.wall());
    [
        Verdict {
            goal: format!("packets/s on one core ≥ {SOFTFLOWD_RATIO} × softflowd, {name} packets"),
            figure: format!(
                "{faster:.2} × (in CPU time {:.2})",
                ratio(softflowd.cpu(), flowtrail.cpu())
            ),
            met: faster >= SOFTFLOWD_RATIO,
        },
        Verdict {
            goal: format!("time on one core ≤ {TCPDUMP_RATIO} × the bare read, {name} packets"),
            figure: format!(
                "{slower:.2} × (in CPU time {:.2})",
                ratio(flowtrail.cpu(), tcpdump.cpu())
            ),
            met: slower <= TCPDUMP_RATIO,
        },
    ]
}
