//! Memory: what a million connections take that are all open at once, of flowtrail and of softflowd.

use std::path::Path;

use anyhow::Result;

use super::measure::Bench;
use super::pcap;
use super::trace::Trace;
use super::verdict::{Verdict, grouped, mebibytes};

/// Bytes of a live flow, at most.
const GOAL_BYTES: f64 = 256.0;
/// Nothing of the payload is looked at.
const SNAP: u32 = 96;
/// What a program takes that has next to nothing to do.
const TINY_PACKETS: usize = 1;

/// Measures with so many connections.
///
/// # Errors
/// If a program cannot be run.
pub fn run(bench: &Bench, connections: usize) -> Result<Vec<Verdict>> {
    let file = bench.file("open.pcap");
    let tiny = bench.file("tiny.pcap");
    eprintln!("memory: writing {} …", file.display());
    let contents = pcap::write(&Trace::open_at_once(connections), &file, SNAP)?;
    pcap::write(&Trace::everyday(TINY_PACKETS), &tiny, SNAP)?;
    println!(
        "\nMemory, {} connections open at once ({} packets within 30 s)",
        grouped(connections as u64),
        grouped(contents.packets)
    );
    println!(
        "{:<22} {:>10} {:>13} {:>17} {:>20}",
        "", "peak, MiB", "baseline, MiB", "peak/flow, bytes", "beyond baseline/flow"
    );
    // Above the number of flows, so that none is evicted.
    let most = (connections + connections / 10).to_string();
    let programs: [(&str, &Path, &[&str], &str); 2] = [
        (
            "flowtrail capture",
            &bench.flowtrail,
            &["capture", "--output", "null", "--max-flows", &most],
            "--read",
        ),
        ("softflowd", Path::new("softflowd"), &["-d", "-6", "-m", &most], "-r"),
    ];
    let mut verdicts = Vec::new();
    for (name, program, words, read) in programs {
        eprintln!("  {name}");
        let peak = |file: &Path| {
            let file = file.display().to_string();
            let arguments = [words, &[read, &file]].concat();
            bench.measure(None, program, arguments).map(|usage| usage.peak_bytes)
        };
        let (baseline, peak) = (peak(&tiny)?, peak(&file)?);
        let per_flow = |bytes: u64| bytes as f64 / connections as f64;
        let beyond = per_flow(peak.saturating_sub(baseline));
        println!(
            "{name:<22} {:>10.0} {:>13.1} {:>17.0} {beyond:>20.0}",
            mebibytes(peak),
            mebibytes(baseline),
            per_flow(peak)
        );
        if program == bench.flowtrail {
            verdicts.push(Verdict {
                goal: format!("memory of a live flow ≤ {GOAL_BYTES} bytes, peak beyond baseline"),
                figure: format!("{beyond:.0} bytes"),
                met: beyond <= GOAL_BYTES,
            });
        }
    }
    bench.done_with(&file)?;
    Ok(verdicts)
}
